//! Which partitions are this replica's, and an owner at work on each of them.
//!
//! A replica joins the group of its service, computes from each view which partitions are its own
//! ([`weir_core::ownership`]), and keeps one owner for each. A partition that is no longer its own is stopped in order; its
//! next owner elsewhere does not wait for that, it claims, and the epochs of [`weir_core::progress::Claim`] decide who
//! may write. So nothing here is needed for truth; it is needed so that every partition is worked on, and by one.
//!
//! An owner that fails begins anew after a pause. One that lost its claim while the view still gives it the partition
//! waits longer: the other has most likely seen a newer view, and this one comes within a moment. So two members that
//! disagree take turns of seconds and do not fight.

mod keeper;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use weir_core::{
    Error, ErrorKind, Partition, Result,
    port::{Leases, Membership},
};

use weir_metrics::Sampled;

use keeper::Keeper;

/// What the owner of a partition does.
#[async_trait]
pub trait Work: Send + Sync + 'static {
    /// Claims the partition, recovers, and works at it until `held` is stopped; then records what it has and returns.
    /// Calls [`Held::works`] once it does its work.
    ///
    /// # Errors
    /// Whatever ends it before that, after which it is called again: `Aborted` where another has claimed the partition,
    /// anything else where it failed.
    async fn own(&self, held: &Held) -> Result<()>;

    /// Hears of each failure, to count it.
    fn failed(&self, partition: Partition, error: &Error);

    /// Hears that this replica works no more at a partition, whether or not an owner was at work when it was taken away:
    /// what is kept of it outside of its owner goes. Nothing of its owner runs any more, and none is begun before this
    /// returns.
    fn ended(&self, partition: Partition) {
        let _ = partition;
    }
}

/// A partition that is this replica's for now.
pub struct Held {
    partition: Partition,
    stop: CancellationToken,
    /// The end of all partitions of this replica.
    drain: CancellationToken,
    desk: Arc<Desk>,
}

impl Held {
    /// Which.
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// Ends the owner: it records its last and returns.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Whether it is stopped because the partition goes to another replica, which claims it at once: what takes long to
    /// record is not worth waiting for then, for the other would not be waited for.
    pub fn moves(&self) -> bool {
        self.stop.is_cancelled() && !self.drain.is_cancelled()
    }

    /// Tells that the owner does its work.
    pub fn works(&self) {
        self.desk.set(self.partition, Standing::Works);
    }
}

/// How a partition of this replica fares.
#[derive(Debug, Clone)]
enum Standing {
    Starting,
    Works,
    /// Another claimed it, and works at it.
    Lost,
    Failing(Error),
}

/// What the last view says, and how this replica's partitions fare.
#[derive(Debug, Default)]
struct State {
    /// Whether there was a view yet.
    seen: bool,
    first: bool,
    mine: BTreeMap<Partition, Standing>,
}

/// What the parts of an [`Ownership`] share.
struct Desk {
    group: &'static str,
    partitions: u16,
    state: watch::Sender<State>,
}

impl Desk {
    fn set(&self, partition: Partition, standing: Standing) {
        self.state.send_if_modified(|state| match state.mine.get_mut(&partition) {
            Some(known) => {
                let unchanged = matches!((&*known, &standing), (Standing::Works, Standing::Works));
                *known = standing;
                !unchanged
            }
            None => false, // no longer this replica's: nobody asks
        });
    }
}

/// The partitions of this replica. Dropped without [`Ownership::end`], its owners end as in a crash.
pub struct Ownership {
    desk: Arc<Desk>,
    membership: Mutex<Option<Box<dyn Membership>>>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Ownership {
    /// Joins the group; nothing is owned before [`Ownership::start`].
    ///
    /// # Errors
    /// `Unavailable` where the bus is away.
    pub async fn join(leases: &dyn Leases, group: &'static str, partitions: u16) -> Result<Self> {
        let membership = leases.join(group).await?;
        Ok(Self {
            desk: Arc::new(Desk { group, partitions, state: watch::Sender::new(State::default()) }),
            membership: Mutex::new(Some(membership)),
            stop: CancellationToken::new(),
            task: Mutex::new(None),
        })
    }

    /// Begins to own; returns when each partition that the first view gives to this replica works, or has failed for a
    /// reason that may pass: that one is tried again, and until then [`Ownership::ready`] says why it is not. One damaged
    /// partition, or a store that is slow for a moment, must not keep the others from work.
    ///
    /// # Errors
    /// `FailedPrecondition` and `InvalidArgument` of an owner that failed before it worked for the first time, which no
    /// try changes; `Internal` at a second call.
    pub async fn start(&self, work: Arc<dyn Work>) -> Result<()> {
        let Some(membership) = self.membership.lock().take() else {
            return Err(Error::internal("an ownership is started once"));
        };
        let keeper = Keeper::new(Arc::clone(&self.desk), work, self.stop.clone());
        *self.task.lock() = Some(tokio::spawn(keeper.run(membership)));
        let mut state = self.desk.state.subscribe();
        let settled = |state: &State| {
            state.seen && state.mine.values().all(|standing| !matches!(standing, Standing::Starting))
        };
        let failed = match state.wait_for(settled).await {
            Ok(state) => state.mine.iter().find_map(|(partition, standing)| match standing {
                Standing::Failing(error) if is_final(error) => {
                    Some(error.clone().context(format!("partition {partition}")))
                }
                Standing::Failing(_) | Standing::Starting | Standing::Works | Standing::Lost => None,
            }),
            Err(_) => None, // the sender is this one's own
        };
        match failed {
            None => Ok(()),
            Some(error) => {
                self.end().await;
                Err(error)
            }
        }
    }

    /// Whether a partition is this replica's.
    pub fn owns(&self, partition: Partition) -> bool {
        self.desk.state.borrow().mine.contains_key(&partition)
    }

    /// Whether this replica stands first in its view: who does what one of them should do.
    pub fn is_first(&self) -> bool {
        self.desk.state.borrow().first
    }

    /// Tells, at each scrape, of every partition whether this replica works at it: 1 or 0.
    pub fn tell(&self, owned: &Sampled) {
        let desk = Arc::downgrade(&self.desk);
        owned.by_label(move || {
            let Some(desk) = desk.upgrade() else { return Vec::new() };
            let state = desk.state.borrow();
            let works = |partition| matches!(state.mine.get(&partition), Some(Standing::Works));
            (0..desk.partitions)
                .map(Partition)
                .map(|partition| (partition.to_string(), f64::from(u8::from(works(partition)))))
                .collect()
        });
    }

    /// Whether each partition that is this replica's works; true where it has none.
    ///
    /// # Errors
    /// How many do not, and why the first of them does not.
    pub fn ready(&self) -> Result<(), String> {
        let state = self.desk.state.borrow();
        let mut idle = state.mine.iter().filter_map(|(partition, standing)| match standing {
            Standing::Works | Standing::Lost => None,
            Standing::Starting => Some((partition, "it is being taken over".to_owned())),
            Standing::Failing(error) => Some((partition, error.to_string())),
        });
        let Some((partition, why)) = idle.next() else { return Ok(()) };
        Err(format!("{} partitions are not worked on; partition {partition}: {why}", idle.count() + 1))
    }

    /// Stops every owner, in order and for 10 s at most, then leaves the group, so that others take over at once.
    /// Idempotent.
    pub async fn end(&self) {
        self.stop.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task {
            let _ = task.await; // aborted by nobody but a drop of this
        }
    }
}

/// Whether only somebody who changes the configuration can help.
fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::FailedPrecondition | ErrorKind::InvalidArgument)
}

impl Drop for Ownership {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests;
