//! The log on a disk that fails, or takes its time.

use std::{
    fs,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::join_all;
use tempfile::TempDir;
use weir_core::{
    ErrorKind, Partition, Result, Stream, Uid,
    port::{Log as _, Record},
};

use crate::{
    disk::{Disk, Faults},
    format::RECORD_HEADER,
    log::EmbeddedLog,
    options::Options,
};

const STREAM: Stream = Stream::Readings;
const PARTITION: Partition = Partition(0);

fn open(dir: &TempDir) -> (EmbeddedLog, Arc<Faults>) {
    let (disk, options) = (Disk::default(), Options { disk_reserve_bytes: 0, ..Options::default() });
    (EmbeddedLog::open_on(dir.path(), &options, &disk).unwrap(), disk.faults)
}

async fn publish(log: &EmbeddedLog, body: &'static [u8]) -> Result<u64> {
    log.publish(STREAM, PARTITION, Uid::hash(&[body]), Bytes::from_static(body)).await
}

async fn read(log: &EmbeddedLog) -> Vec<Record> {
    let mut reader = log.read_from(STREAM, PARTITION, 1).await.unwrap();
    reader.next(usize::MAX, Duration::ZERO).await.unwrap().records
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "it did not come true that {what}");
        thread::yield_now();
    }
}

#[tokio::test]
async fn a_failed_sync_stops_the_stream_until_a_restart() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = open(&dir);
    assert_eq!(publish(&log, b"one").await.unwrap(), 1);
    faults.sync_fails.store(true, Ordering::SeqCst);
    assert_eq!(publish(&log, b"two").await.unwrap_err().reason(), "LOG_FAILED");
    faults.sync_fails.store(false, Ordering::SeqCst);
    for refused in [publish(&log, b"three").await.map(drop), log.writable().await] {
        let error = refused.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Unavailable, "LOG_FAILED"), "{error}");
    }
    assert_eq!(publish(&log, b"one").await.unwrap(), 1, "what is durable stays known");
    assert_eq!(read(&log).await.len(), 1);
    assert_eq!(log.publish(Stream::Commands, PARTITION, Uid::random(), "x".into()).await.unwrap(), 1);

    drop(log);
    let (log, _) = open(&dir);
    let known = read(&log).await;
    let two = publish(&log, b"two").await.unwrap();
    assert_eq!(two, 2, "once, whether it had reached the disk or not: {known:?}");
    assert_eq!(publish(&log, b"three").await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_neither_seen_nor_acknowledged_before_it_is_synced() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = open(&dir);
    let (log, syncs) = (Arc::new(log), faults.syncs.load(Ordering::SeqCst));
    faults.sync_held.store(true, Ordering::SeqCst);
    let publishing = tokio::spawn({
        let log = Arc::clone(&log);
        async move { publish(&log, b"one").await }
    });
    wait_until("the record waits for its sync", || faults.syncs.load(Ordering::SeqCst) > syncs);
    assert!(!publishing.is_finished());
    assert_eq!(log.bounds(STREAM).await.unwrap().last, 0);
    assert_eq!(read(&log).await, []);
    faults.sync_held.store(false, Ordering::SeqCst);
    assert_eq!(publishing.await.unwrap().unwrap(), 1);
    assert_eq!(read(&log).await.len(), 1);
}

#[tokio::test]
async fn a_write_that_finds_no_room_leaves_nothing_and_the_log_goes_on_by_itself() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = open(&dir);
    publish(&log, b"one").await.unwrap();
    let path = dir.path().join("readings/00000000000000000001.log");
    faults.room.store(10, Ordering::SeqCst);
    for body in [b"two", b"six"] {
        let error = publish(&log, body).await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (ErrorKind::ResourceExhausted, "LOG_FULL"), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap().len(), 64 + 52 + 3, "the file ends with what was acknowledged");
    faults.room.store(200, Ordering::SeqCst); // enough for the record, not for the zeros ahead of it
    assert_eq!(publish(&log, b"two").await.unwrap(), 2);
    faults.room.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(publish(&log, b"three").await.unwrap(), 3);
    drop(log);
    let bodies: Vec<Bytes> = read(&open(&dir).0).await.into_iter().map(|record| record.bytes).collect();
    assert_eq!(bodies, ["one", "two", "three"]);
}

#[tokio::test]
async fn a_segment_that_cannot_be_made_refuses_until_it_can() {
    let dir = TempDir::new().unwrap();
    let (disk, options) =
        (Disk::default(), Options { segment_bytes: 0, disk_reserve_bytes: 0, ..Options::default() });
    let log = EmbeddedLog::open_on(dir.path(), &options, &disk).unwrap();
    publish(&log, &[1; 60_000]).await.unwrap();
    disk.faults.room.store(0, Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(publish(&log, &[2; 60_000]).await.unwrap_err().reason(), "LOG_FULL");
    }
    disk.faults.room.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(publish(&log, &[2; 60_000]).await.unwrap(), 2);
    drop(log);
    assert_eq!(open(&dir).0.bounds(STREAM).await.unwrap().last, 2);
}

#[tokio::test]
async fn a_segment_that_cannot_be_removed_holds_back_the_next_ones_and_the_log_opens_again() {
    let dir = TempDir::new().unwrap();
    let (disk, options) =
        (Disk::default(), Options { segment_bytes: 0, disk_reserve_bytes: 0, ..Options::default() });
    let log = EmbeddedLog::open_on(dir.path(), &options, &disk).unwrap();
    for body in [&[1; 60_000], &[2; 60_000], &[3; 60_000], &[4; 60_000]] {
        publish(&log, body).await.unwrap();
    }
    let bytes = log.bounds(STREAM).await.unwrap().bytes;
    disk.faults.removals_fail.store(2, Ordering::SeqCst);
    for through in [1, 2] {
        let error = log.trim(STREAM, through).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let bounds = log.bounds(STREAM).await.unwrap();
        assert_eq!((bounds.first, bounds.bytes), (through + 1, bytes), "trimmed, but nothing was freed");
    }
    drop(log);
    let log = EmbeddedLog::open_on(dir.path(), &options, &disk).unwrap();
    assert_eq!(log.bounds(STREAM).await.unwrap().first, 1, "no file is missing");
    disk.faults.removals_fail.store(1, Ordering::SeqCst);
    log.trim(STREAM, 1).await.unwrap_err();
    log.trim(STREAM, 2).await.unwrap();
    drop(log);
    let log = EmbeddedLog::open_on(dir.path(), &options, &disk).unwrap();
    let bounds = log.bounds(STREAM).await.unwrap();
    assert_eq!((bounds.first, bounds.last), (3, 4), "the first is removed with the second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_that_arrive_together_share_a_sync() {
    const TOGETHER: usize = 64;
    let dir = TempDir::new().unwrap();
    let (log, faults) = open(&dir);
    let log = Arc::new(log);
    let before = faults.syncs.load(Ordering::SeqCst);
    faults.sync_held.store(true, Ordering::SeqCst);
    let publishes: Vec<_> = (0..TOGETHER)
        .map(|n| {
            let log = Arc::clone(&log);
            let id = Uid::from_u128(n as u128);
            tokio::spawn(async move { log.publish(STREAM, Partition(n as u16), id, "x".into()).await })
        })
        .collect();
    wait_until("all of them wait", || log.waiting_bytes(STREAM) == TOGETHER * (RECORD_HEADER + 1));
    faults.sync_held.store(false, Ordering::SeqCst);
    for acked in join_all(publishes).await {
        acked.unwrap().unwrap();
    }
    // The group of those that were there first, and the group of all that waited for it.
    let syncs = faults.syncs.load(Ordering::SeqCst) - before;
    assert!((1..=2).contains(&syncs), "{syncs} syncs for {TOGETHER} publishes");
}
