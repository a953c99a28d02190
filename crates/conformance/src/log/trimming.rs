//! What is left after a trim, and the questions that decide what may be trimmed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a suite fails by panicking, as a test does"
)]

use std::{sync::Arc, time::Duration};

use weir_core::{
    ErrorKind, Partition, Timestamp, Uid,
    port::{Log, LogReader},
};

use super::{ONE, PATIENCE, STREAM, TWO, bodies, publish, read, reader};

/// Two records of 64 KiB in turn of two partitions, 1 MiB in all, so that an engine that trims in pieces has some.
async fn fill(log: &dyn Log) -> Vec<(u64, Partition, Uid)> {
    let mut published = vec![];
    for n in 0..16_u8 {
        let (partition, id) = (if n % 2 == 0 { ONE } else { TWO }, Uid::random());
        let body = vec![n; 64 * 1024];
        let sequence = log.publish(STREAM, partition, id, body.into()).await.unwrap();
        published.push((sequence, partition, id));
    }
    published
}

/// In the order of the question; unknown sequences have none.
pub async fn ids_tell_what_is_there(log: Arc<dyn Log>) {
    let published = fill(&*log).await;
    let last = published[15].0;
    let asked = [published[3].0, last + 1, published[0].0, 0, last];
    let expected = [Some(published[3].2), None, Some(published[0].2), None, Some(published[15].2)];
    assert_eq!(log.ids(STREAM, &asked).await.unwrap(), expected);
    assert_eq!(log.ids(STREAM, &[]).await.unwrap(), []);
}

/// For the time of each record, before all and after all.
pub async fn sequence_before_is_the_last_one_stored_before_an_instant(log: Arc<dyn Log>) {
    assert_eq!(log.sequence_before(STREAM, Timestamp::MAX).await.unwrap(), 0);
    for n in 0..5 {
        publish(&*log, ONE, n.to_string()).await;
    }
    let records = read(&mut *reader(&*log, ONE, 1).await, 5).await;
    let before = |instant| {
        let older = records.iter().rev().find(|record| record.stored_at < instant);
        older.map_or(0, |record| record.sequence)
    };
    let instants = records.iter().map(|record| record.stored_at).chain([Timestamp::MIN, Timestamp::MAX]);
    for instant in instants {
        assert_eq!(log.sequence_before(STREAM, instant).await.unwrap(), before(instant), "{instant}");
    }
}

/// Whatever is above is read as before, the numbering goes on, and a trim may be repeated.
pub async fn trimming_forgets_nothing_above_its_mark(log: Arc<dyn Log>) {
    let published = fill(&*log).await;
    let through = published[9].0;
    for _ in 0..2 {
        log.trim(STREAM, through).await.unwrap();
        let bounds = log.bounds(STREAM).await.unwrap();
        assert!(bounds.first <= through + 1, "{bounds:?} after a trim through {through}");
        assert_eq!(bounds.last, published[15].0);
    }
    let left = read(&mut *reader(&*log, ONE, through + 1).await, 3).await;
    assert_eq!(left.iter().map(|record| record.bytes[0]).collect::<Vec<_>>(), [10, 12, 14]);
    let kept: Vec<u64> = published[10..].iter().map(|(sequence, ..)| *sequence).collect();
    let ids = log.ids(STREAM, &kept).await.unwrap();
    assert!(ids.iter().all(Option::is_some), "{ids:?}");
    let next = publish(&*log, ONE, "next").await;
    assert!(next > published[15].0);
    assert_eq!(bodies(&read(&mut *reader(&*log, ONE, next).await, 1).await), [b"next"]);
}

/// What was trimmed is either still given or said to be gone: never passed over.
pub async fn a_reader_below_what_was_trimmed_is_told_so(log: Arc<dyn Log>) {
    let published = fill(&*log).await;
    let mut waiting = reader(&*log, TWO, published[15].0 + 1).await;
    let idle = waiting.next(1, Duration::ZERO).await.unwrap();
    assert!(idle.records.is_empty(), "{idle:?}");
    log.trim(STREAM, published[13].0).await.unwrap();
    match reader(&*log, ONE, 1).await.next(1, PATIENCE).await {
        Ok(batch) => assert_eq!(batch.records[0].sequence, published[0].0),
        Err(error) => assert_eq!((error.kind(), error.reason()), (ErrorKind::DataLoss, "TRIMMED_PAST")),
    }
    let next = publish(&*log, TWO, "next").await;
    assert_eq!(read(&mut *waiting, 1).await[0].sequence, next);
}

/// A place in what was trimmed is as good as any while nothing of its partition was: also where the first record of the
/// partition comes long after the trim. An engine that does not know what it purged says that it is gone.
pub async fn a_reader_whose_partition_lost_nothing_to_a_trim_gets_every_record_or_is_told(log: Arc<dyn Log>) {
    let (published, mut readers) = trim_another_partition(&*log).await;
    for reader in &mut readers {
        match reader.next(1, PATIENCE).await {
            Ok(first) => {
                let mut found = first.records;
                found.extend(read(&mut **reader, 10 - found.len()).await);
                let sequences: Vec<u64> = found.iter().map(|record| record.sequence).collect();
                assert_eq!(sequences, published[4..]);
            }
            Err(error) => assert_eq!((error.kind(), error.reason()), (ErrorKind::DataLoss, "TRIMMED_PAST")),
        }
    }
}

/// The same of an engine that knows what it trimmed.
pub async fn a_reader_whose_partition_lost_nothing_to_a_trim_gets_every_record(log: Arc<dyn Log>) {
    let (published, mut readers) = trim_another_partition(&*log).await;
    for reader in &mut readers {
        let found = read(&mut **reader, 10).await;
        let sequences: Vec<u64> = found.iter().map(|record| record.sequence).collect();
        assert_eq!(sequences, published[4..]);
    }
}

/// Readers of partition one, started before and after a trim that took records of partition two.
async fn trim_another_partition(log: &dyn Log) -> (Vec<u64>, [Box<dyn LogReader>; 2]) {
    // More than an engine has in memory, so that the reader has to find its place in what is stored.
    let bodies = (0..14_u8).map(|n| (if n < 4 { TWO } else { ONE }, vec![n; 512 * 1024]));
    let mut published = vec![];
    for (partition, body) in bodies {
        published.push(log.publish(STREAM, partition, Uid::random(), body.into()).await.unwrap());
    }
    let started_before = reader(log, ONE, 1).await;
    log.trim(STREAM, published[2]).await.unwrap();
    let started_after = reader(log, ONE, 1).await;
    (published, [started_before, started_after])
}
