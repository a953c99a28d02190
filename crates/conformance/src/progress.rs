//! The suite of [`weir_core::progress`] over the [`Records`] and the [`Log`] of an engine.
//!
//! Precondition of every function: the records hold nothing, and each log that `Engines::log` makes is new and empty.
//! `progress_suite!` makes a test of each.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a suite fails by panicking, as a test does"
)]

mod altered;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use weir_core::{
    ErrorKind, Partition, Stream, Uid,
    port::{Expect, KeyRange, Log, Records, Write},
    progress::{self, Claim, Generations, Progress},
};

use altered::{AlteredLog, AnswerLost};

/// What the suite runs on.
pub struct Engines {
    /// Empty records.
    pub records: Arc<dyn Records>,
    /// Makes a new, empty log.
    pub log: Box<dyn Fn() -> BoxFuture<'static, Arc<dyn Log>> + Send + Sync>,
}

/// Makes a test of every function of the suite. `$open` is an `async fn() -> (Engines, G)`; the guard `G` lives as long as
/// the test.
#[macro_export]
macro_rules! progress_suite {
    ($open:path) => {
        $crate::progress_suite!(
            $open:
            a_claim_fences_the_owner_before_it,
            of_owners_who_claim_together_one_is_left,
            progress_and_its_checkpoint_move_together,
            a_page_of_a_checkpoint_is_full_though_progress_lies_among_its_keys,
            an_owner_goes_on_after_an_answer_that_it_did_not_get,
            a_reader_goes_on_after_its_last_frame,
            an_idle_partition_beside_a_busy_one_does_not_hold_the_trim,
            a_reader_that_never_claimed_is_at_zero,
            a_log_that_lost_its_tail_is_read_again_from_where_it_agrees,
            a_log_that_lost_its_tail_and_grew_past_it_is_noticed,
            a_log_that_fell_back_and_grew_under_its_owner_is_read_again_from_where_it_agrees,
            what_an_idle_reader_passed_in_a_log_that_fell_back_is_read_once_another_noticed,
            a_log_made_anew_is_read_from_its_start,
            a_log_trimmed_past_the_progress_is_reported,
            owners_who_find_the_same_loss_raise_one_generation,
            another_partition_count_is_refused,
        );
    };
    ($open:path: $($name:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Some((engines, _guard)) = $crate::Opened::opened($open().await) else { return };
                $crate::progress::$name(engines).await;
            }
        )+
    };
}

const STREAM: Stream = Stream::Readings;
const PARTITIONS: u16 = 2;
const BUSY: Partition = Partition(0);
const IDLE: Partition = Partition(1);
/// Longer than an embedded or a local log ever takes to give what it has.
const WAIT: Duration = Duration::from_secs(10);
/// Long enough to tell that nothing is there.
const NOTHING: Duration = Duration::from_millis(20);

async fn claim(records: &Arc<dyn Records>, partition: Partition) -> Claim {
    Claim::take(Arc::clone(records), "reader", STREAM, partition).await.unwrap()
}

/// Publishes frames with these ids into the busy partition; gives their sequences.
async fn publish(log: &dyn Log, ids: &[u128]) -> Vec<u64> {
    let mut sequences = vec![];
    for id in ids {
        let bytes = Bytes::from(id.to_string());
        sequences.push(log.publish(STREAM, BUSY, Uid::from_u128(*id), bytes).await.unwrap());
    }
    sequences
}

/// The ids of the frames of the busy partition from `from` on.
async fn read(log: &dyn Log, from: u64, count: usize) -> Vec<u128> {
    let mut reader = log.read_from(STREAM, BUSY, from).await.unwrap();
    let mut ids = vec![];
    while ids.len() < count {
        let batch = reader.next(1 << 20, WAIT).await.unwrap();
        assert!(!batch.records.is_empty(), "{} of {count} frames came from {from} on", ids.len());
        ids.extend(batch.records.iter().map(|record| record.id.as_u128()));
    }
    ids
}

/// Reads the first `count` frames as an owner does, and records that they are dealt with.
async fn deal_with(records: &Arc<dyn Records>, log: &dyn Log, count: usize) -> Claim {
    let mut claim = claim(records, BUSY).await;
    let resume = claim.resume(log, STREAM, PARTITIONS).await.unwrap();
    assert_eq!(resume.lost, None);
    let mut progress = resume.progress;
    let mut reader = log.read_from(STREAM, BUSY, resume.from).await.unwrap();
    let mut left = count;
    while left > 0 {
        let batch = reader.next(1 << 20, WAIT).await.unwrap();
        assert!(!batch.records.is_empty(), "{left} of {count} frames are missing");
        for record in batch.records.iter().take(left) {
            progress.passed(resume.generations.of(record.sequence), record.sequence, record.id);
            left -= 1;
        }
    }
    claim.advance(progress, vec![]).await.unwrap();
    claim
}

/// Whoever claimed last may write; the one before it gets `Aborted`, and changes nothing.
pub async fn a_claim_fences_the_owner_before_it(engines: Engines) {
    let mut old = claim(&engines.records, BUSY).await;
    let mut moved = Progress::default();
    moved.passed(1, 7, Uid::from_u128(7));
    old.advance(moved.clone(), vec![]).await.unwrap();
    let mut new = claim(&engines.records, BUSY).await;
    assert!(new.epoch() > old.epoch());
    assert_eq!(*new.progress(), moved);

    let mut late = moved.clone();
    late.passed(1, 9, Uid::from_u128(9));
    let error = old.advance(late.clone(), vec![Write::put("also", "late")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Aborted);
    assert_eq!(
        old.commit_fenced(vec![Write::put("also", "late")]).await.unwrap_err().kind(),
        ErrorKind::Aborted
    );
    assert_eq!(*old.progress(), moved);
    assert_eq!(new.checkpoint(KeyRange::all(), 10).await.unwrap(), []);
    new.advance(late.clone(), vec![]).await.unwrap();
    assert_eq!(*claim(&engines.records, BUSY).await.progress(), late);
}

/// Epochs differ, and only the highest can write.
pub async fn of_owners_who_claim_together_one_is_left(engines: Engines) {
    let takes = (0..8).map(|_| Claim::take(Arc::clone(&engines.records), "reader", STREAM, BUSY));
    let mut claims = vec![];
    for outcome in join_all(takes).await {
        match outcome {
            Ok(claim) => claims.push(claim),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Aborted),
        }
    }
    let highest = claims.iter().map(Claim::epoch).max().unwrap();
    assert_eq!(claims.iter().filter(|claim| claim.epoch() == highest).count(), 1);
    for mut claim in claims {
        let outcome = claim.commit_fenced(vec![Write::put("k", "v")]).await;
        assert_eq!(outcome.is_ok(), claim.epoch() == highest, "epoch {} of {highest}", claim.epoch());
    }
}

/// A checkpoint whose expectation fails keeps progress where it is.
pub async fn progress_and_its_checkpoint_move_together(engines: Engines) {
    let mut owner = claim(&engines.records, BUSY).await;
    let mut moved = Progress::default();
    moved.passed(1, 3, Uid::from_u128(3));
    owner.advance(moved.clone(), vec![Write::put("chunk", "at 3")]).await.unwrap();
    let mut further = moved.clone();
    further.passed(1, 4, Uid::from_u128(4));
    let wrong = Write { expect: Expect::Absent, ..Write::put("chunk", "at 4") };
    owner.advance(further, vec![wrong]).await.unwrap_err();
    let next = claim(&engines.records, BUSY).await;
    assert_eq!(*next.progress(), moved);
    let checkpoint = next.checkpoint(KeyRange::all(), 10).await.unwrap();
    assert_eq!(checkpoint.iter().map(|stored| &*stored.value).collect::<Vec<_>>(), [b"at 3"]);
}

/// `progress` sorts among them.
pub async fn a_page_of_a_checkpoint_is_full_though_progress_lies_among_its_keys(engines: Engines) {
    let mut owner = claim(&engines.records, BUSY).await;
    let keys = ["a", "b", "x", "y"];
    owner.commit_fenced(keys.iter().map(|key| Write::put(*key, "v")).collect()).await.unwrap();
    for size in 1..6 {
        let mut read = vec![];
        let mut range = KeyRange::all();
        loop {
            let page = owner.checkpoint(range.clone(), size).await.unwrap();
            read.extend(page.iter().map(|stored| stored.key.clone()));
            match page.last() {
                Some(last) if page.len() == size => range = range.after(&last.key),
                _ => break,
            }
        }
        assert_eq!(read, keys, "{size} a page");
    }
}

/// `Unavailable`, though the commit was written: the same advance again is neither refused nor lost.
pub async fn an_owner_goes_on_after_an_answer_that_it_did_not_get(engines: Engines) {
    let losing = Arc::new(AnswerLost::new(engines.records));
    let records: Arc<dyn Records> = Arc::clone(&losing) as Arc<dyn Records>;
    let mut owner = claim(&records, BUSY).await;
    let mut moved = Progress::default();
    for sequence in 1..4 {
        moved.passed(1, sequence, Uid::from_u128(sequence.into()));
        losing.lose_next();
        let error = owner.advance(moved.clone(), vec![Write::put("chunk", "v")]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        owner.advance(moved.clone(), vec![Write::put("chunk", "v")]).await.unwrap();
        assert_eq!(*owner.progress(), moved);
    }
    losing.lose_next();
    owner.advance(moved.clone(), vec![]).await.unwrap_err();
    claim(&records, BUSY).await;
    assert_eq!(owner.advance(moved, vec![]).await.unwrap_err().kind(), ErrorKind::Aborted);
}

/// The ordinary restart.
pub async fn a_reader_goes_on_after_its_last_frame(engines: Engines) {
    let log = (engines.log)().await;
    publish(&*log, &[1, 2, 3, 4, 5]).await;
    let before = deal_with(&engines.records, &*log, 3).await;
    let mut owner = claim(&engines.records, BUSY).await;
    let resume = owner.resume(&*log, STREAM, PARTITIONS).await.unwrap();
    assert_eq!((resume.lost, &resume.progress), (None, before.progress()));
    assert_eq!(read(&*log, resume.from, 2).await, [4, 5]);
    assert_eq!((resume.generations.of(resume.from), resume.generations.newest()), (1, 1));
}

/// The idle reader moves to the end that it saw before it found nothing.
pub async fn an_idle_partition_beside_a_busy_one_does_not_hold_the_trim(engines: Engines) {
    let log = (engines.log)().await;
    let sequences = publish(&*log, &[1, 2, 3]).await;
    deal_with(&engines.records, &*log, 3).await;
    let mut idle = claim(&engines.records, IDLE).await;
    let resume = idle.resume(&*log, STREAM, PARTITIONS).await.unwrap();
    let mut reader = log.read_from(STREAM, IDLE, resume.from).await.unwrap();
    let batch = reader.next(1 << 20, NOTHING).await.unwrap();
    assert_eq!((batch.records.len(), batch.end), (0, sequences[2]));
    let mut progress = resume.progress;
    progress.idle_through(resume.generations.of(batch.end), batch.end);
    idle.advance(progress, vec![]).await.unwrap();

    let all = progress::all_progress(&*engines.records, STREAM, &["reader"], PARTITIONS).await.unwrap();
    let through = all.iter().map(|reader| reader.progress.sequence).min().unwrap();
    assert_eq!(through, sequences[2]);
    log.trim(STREAM, through).await.unwrap();
    // A frame that comes to the idle partition now is read, and so is one of the busy partition.
    log.publish(STREAM, IDLE, Uid::from_u128(4), Bytes::from_static(b"4")).await.unwrap();
    let mut owner = claim(&engines.records, IDLE).await;
    let resume = owner.resume(&*log, STREAM, PARTITIONS).await.unwrap();
    assert_eq!(resume.lost, None);
    let mut reader = log.read_from(STREAM, IDLE, resume.from).await.unwrap();
    let batch = reader.next(1 << 20, WAIT).await.unwrap();
    assert_eq!(batch.records.iter().map(|record| record.id.as_u128()).collect::<Vec<_>>(), [4]);
}

/// It blocks the trim of what it has still to read.
pub async fn a_reader_that_never_claimed_is_at_zero(engines: Engines) {
    let log = (engines.log)().await;
    publish(&*log, &[1, 2]).await;
    deal_with(&engines.records, &*log, 2).await;
    let all =
        progress::all_progress(&*engines.records, STREAM, &["reader", "other"], PARTITIONS).await.unwrap();
    let found: Vec<_> =
        all.iter().map(|r| (r.reader.as_str(), r.partition, r.progress.sequence > 0)).collect();
    assert_eq!(
        found,
        [("reader", BUSY, true), ("reader", IDLE, false), ("other", BUSY, false), ("other", IDLE, false)]
    );
}

/// The same log, shorter: read on from one past the newest frame that both know, under a new generation, and never
/// taken for the frames that are gone.
pub async fn a_log_that_lost_its_tail_is_read_again_from_where_it_agrees(engines: Engines) {
    let log = (engines.log)().await;
    publish(&*log, &[1, 2, 3, 4, 5]).await;
    let before = deal_with(&engines.records, &*log, 5).await.progress().clone();
    let fallen = AlteredLog::with_identity_of(&*log, (engines.log)().await).await;
    publish(&fallen, &[1, 2, 3]).await;

    for attempt in 0..2 {
        let mut owner = claim(&engines.records, BUSY).await;
        let resume = owner.resume(&fallen, STREAM, PARTITIONS).await.unwrap();
        assert_eq!(resume.lost.is_some(), attempt == 0, "{:?}", resume.lost);
        publish(&fallen, &[11, 12]).await; // the second time a redelivery
        assert_eq!(read(&fallen, resume.from, 2).await, [11, 12]);
        assert_eq!(resume.generations.of(resume.from), 2);
        assert!(!resume.generations.holds(1, before.sequence), "a position in the lost tail");
        assert!(resume.generations.holds(1, resume.from - 1) && resume.generations.holds(2, resume.from));
        let all = progress::all_progress(&*engines.records, STREAM, &["reader"], 1).await.unwrap();
        assert_eq!(all[0].progress.sequence, resume.from - 1, "what a trimmer sees");
    }
}

/// The end is not below progress, but the frame at it is another one.
pub async fn a_log_that_lost_its_tail_and_grew_past_it_is_noticed(engines: Engines) {
    let log = (engines.log)().await;
    publish(&*log, &[1, 2, 3]).await;
    deal_with(&engines.records, &*log, 3).await;
    let fallen = AlteredLog::with_identity_of(&*log, (engines.log)().await).await;
    publish(&fallen, &[1, 12, 13, 14, 15]).await;
    let resume = claim(&engines.records, BUSY).await.resume(&fallen, STREAM, PARTITIONS).await.unwrap();
    assert!(resume.lost.is_some());
    assert_eq!(read(&fallen, resume.from, 4).await, [12, 13, 14, 15]);
}

/// An owner that did not notice has read on: the newest frames that it recorded are those of the log as it is, and older
/// ones are not.
pub async fn a_log_that_fell_back_and_grew_under_its_owner_is_read_again_from_where_it_agrees(
    engines: Engines,
) {
    let log = (engines.log)().await;
    publish(&*log, &[1, 2, 3, 4]).await;
    let mut unaware = deal_with(&engines.records, &*log, 4).await;
    let fallen = AlteredLog::with_identity_of(&*log, (engines.log)().await).await;
    let sequences = publish(&fallen, &[1, 2, 13, 14, 15, 16]).await;
    let mut progress = unaware.progress().clone();
    for (sequence, id) in sequences[4..].iter().zip([15, 16]) {
        progress.passed(1, *sequence, Uid::from_u128(id));
    }
    unaware.advance(progress, vec![]).await.unwrap();

    let resume = claim(&engines.records, BUSY).await.resume(&fallen, STREAM, PARTITIONS).await.unwrap();
    assert!(resume.lost.is_some());
    assert_eq!(resume.from, sequences[2]);
    assert_eq!(read(&fallen, resume.from, 4).await, [13, 14, 15, 16]);
    let of: Vec<u32> = sequences.iter().map(|sequence| resume.generations.of(*sequence)).collect();
    assert_eq!(of, [1, 1, 2, 2, 2, 2]);
    let again = claim(&engines.records, BUSY).await.resume(&fallen, STREAM, PARTITIONS).await.unwrap();
    assert_eq!((again.from, again.lost, again.generations.newest()), (resume.from, None, 2));
}

/// The idle reader recorded an end that is gone, and no frame by which it could tell: the log has grown past that end.
pub async fn what_an_idle_reader_passed_in_a_log_that_fell_back_is_read_once_another_noticed(
    engines: Engines,
) {
    let log = (engines.log)().await;
    let before = publish(&*log, &[1, 2, 3, 4, 5]).await;
    let mut busy = deal_with(&engines.records, &*log, 5).await;
    let mut idle = claim(&engines.records, IDLE).await;
    let resume = idle.resume(&*log, STREAM, PARTITIONS).await.unwrap();
    let mut progress = resume.progress;
    progress.idle_through(resume.generations.step(&progress, before[4]).unwrap(), before[4]);
    idle.advance(progress, vec![]).await.unwrap();

    let fallen = AlteredLog::with_identity_of(&*log, (engines.log)().await).await;
    publish(&fallen, &[1, 2]).await;
    let acked = Uid::from_u128(60);
    fallen.publish(STREAM, IDLE, acked, Bytes::from_static(b"60")).await.unwrap();
    publish(&fallen, &[14, 15, 16, 17]).await;
    let noticed = busy.resume(&fallen, STREAM, PARTITIONS).await.unwrap();
    assert!(noticed.lost.is_some());
    let ended = noticed.generations.step(idle.progress(), before[4] + 1).unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::Aborted, "an owner at work passes nothing more before it resumes");

    let mut owner = claim(&engines.records, IDLE).await;
    let resume = owner.resume(&fallen, STREAM, PARTITIONS).await.unwrap();
    assert!(resume.lost.is_some());
    assert_eq!((resume.from, resume.generations.newest()), (noticed.from, 2));
    let mut reader = fallen.read_from(STREAM, IDLE, resume.from).await.unwrap();
    let batch = reader.next(1 << 20, WAIT).await.unwrap();
    assert_eq!(batch.records.iter().map(|record| record.id).collect::<Vec<_>>(), [acked]);
    let first = batch.records[0].sequence;
    assert_eq!(resume.generations.step(owner.progress(), first).unwrap(), 2);
    let again = claim(&engines.records, IDLE).await.resume(&fallen, STREAM, PARTITIONS).await.unwrap();
    assert_eq!((again.from, again.lost), (resume.from, None));
}

/// All of it is of a new generation.
pub async fn a_log_made_anew_is_read_from_its_start(engines: Engines) {
    let log = (engines.log)().await;
    let old = publish(&*log, &[1, 2, 3]).await;
    deal_with(&engines.records, &*log, 3).await;
    let anew = (engines.log)().await;
    let new = publish(&*anew, &[21, 22, 23, 24]).await;
    let resume = claim(&engines.records, BUSY).await.resume(&*anew, STREAM, PARTITIONS).await.unwrap();
    assert!(resume.lost.is_some());
    assert_eq!(read(&*anew, resume.from, 4).await, [21, 22, 23, 24]);
    let of: Vec<u32> = new.iter().map(|sequence| resume.generations.of(*sequence)).collect();
    assert_eq!(of, [2; 4]);
    assert!(old.iter().all(|sequence| !resume.generations.holds(1, *sequence)));
    let again = claim(&engines.records, BUSY).await.resume(&*anew, STREAM, PARTITIONS).await.unwrap();
    assert_eq!((again.from, again.generations.newest()), (resume.from, 2));
}

/// It goes on with what is left, and says what it did not see; the generation stays.
pub async fn a_log_trimmed_past_the_progress_is_reported(engines: Engines) {
    let log = (engines.log)().await;
    let sequences = publish(&*log, &[1, 2, 3, 4, 5]).await;
    deal_with(&engines.records, &*log, 2).await;
    let trimmed = AlteredLog::trimmed_below(log, sequences[3]);
    let resume = claim(&engines.records, BUSY).await.resume(&trimmed, STREAM, PARTITIONS).await.unwrap();
    assert!(resume.lost.is_some());
    assert_eq!((resume.from, resume.generations.newest()), (sequences[3], 1));
    assert_eq!(read(&trimmed, resume.from, 2).await, [4, 5]);
    let again = claim(&engines.records, BUSY).await.resume(&trimmed, STREAM, PARTITIONS).await.unwrap();
    assert_eq!((again.from, again.lost), (sequences[3], None));
}

/// Many readers, one loss.
pub async fn owners_who_find_the_same_loss_raise_one_generation(engines: Engines) {
    let log = (engines.log)().await;
    publish(&*log, &[1, 2, 3, 4]).await;
    let progress = deal_with(&engines.records, &*log, 4).await.progress().clone();
    let fallen = AlteredLog::with_identity_of(&*log, (engines.log)().await).await;
    publish(&fallen, &[1, 2]).await;
    let resumes = (0..8).map(|_| progress::resume(&*engines.records, &fallen, STREAM, PARTITIONS, &progress));
    for resume in join_all(resumes).await {
        let resume = resume.unwrap();
        assert_eq!((resume.from, resume.generations.of(resume.from), resume.lost.is_some()), (3, 2, true));
    }
    let generations = Generations::open(&*engines.records, &fallen, STREAM, PARTITIONS).await.unwrap();
    assert_eq!(generations.newest(), 2);
}

/// Devices would move between partitions, and their order would be lost.
pub async fn another_partition_count_is_refused(engines: Engines) {
    let log = (engines.log)().await;
    Generations::open(&*engines.records, &*log, STREAM, PARTITIONS).await.unwrap();
    Generations::open(&*engines.records, &*log, STREAM, PARTITIONS).await.unwrap();
    let error = Generations::open(&*engines.records, &*log, STREAM, PARTITIONS + 1).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::FailedPrecondition, "PARTITIONS_CHANGED"));
    assert_eq!(error.limit(), Some("2"));
}
