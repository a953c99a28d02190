//! What can go wrong with a log, as errors of the port.

use std::{io, path::Path, time::Duration};

use weir_core::{Error, ErrorKind, Partition, Stream};

/// A reader of the log drains a group within this; a trim comes later.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The file has bytes that were durable once and are not what was written.
pub(crate) fn damaged(path: &Path, offset: u64, what: &str) -> Error {
    Error::new(
        ErrorKind::DataLoss,
        "LOG_DAMAGED",
        format!("log file {} is damaged at offset {offset}: {what}", path.display()),
    )
}

pub(crate) fn io(path: &Path, what: &str, source: io::Error) -> Error {
    Error::unavailable(format!("cannot {what} {}: {source}", path.display())).with_source(source)
}

pub(crate) fn full(stream: Stream, bytes_max: u64) -> Error {
    let text = format!("log of stream {stream} is full: it has reached its limit of {bytes_max} bytes");
    Error::new(ErrorKind::ResourceExhausted, "LOG_FULL", text)
        .with_limit(bytes_max)
        .with_retry_after(RETRY_AFTER)
}

pub(crate) fn disk_full(stream: Stream, reserve: u64) -> Error {
    let text = format!(
        "log of stream {stream} is full: its disk has fewer than the {reserve} bytes free that the log leaves to others"
    );
    Error::new(ErrorKind::ResourceExhausted, "LOG_FULL", text)
        .with_limit(reserve)
        .with_retry_after(RETRY_AFTER)
}

pub(crate) fn no_space(stream: Stream, source: io::Error) -> Error {
    let text = format!("log of stream {stream} is full: {source}");
    Error::new(ErrorKind::ResourceExhausted, "LOG_FULL", text)
        .with_retry_after(RETRY_AFTER)
        .with_source(source)
}

/// Whether an error of the file system means that there is no room, as opposed to a broken disk.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// After a failed sync, what the page cache shows need not be what the disk has.
pub(crate) fn failed(stream: Stream, path: &Path, what: &str, source: io::Error) -> Error {
    let text = format!(
        "log of stream {stream} has stopped: cannot {what} {}: {source}; what is on disk is checked at the next start",
        path.display()
    );
    Error::new(ErrorKind::Unavailable, "LOG_FAILED", text).with_source(source)
}

pub(crate) fn closed(stream: Stream) -> Error {
    Error::unavailable(format!("log of stream {stream} is closed"))
}

pub(crate) fn too_large(stream: Stream, len: usize, max: usize) -> Error {
    let text = format!("record of {len} bytes for stream {stream} is over the log's limit of {max} bytes");
    Error::new(ErrorKind::ResourceExhausted, "RECORD_TOO_LARGE", text).with_limit(max)
}

pub(crate) fn trimmed(stream: Stream, partition: Partition, from: u64, first: u64) -> Error {
    let text = format!(
        "stream {stream}, partition {partition}: records from sequence {from} were trimmed before they were read; the \
         first one left is {first}"
    );
    Error::new(ErrorKind::DataLoss, "TRIMMED_PAST", text)
}
