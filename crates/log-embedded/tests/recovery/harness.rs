//! Logs, their directories and the bytes in them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use weir_core::{
    Error, Partition, Stream, Uid,
    port::{Log as _, Record},
};
use weir_log_embedded::{EmbeddedLog, Options};

pub(crate) const STREAM: Stream = Stream::Readings;
pub(crate) const PARTITION: Partition = Partition(0);
pub(crate) const SEGMENT_HEADER: usize = 64;
pub(crate) const RECORD_HEADER: usize = 52;

pub(crate) fn options() -> Options {
    Options { disk_reserve_bytes: 0, ..Options::default() }
}

pub(crate) fn open(dir: &Path) -> EmbeddedLog {
    open_with(dir, options()).unwrap()
}

pub(crate) fn refusal(dir: &Path) -> Error {
    open_with(dir, options()).expect_err("open accepts the damage")
}

/// Opens once nobody holds the lock: a child that another test of this process has forked and not yet replaced by its program
/// holds it a moment longer than the log that was dropped (flock(2): a fork shares it).
pub(crate) fn open_with(dir: &Path, options: Options) -> Result<EmbeddedLog, Error> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match EmbeddedLog::open(dir, options.clone()) {
            Err(error) if error.reason() == "DATA_DIR_IN_USE" && Instant::now() < until => {
                std::thread::park_timeout(Duration::from_millis(2));
            }
            done => return done,
        }
    }
}

/// The id that a body is published under in these tests.
pub(crate) fn id_of(body: &[u8]) -> Uid {
    Uid::hash(&[body])
}

pub(crate) async fn publish(log: &EmbeddedLog, body: &[u8]) -> Result<u64, Error> {
    log.publish(STREAM, PARTITION, id_of(body), body.to_vec().into()).await
}

/// Everything that is there.
pub(crate) async fn read_all(log: &EmbeddedLog) -> Vec<Record> {
    let bounds = log.bounds(STREAM).await.unwrap();
    let mut reader = log.read_from(STREAM, PARTITION, bounds.first).await.unwrap();
    let mut records = vec![];
    loop {
        let batch = reader.next(usize::MAX, Duration::ZERO).await.unwrap();
        if batch.records.is_empty() {
            return records;
        }
        records.extend(batch.records);
    }
}

pub(crate) async fn bodies(log: &EmbeddedLog) -> Vec<String> {
    read_all(log).await.iter().map(|record| String::from_utf8_lossy(&record.bytes).into_owned()).collect()
}

/// The segments in order.
pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join(STREAM.as_str())).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|suffix| suffix == "log")).collect();
    found.sort();
    found
}

/// What the disk would hold if the machine stopped now.
pub(crate) fn copy(dir: &Path) -> TempDir {
    fn copy_into(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy_into(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let copied = TempDir::new().unwrap();
    copy_into(dir, copied.path());
    copied
}

/// One record or marker of a segment's bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) offset: usize,
    pub(crate) end: usize,
    pub(crate) is_marker: bool,
    pub(crate) synced_through: usize,
}

/// The records and markers up to the zeros behind them.
pub(crate) fn entries(bytes: &[u8]) -> Vec<Entry> {
    let mut found = vec![];
    let mut offset = SEGMENT_HEADER;
    while let Some(header) = bytes.get(offset..offset + RECORD_HEADER).filter(|header| header[8] != 0) {
        let end = offset + RECORD_HEADER + u32::from_le_bytes(header[4..8].try_into().unwrap()) as usize;
        let synced_through = u64::from_le_bytes(header[20..28].try_into().unwrap()) as usize;
        found.push(Entry { offset, end, is_marker: header[8] == 2, synced_through });
        offset = end;
    }
    found
}

/// A log of these bodies as it is on the disk before it knows that it is idle: zeros behind its end, and no marker there.
pub(crate) async fn stopped_after(texts: &[&str]) -> TempDir {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    for text in texts {
        publish(&log, text.as_bytes()).await.unwrap();
    }
    drop(log);
    let path = &segments(dir.path())[0];
    let mut bytes = fs::read(path).unwrap();
    let last = entries(&bytes).into_iter().rfind(|entry| !entry.is_marker).unwrap();
    bytes.truncate(last.end);
    bytes.resize(last.end + 4_096, 0);
    fs::write(path, bytes).unwrap();
    dir
}
