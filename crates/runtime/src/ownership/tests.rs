//! Owners that only note who they are.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use tokio::time::Instant;
use weir_conformance::board::{Board, Seat};

use super::*;

const PARTITIONS: u16 = 16;
const PATIENCE: Duration = Duration::from_secs(60);

/// Notes which partitions are at work, and fails as told.
#[derive(Default)]
struct Owners {
    at_work: Mutex<BTreeSet<Partition>>,
    ended: Mutex<BTreeSet<Partition>>,
    begun: AtomicU32,
    fails: Mutex<Option<Error>>,
    /// Whether an owner that is stopped never comes to its end by itself.
    records_for_ever: AtomicBool,
}

/// An owner is at work until it is gone, however it ends.
struct AtWork<'a>(&'a Owners, Partition);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.at_work.lock().remove(&self.1);
    }
}

#[async_trait]
impl Work for Owners {
    async fn own(&self, held: &Held) -> Result<()> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let fails = self.fails.lock().clone();
        if let Some(error) = fails {
            return Err(error);
        }
        assert!(self.at_work.lock().insert(held.partition()), "one owner of a partition at a time");
        let _at_work = AtWork(self, held.partition());
        held.works();
        held.stop().cancelled().await;
        if self.records_for_ever.load(Ordering::SeqCst) {
            assert!(held.moves(), "nothing ends this replica here");
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    fn failed(&self, _: Partition, _: &Error) {}

    fn ended(&self, partition: Partition) {
        self.ended.lock().insert(partition);
    }
}

struct Replica {
    seat: Seat,
    owners: Arc<Owners>,
    ownership: Ownership,
}

impl Replica {
    async fn start(board: &Board, name: &str) -> Self {
        let (seat, owners) = (board.seat(name), Arc::new(Owners::default()));
        let ownership = Ownership::join(&seat, "test", PARTITIONS).await.unwrap();
        ownership.start(Arc::clone(&owners) as _).await.unwrap();
        Self { seat, owners, ownership }
    }

    fn count(&self) -> usize {
        self.owners.at_work.lock().len()
    }
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let until = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn shared_out(replicas: &[&Replica]) {
    eventually("each partition has one owner, and nobody has too many", async || {
        let sets: Vec<_> = replicas.iter().map(|replica| replica.owners.at_work.lock().clone()).collect();
        let all: BTreeSet<Partition> = sets.iter().flatten().copied().collect();
        let least = usize::from(PARTITIONS) / replicas.len();
        all.len() == usize::from(PARTITIONS)
            && sets.iter().map(BTreeSet::len).sum::<usize>() == all.len()
            && sets.iter().all(|set| (least..=least + 1).contains(&set.len()))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn partitions_are_shared_out_at_a_join_a_leave_and_a_death() {
    let board = Board::default();
    let one = Replica::start(&board, "one").await;
    assert_eq!(one.count(), usize::from(PARTITIONS), "all that is its own works when the start returns");
    assert!(one.ownership.is_first());
    let two = Replica::start(&board, "two").await;
    let three = Replica::start(&board, "three").await;
    shared_out(&[&one, &two, &three]).await;
    let firsts = [&one, &two, &three].into_iter().filter(|replica| replica.ownership.is_first());
    assert_eq!(firsts.count(), 1);

    two.ownership.end().await;
    assert_eq!(two.count(), 0, "whoever has ended owns nothing");
    shared_out(&[&one, &three]).await;

    drop(one.ownership);
    one.seat.cut_off();
    shared_out(&[&three]).await;
    assert!(three.ownership.is_first());
    assert!((0..PARTITIONS).all(|partition| three.ownership.owns(Partition(partition))));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_lost_its_lease_owns_nothing_until_it_has_it_again() {
    let board = Board::default();
    let one = Replica::start(&board, "one").await;
    one.seat.lose("test");
    eventually("every owner has stopped", async || one.count() == 0).await;
    one.ownership.ready().unwrap();
    assert!(!one.ownership.is_first());
    one.seat.come_back();
    shared_out(&[&one]).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_is_not_ready_while_an_owner_fails_but_what_another_works_at_is_worked_at() {
    let board = Board::default();
    let one = Replica::start(&board, "one").await;
    for (error, ready) in [(Error::aborted("another"), true), (Error::unavailable("a blip"), false)] {
        *one.owners.fails.lock() = Some(error);
        one.seat.lose("test");
        eventually("every owner has stopped", async || one.count() == 0).await;
        one.owners.begun.store(0, Ordering::SeqCst);
        one.seat.come_back();
        let all_twice = 2 * u32::from(PARTITIONS);
        eventually("each was tried twice", async || one.owners.begun.load(Ordering::SeqCst) >= all_twice)
            .await;
        assert_eq!(one.ownership.ready().is_ok(), ready);
        *one.owners.fails.lock() = None;
        shared_out(&[&one]).await;
        one.ownership.ready().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_owners_cannot_work_says_why_and_leaves() {
    let board = Board::default();
    let (seat, owners) = (board.seat("one"), Arc::new(Owners::default()));
    *owners.fails.lock() = Some(Error::new(ErrorKind::FailedPrecondition, "PARTITIONS_CHANGED", "16, not 8"));
    let ownership = Ownership::join(&seat, "test", PARTITIONS).await.unwrap();
    let error = ownership.start(owners).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    let two = Replica::start(&board, "two").await;
    shared_out(&[&two]).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_with_a_damaged_partition_is_not_ready_and_tries_it_again() {
    let board = Board::default();
    for error in [Error::data_loss("a chunk is missing"), Error::unavailable("no answer in time")] {
        let (seat, owners) = (board.seat("one"), Arc::new(Owners::default()));
        *owners.fails.lock() = Some(error);
        let ownership = Ownership::join(&seat, "test", PARTITIONS).await.unwrap();
        ownership.start(Arc::clone(&owners) as _).await.unwrap();
        assert!(ownership.ready().unwrap_err().contains("16 partitions"));
        *owners.fails.lock() = None;
        eventually("each is worked on", async || ownership.ready().is_ok()).await;
        ownership.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_given_back_does_not_wait_for_what_its_former_owner_still_records() {
    let board = Board::default();
    let one = Replica::start(&board, "one").await;
    one.owners.records_for_ever.store(true, Ordering::SeqCst);
    one.seat.lose("test");
    eventually("nothing is its own", async || !one.ownership.owns(Partition(0))).await;
    assert_eq!(one.count(), usize::from(PARTITIONS), "the former owners record their last");
    one.owners.begun.store(0, Ordering::SeqCst);
    one.seat.come_back();
    eventually("each is begun anew", async || {
        one.owners.begun.load(Ordering::SeqCst) == u32::from(PARTITIONS) && one.ownership.ready().is_ok()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_partition_is_told_also_where_its_owner_was_not_at_work() {
    let board = Board::default();
    let one = Replica::start(&board, "one").await;
    *one.owners.fails.lock() = Some(Error::unavailable("a blip"));
    one.seat.lose("test");
    eventually("every owner has stopped", async || one.count() == 0).await;
    one.seat.come_back();
    eventually("each has failed", async || one.ownership.ready().is_err()).await;
    one.owners.ended.lock().clear();
    one.seat.lose("test");
    eventually("each end is told", async || one.owners.ended.lock().len() == usize::from(PARTITIONS)).await;
}
