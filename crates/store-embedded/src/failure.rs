//! What fjall's errors mean to a caller.

use std::{error::Error as _, io, path::Path, time::Duration};

use weir_core::{Error, ErrorKind};

/// A retry sooner than this finds the same full or failing disk: it is how often the store is opened anew.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The disk has no room.
pub(crate) fn full(dir: &Path, needed: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::ResourceExhausted,
        "STORE_FULL",
        format!("the disk of data directory {} has less than {needed} free", dir.display()),
    )
    .with_limit(needed)
    .with_retry_after(RETRY_AFTER)
}

/// The store cannot answer now.
pub(crate) fn away(dir: &Path, why: impl std::fmt::Display) -> Error {
    Error::unavailable(format!("the store in {} {why}", dir.display())).with_retry_after(RETRY_AFTER)
}

/// An input or output error on a file of the data directory.
pub(crate) fn io(dir: &Path, doing: &str, source: io::Error) -> Error {
    let text = format!("cannot {doing} in data directory {}: {source}", dir.display());
    let error = match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::new(ErrorKind::ResourceExhausted, "STORE_FULL", text).with_retry_after(RETRY_AFTER)
        }
        _ => Error::unavailable(text),
    };
    error.with_source(source)
}

/// An error of the database.
pub(crate) fn database(dir: &Path, doing: &str, error: fjall::Error) -> Error {
    let cause = io_cause(&error).map(io::Error::kind);
    let text = format!("cannot {doing} in {}: {error}", dir.display());
    let mapped = match (cause, &error) {
        (Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded), _) => {
            Error::new(ErrorKind::ResourceExhausted, "STORE_FULL", text).with_retry_after(RETRY_AFTER)
        }
        (Some(_), _) | (None, fjall::Error::Poisoned | fjall::Error::Io(_)) => {
            Error::unavailable(text).with_retry_after(RETRY_AFTER)
        }
        (None, fjall::Error::Locked) => in_use(dir),
        (None, fjall::Error::InvalidVersion(_)) => {
            Error::new(ErrorKind::FailedPrecondition, "DATA_DIR_VERSION", text)
        }
        _ => Error::data_loss(text),
    };
    mapped.with_source(error)
}

/// Another process has the directory.
pub(crate) fn in_use(dir: &Path) -> Error {
    Error::new(
        ErrorKind::FailedPrecondition,
        "DATA_DIR_IN_USE",
        format!("data directory {} is in use by another process", dir.display()),
    )
}

fn io_cause(error: &fjall::Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
