//! The task that follows the view, and the one that keeps an owner at work.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use futures::FutureExt as _;
use tokio::{
    task::{self, AbortHandle, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use weir_core::{
    Error, ErrorKind, Partition, ownership,
    port::{Membership, View},
};

use super::{Desk, Held, Standing, Work};

/// The first pause after a failure, and the longest, doubled with each in a row: quick for a blip, and no storm against a
/// store that is down.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// The same after a lost claim: a view that is behind the other's comes within a second, and where this one is right,
/// it has the partition back within the 5 s that a takeover may take.
const LOST_PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));
/// How long owners may take to record their last before they are ended where they stand.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Follows the view.
pub(super) struct Keeper {
    desk: Arc<Desk>,
    work: Arc<dyn Work>,
    stop: CancellationToken,
    mine: BTreeSet<Partition>,
    /// Every owner that has not ended, also of partitions that are no longer this replica's.
    owners: BTreeMap<Partition, Running>,
    tasks: JoinSet<()>,
}

/// An owner at work, or one that records its last.
struct Running {
    stop: CancellationToken,
    task: AbortHandle,
}

impl Keeper {
    pub(super) fn new(desk: Arc<Desk>, work: Arc<dyn Work>, stop: CancellationToken) -> Self {
        Self { desk, work, stop, mine: BTreeSet::new(), owners: BTreeMap::new(), tasks: JoinSet::new() }
    }

    pub(super) async fn run(mut self, mut membership: Box<dyn Membership>) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                view = membership.changed() => self.look(membership.me().id, &view),
                Some(ended) = self.tasks.join_next_with_id() => self.ended(id_of(ended)),
            }
            self.reconcile();
        }
        let ended = async {
            while let Some(ended) = self.tasks.join_next_with_id().await {
                self.ended(id_of(ended));
            }
        };
        if tokio::time::timeout(STOP_MAX, ended).await.is_err() {
            let group = self.desk.group;
            tracing::warn!(
                group,
                "some owners did not record their last in time; others begin a little further back"
            );
            self.tasks.abort_all();
            while let Some(ended) = self.tasks.join_next_with_id().await {
                self.ended(id_of(ended));
            }
        }
        membership.leave().await;
    }

    fn ended(&mut self, task: task::Id) {
        let found =
            self.owners.iter().find(|(_, owner)| owner.task.id() == task).map(|(partition, _)| *partition);
        if let Some(partition) = found {
            self.owners.remove(&partition);
            self.work.ended(partition);
        }
    }

    /// Takes a view in.
    fn look(&mut self, me: weir_core::Uid, view: &View) {
        let Desk { group, partitions, .. } = *self.desk;
        let mine: BTreeSet<_> = ownership::owned_by(me, &view.members, partitions).into_iter().collect();
        if mine != self.mine {
            tracing::info!(
                group,
                members = view.members.len(),
                partitions = mine.len(),
                "partitions are shared out anew"
            );
        }
        self.desk.state.send_modify(|state| {
            state.seen = true;
            state.first = view.members.first().is_some_and(|first| first.id == me);
            state.mine.retain(|partition, _| mine.contains(partition));
            for partition in &mine {
                state.mine.entry(*partition).or_insert(Standing::Starting);
            }
        });
        self.mine = mine;
    }

    /// Stops the owners of what is no longer this replica's, and starts those of what has none. Where a partition is given
    /// back while its former owner here still records its last, that one is ended where it stands, as in a crash, and the
    /// next one is started when it is gone: nobody works at the partition meanwhile.
    fn reconcile(&mut self) {
        for (partition, owner) in &self.owners {
            if !self.mine.contains(partition) {
                owner.stop.cancel();
            } else if owner.stop.is_cancelled() {
                owner.task.abort();
            }
        }
        for partition in &self.mine {
            if !self.owners.contains_key(partition) {
                let stop = self.stop.child_token();
                let held = Held {
                    partition: *partition,
                    stop: stop.clone(),
                    drain: self.stop.clone(),
                    desk: Arc::clone(&self.desk),
                };
                let task = self.tasks.spawn(keep(Arc::clone(&self.work), held));
                self.owners.insert(*partition, Running { stop, task });
            }
        }
    }
}

/// Keeps an owner at work until it is stopped.
async fn keep(work: Arc<dyn Work>, held: Held) {
    let mut pauses = Pauses::default();
    while !held.stop.is_cancelled() {
        let began = Instant::now();
        // A defect must not end a partition for good, nor in silence; what it left in memory is thrown away.
        let ended = AssertUnwindSafe(work.own(&held)).catch_unwind().await;
        let error = match ended.unwrap_or_else(|_| Err(Error::internal("an owner panicked"))) {
            Ok(()) if held.stop.is_cancelled() => break,
            Ok(()) => Error::internal("an owner ended though it was not stopped"),
            Err(error) => error,
        };
        report(&*work, &held, &error);
        let pause = pauses.after(&error, began.elapsed());
        tokio::select! {
            () = held.stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn id_of(ended: Result<(task::Id, ()), JoinError>) -> task::Id {
    ended.map_or_else(|error| error.id(), |(id, ())| id)
}

fn report(work: &dyn Work, held: &Held, error: &Error) {
    let (group, partition) = (held.desk.group, held.partition);
    if error.kind() == ErrorKind::Aborted {
        tracing::info!(group, %partition, %error, "another has claimed a partition");
        held.desk.set(partition, Standing::Lost);
        return;
    }
    work.failed(partition, error);
    if held.stop.is_cancelled() || error.kind().retryable() {
        tracing::warn!(group, %partition, error = ?error, "the owner of a partition failed and begins anew");
    } else {
        tracing::error!(group, %partition, error = ?error, "the owner of a partition cannot go on; trying again");
    }
    held.desk.set(partition, Standing::Failing(error.clone()));
}

/// How long an owner waits before it begins anew.
struct Pauses {
    failed: Duration,
    lost: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { failed: PAUSE.0, lost: LOST_PAUSE.0 }
    }
}

impl Pauses {
    fn after(&mut self, error: &Error, worked: Duration) -> Duration {
        if worked > PAUSE.1 {
            *self = Self::default(); // it went well for a while
        }
        let (next, max) = match error.kind() {
            ErrorKind::Aborted => (&mut self.lost, LOST_PAUSE.1),
            _ => (&mut self.failed, PAUSE.1),
        };
        let pause = *next;
        *next = (pause * 2).min(max);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_lost_a_claim_waits_for_seconds_and_whoever_failed_does_not() {
        let mut pauses = Pauses::default();
        let mut after = |error: &Error, worked| pauses.after(error, worked);
        let (lost, failed) = (Error::aborted("another has it"), Error::unavailable("a blip"));
        assert_eq!(after(&failed, Duration::ZERO), PAUSE.0);
        assert_eq!([&lost; 4].map(|lost| after(lost, Duration::ZERO).as_secs()), [2, 4, 8, 10]);
        assert_eq!(after(&failed, Duration::ZERO), PAUSE.0 * 2, "one does not count for the other");
        assert_eq!(after(&lost, PAUSE.1 * 2), LOST_PAUSE.0, "it went well for a while");
    }
}
