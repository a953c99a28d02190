//! The suite of [`weir_core::port::Log`].
//!
//! Precondition of every function: the log was made for it, has streams that never held a record, takes at least 8 MiB,
//! and nothing else writes to it. `log_suite!` makes a test of each.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a suite fails by panicking, as a test does"
)]

mod trimming;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use weir_core::{
    ErrorKind, Partition, Stream, Uid,
    port::{Bounds, Log, LogReader, Record},
};

pub use trimming::{
    a_reader_below_what_was_trimmed_is_told_so,
    a_reader_whose_partition_lost_nothing_to_a_trim_gets_every_record,
    a_reader_whose_partition_lost_nothing_to_a_trim_gets_every_record_or_is_told, ids_tell_what_is_there,
    sequence_before_is_the_last_one_stored_before_an_instant, trimming_forgets_nothing_above_its_mark,
};

/// Makes a test of every function of the suite. `$open` is an `async fn() -> (Arc<dyn Log>, G)` that gives a new log; the
/// guard `G` lives as long as the test.
#[macro_export]
macro_rules! log_suite {
    ($open:path) => {
        $crate::log_suite!(
            $open:
            a_new_log_is_empty,
            publishes_are_read_back_in_order,
            sequences_rise_over_the_whole_stream,
            streams_are_apart,
            an_id_published_again_gives_its_first_sequence,
            an_id_published_many_times_at_once_is_stored_once,
            a_publish_that_was_given_up_is_stored_at_most_once,
            a_record_over_the_limit_is_refused_and_its_neighbours_are_not,
            a_reader_starts_at_the_first_record_not_below_its_sequence,
            a_read_is_bounded_in_bytes_but_gives_one_record,
            a_waiting_reader_gets_what_is_published,
            an_empty_read_tells_how_far_it_looked,
            readers_of_one_partition_do_not_disturb_each_other,
            many_publishers_and_readers_lose_and_repeat_nothing,
            the_identity_stays_and_is_its_own,
            ids_tell_what_is_there,
            sequence_before_is_the_last_one_stored_before_an_instant,
            trimming_forgets_nothing_above_its_mark,
            a_reader_below_what_was_trimmed_is_told_so,
            a_reader_whose_partition_lost_nothing_to_a_trim_gets_every_record_or_is_told,
        );
    };
    ($open:path: $($name:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Some((log, _guard)) = $crate::Opened::opened($open().await) else { return };
                $crate::log::$name(log).await;
            }
        )+
    };
}

const STREAM: Stream = Stream::Readings;
const ONE: Partition = Partition(1);
const TWO: Partition = Partition(2);

/// Longer than any engine needs for one record on a slow machine; only a failure waits as long.
const PATIENCE: Duration = Duration::from_secs(20);

async fn publish(log: &dyn Log, partition: Partition, bytes: impl Into<Bytes>) -> u64 {
    log.publish(STREAM, partition, Uid::random(), bytes.into()).await.unwrap()
}

async fn reader(log: &dyn Log, partition: Partition, from: u64) -> Box<dyn LogReader> {
    log.read_from(STREAM, partition, from).await.unwrap()
}

/// Reads until there are `count` records.
async fn read(reader: &mut dyn LogReader, count: usize) -> Vec<Record> {
    let mut records = vec![];
    while records.len() < count {
        let batch = reader.next(1_000_000, PATIENCE).await.unwrap();
        assert!(!batch.records.is_empty(), "{} of {count} records came within {PATIENCE:?}", records.len());
        records.extend(batch.records);
    }
    records
}

fn bodies(records: &[Record]) -> Vec<&[u8]> {
    records.iter().map(|record| &*record.bytes).collect()
}

/// No bytes of records, first one past last, and writable.
pub async fn a_new_log_is_empty(log: Arc<dyn Log>) {
    for stream in Stream::ALL {
        let Bounds { first, last, .. } = log.bounds(stream).await.unwrap();
        assert_eq!((first, last), (1, 0));
    }
    log.writable().await.unwrap();
    let batch = reader(&*log, ONE, 1).await.next(1, Duration::ZERO).await.unwrap();
    assert_eq!((batch.records.len(), batch.end), (0, 0));
}

/// Sequence, id and bytes are those of the publish; an empty body is a record too.
pub async fn publishes_are_read_back_in_order(log: Arc<dyn Log>) {
    let mut published = vec![];
    for body in ["a", "", "c"] {
        let id = Uid::random();
        let sequence = log.publish(STREAM, ONE, id, body.into()).await.unwrap();
        published.push((sequence, id, Bytes::from(body)));
    }
    let records = read(&mut *reader(&*log, ONE, 1).await, 3).await;
    let found: Vec<_> =
        records.into_iter().map(|record| (record.sequence, record.id, record.bytes)).collect();
    assert_eq!(found, published);
}

/// From 1, over partitions; the bounds follow.
pub async fn sequences_rise_over_the_whole_stream(log: Arc<dyn Log>) {
    let mut last = 0;
    for n in 0..20 {
        let sequence = publish(&*log, Partition(n % 5), "x").await;
        assert!(sequence > last, "{sequence} after {last}");
        assert!(n > 0 || sequence == 1, "the first sequence is {sequence}");
        last = sequence;
    }
    let bounds = log.bounds(STREAM).await.unwrap();
    assert_eq!((bounds.first, bounds.last), (1, last));
    assert!(bounds.bytes >= 20, "{bounds:?}");
}

/// One id in two streams is two records; sequences do not touch.
pub async fn streams_are_apart(log: Arc<dyn Log>) {
    let id = Uid::random();
    for stream in Stream::ALL {
        assert_eq!(log.publish(stream, ONE, id, stream.as_str().into()).await.unwrap(), 1);
    }
    for stream in Stream::ALL {
        let mut reader = log.read_from(stream, ONE, 1).await.unwrap();
        assert_eq!(bodies(&read(&mut *reader, 1).await), [stream.as_str().as_bytes()]);
    }
}

/// Also when other records came between.
pub async fn an_id_published_again_gives_its_first_sequence(log: Arc<dyn Log>) {
    let id = Uid::random();
    let first = log.publish(STREAM, ONE, id, "once".into()).await.unwrap();
    publish(&*log, ONE, "between").await;
    assert_eq!(log.publish(STREAM, ONE, id, "once".into()).await.unwrap(), first);
    publish(&*log, ONE, "after").await;
    let records = read(&mut *reader(&*log, ONE, 1).await, 3).await;
    assert_eq!(bodies(&records), [&b"once"[..], b"between", b"after"]);
}

/// A duplicate may arrive while the first is on its way to the disk.
pub async fn an_id_published_many_times_at_once_is_stored_once(log: Arc<dyn Log>) {
    let id = Uid::random();
    let attempts = join_all((0..50).map(|_| log.publish(STREAM, ONE, id, "once".into()))).await.into_iter();
    let sequences: Vec<u64> = attempts.map(Result::unwrap).collect();
    assert!(sequences.iter().all(|sequence| *sequence == sequences[0]), "{sequences:?}");
    publish(&*log, ONE, "after").await;
    let records = read(&mut *reader(&*log, ONE, 1).await, 2).await;
    assert_eq!(bodies(&records), [&b"once"[..], b"after"]);
}

/// A caller that timed out does not know, and publishes the same id again.
pub async fn a_publish_that_was_given_up_is_stored_at_most_once(log: Arc<dyn Log>) {
    let id = Uid::random();
    let given_up = log.publish(STREAM, ONE, id, "once".into());
    let _ = tokio::time::timeout(Duration::ZERO, given_up).await;
    log.publish(STREAM, ONE, id, "once".into()).await.unwrap();
    publish(&*log, ONE, "after").await;
    let records = read(&mut *reader(&*log, ONE, 1).await, 2).await;
    assert_eq!(bodies(&records), [&b"once"[..], b"after"]);
}

/// 2 MiB is over the limit of every engine; 768 KiB, the largest frame, is not.
pub async fn a_record_over_the_limit_is_refused_and_its_neighbours_are_not(log: Arc<dyn Log>) {
    let body = |len| Bytes::from(vec![7; len]);
    let (largest, large) = (body(768 * 1024), body(2 * 1024 * 1024));
    let over = log.publish(STREAM, ONE, Uid::random(), large);
    let (over, fitting) = futures::join!(over, log.publish(STREAM, ONE, Uid::random(), largest.clone()));
    let error = over.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::ResourceExhausted, "RECORD_TOO_LARGE"));
    let limit = error.limit().unwrap();
    assert!(error.message().contains(limit), "{error} names {limit}");
    fitting.unwrap();
    assert_eq!(read(&mut *reader(&*log, ONE, 1).await, 1).await[0].bytes, largest);
}

/// Whether that sequence belongs to the partition or not.
pub async fn a_reader_starts_at_the_first_record_not_below_its_sequence(log: Arc<dyn Log>) {
    let mut sequences = vec![];
    for n in 0..6 {
        sequences.push(publish(&*log, if n % 2 == 0 { ONE } else { TWO }, n.to_string()).await);
    }
    for from in 0..=sequences[4] {
        let expected = sequences.iter().step_by(2).copied().find(|sequence| *sequence >= from);
        let records = read(&mut *reader(&*log, ONE, from).await, 1).await;
        assert_eq!(records.first().map(|record| record.sequence), expected, "from {from}");
    }
}

/// A batch stays within its bytes; a record that is larger than them comes alone.
pub async fn a_read_is_bounded_in_bytes_but_gives_one_record(log: Arc<dyn Log>) {
    for _ in 0..10 {
        publish(&*log, ONE, vec![1; 1_000]).await;
    }
    for (bytes_max, at_most) in [(0, 1), (1, 1), (2_500, 2)] {
        let mut reader = reader(&*log, ONE, 1).await;
        let mut seen = 0;
        while seen < 10 {
            let found = reader.next(bytes_max, PATIENCE).await.unwrap().records.len();
            assert!((1..=at_most).contains(&found), "{found} records for {bytes_max} bytes");
            seen += found;
        }
    }
}

/// Without waiting for its time to run out.
pub async fn a_waiting_reader_gets_what_is_published(log: Arc<dyn Log>) {
    let mut reader = reader(&*log, ONE, 1).await;
    for round in 0..20 {
        let body = round.to_string();
        let waiting = reader.next(1_000, PATIENCE);
        let (batch, _) = futures::join!(waiting, async {
            publish(&*log, TWO, "of another partition").await;
            publish(&*log, ONE, body.clone()).await
        });
        assert_eq!(bodies(&batch.unwrap().records), [body.as_bytes()]);
    }
}

/// Up to `end` there is nothing of the partition, and nothing after it is passed over.
pub async fn an_empty_read_tells_how_far_it_looked(log: Arc<dyn Log>) {
    let first = publish(&*log, ONE, "1").await;
    let mut reader = reader(&*log, ONE, 1).await;
    read(&mut *reader, 1).await;
    let other = publish(&*log, TWO, "other").await;
    let batch = reader.next(1_000, Duration::from_millis(1)).await.unwrap();
    assert!(batch.records.is_empty(), "{batch:?} after {first}");
    assert_eq!(batch.end, other);
    let next = publish(&*log, ONE, "2").await;
    let records = read(&mut *reader, 1).await;
    assert_eq!((records[0].sequence, bodies(&records)), (next, vec![&b"2"[..]]));
}

/// Each has its own place.
pub async fn readers_of_one_partition_do_not_disturb_each_other(log: Arc<dyn Log>) {
    for n in 0..10 {
        publish(&*log, ONE, n.to_string()).await;
    }
    let (mut a, mut b) = (reader(&*log, ONE, 1).await, reader(&*log, ONE, 6).await);
    let (all, half) = futures::join!(read(&mut *a, 10), read(&mut *b, 5));
    assert_eq!(all[5..], half);
}

/// Sixteen partitions, each with a publisher and a reader that starts before the first record.
pub async fn many_publishers_and_readers_lose_and_repeat_nothing(log: Arc<dyn Log>) {
    const PARTITIONS: u16 = 16;
    const EACH: usize = 100;
    let publishers = (0..PARTITIONS).map(|partition| {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let mut sequences = vec![];
            for n in 0..EACH {
                sequences.push(publish(&*log, Partition(partition), format!("{partition}/{n}")).await);
            }
            sequences
        })
    });
    let readers = (0..PARTITIONS).map(|partition| {
        let log = Arc::clone(&log);
        tokio::spawn(async move { read(&mut *reader(&*log, Partition(partition), 1).await, EACH).await })
    });
    let (readers, publishers): (Vec<_>, Vec<_>) = (readers.collect(), publishers.collect());
    let mut all = BTreeMap::new();
    for ((partition, published), found) in
        join_all(publishers).await.iter().enumerate().zip(join_all(readers).await)
    {
        let found = found.unwrap();
        let expected: Vec<String> = (0..EACH).map(|n| format!("{partition}/{n}")).collect();
        assert_eq!(bodies(&found), expected.iter().map(String::as_bytes).collect::<Vec<_>>());
        let sequences: Vec<u64> = found.iter().map(|record| record.sequence).collect();
        assert_eq!(&sequences, published.as_ref().unwrap());
        all.extend(sequences.into_iter().map(|sequence| (sequence, partition)));
    }
    assert_eq!(all.len(), usize::from(PARTITIONS) * EACH);
}

/// The same at every question, another one for another stream.
pub async fn the_identity_stays_and_is_its_own(log: Arc<dyn Log>) {
    let before = log.identity(Stream::Readings).await.unwrap();
    publish(&*log, ONE, "x").await;
    assert_eq!(log.identity(Stream::Readings).await.unwrap(), before);
    assert_ne!(log.identity(Stream::Commands).await.unwrap(), before);
}
