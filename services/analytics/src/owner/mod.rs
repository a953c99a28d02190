//! Running rules over the log: the owner of each partition reads its frames in order, evaluates them, records what
//! follows, then its own state.
//!
//! The order of effects: alarms and outbox rows are durable before a checkpoint moves over the frame that made them. So a
//! crash at any moment makes the next owner read some frames again; from the same checkpoint, the same change list and
//! the same frames it comes to the same transitions, with the same ids, and writing those again does nothing.
//!
//! Whatever goes wrong, an owner begins again from its checkpoint: there is one way to recover, and it is always used, also
//! where a partition moves to another replica. An owner that does not know yet that it was replaced is stopped by the
//! first thing that it writes: a change or a checkpoint by its claim, an alarm by the epoch beside it.

mod bell;
pub(crate) mod change;
mod checkpoint;
mod frames;
mod intake;
mod recover;
mod run;
mod state;

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use weir_core::{
    Clock, Error, ErrorKind, Partition, Result,
    port::{Log, Records, Registry},
};
use weir_runtime::{
    marks::Marks,
    ownership::{Held, Work},
};

pub(crate) use bell::Bells;
pub(crate) use state::Memory;

use crate::{alarm::Alarms, catalog::Catalog, config::Config, metrics::Metrics, outbox::Dispatcher};
use recover::Owned;

/// The name under which progress is kept.
pub(crate) const READER: &str = "analytics";

/// Who tells how far the store has the readings, and with it the newest generation.
pub(crate) const STORE: &str = "storage";

/// What every owner of this process uses.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) records: Arc<dyn Records>,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) alarms: Arc<Alarms>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) bells: Bells,
    /// How far the store is, of which owners want the generations: positions here are numbered as they are there.
    pub(crate) marks: Marks,
    /// The last frame that was evaluated, of each partition that is this replica's: (generation, sequence).
    pub(crate) evaluated: Mutex<HashMap<Partition, (u32, u64)>>,
}

/// Owns partitions.
pub(crate) struct Owner(pub(crate) Arc<Shared>);

#[async_trait]
impl Work for Owner {
    async fn own(&self, held: &Held) -> Result<()> {
        let (shared, partition) = (&self.0, held.partition());
        shared.metrics.behind.begin(partition);
        let ended = async {
            let mut owned = Owned::recover(Arc::clone(shared), partition).await?;
            held.works();
            owned.run(held.stop()).await
        }
        .await;
        let replaced = ended.as_ref().is_err_and(|error| error.kind() == ErrorKind::Aborted);
        if replaced {
            self.ended(partition);
        }
        ended
    }

    fn failed(&self, _: Partition, _: &Error) {
        self.0.metrics.restarts.inc();
    }

    /// Whoever owns it now does what waits, and tells how far it is.
    fn ended(&self, partition: Partition) {
        self.0.dispatcher.release(partition);
        self.0.evaluated.lock().remove(&partition);
        self.0.metrics.forget(partition);
    }
}
