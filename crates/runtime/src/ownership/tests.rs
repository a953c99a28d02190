//! Owners that only note who they are.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::atomic::{AtomicU32, Ordering},
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
    begun: AtomicU32,
    fails: Mutex<Option<Error>>,
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
        held.works();
        held.stop().cancelled().await;
        self.at_work.lock().remove(&held.partition());
        Ok(())
    }

    fn failed(&self, _: Partition, _: &Error) {}
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
    *owners.fails.lock() = Some(Error::data_loss("a chunk is missing"));
    let ownership = Ownership::join(&seat, "test", PARTITIONS).await.unwrap();
    let error = ownership.start(owners).await.unwrap_err();
    assert_eq!(error.kind(), weir_core::ErrorKind::DataLoss);
    let two = Replica::start(&board, "two").await;
    shared_out(&[&two]).await;
}
