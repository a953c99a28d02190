//! Running rules over the log: the owner of each partition reads its frames in order, evaluates them, records what
//! follows, then its own state.
//!
//! The order of effects: alarms and outbox rows are durable before a checkpoint moves over the frame that made them. So a
//! crash at any moment makes the next owner read some frames again; from the same checkpoint, the same change list and
//! the same frames it comes to the same transitions, with the same ids, and writing those again does nothing.
//!
//! Whatever goes wrong, an owner begins again from its checkpoint: there is one way to recover, and it is always used.

mod bell;
pub(crate) mod change;
mod checkpoint;
mod frames;
mod intake;
mod recover;
mod run;
mod state;

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use weir_core::{
    Clock, Error, ErrorKind, Partition, Result,
    port::{Log, Records, Registry},
};

pub(crate) use bell::Bells;
pub(crate) use state::Memory;

use crate::{alarm::Alarms, catalog::Catalog, config::Config, metrics::Metrics, outbox::Dispatcher};
use recover::Owned;

/// The name under which progress is kept.
pub(crate) const READER: &str = "analytics";
/// The first pause before an owner begins again, doubled with each failure in a row.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Losing a claim so often in a row means that somebody else wants the partition as well.
const CLAIM_TRIES: u32 = 8;

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
    /// Why partitions are not read, where they are not.
    pub(crate) trouble: Mutex<HashMap<Partition, String>>,
    /// The last frame that was evaluated here, of each partition: (generation, sequence).
    pub(crate) evaluated: Mutex<HashMap<Partition, (u32, u64)>>,
    /// Owners record their state and end.
    pub(crate) stop: CancellationToken,
}

/// Claims a partition for its first owner.
///
/// # Errors
/// Those of log and store.
pub(crate) async fn claim(shared: &Arc<Shared>, partition: Partition) -> Result<Owned> {
    let mut tries = 1;
    loop {
        match Owned::recover(Arc::clone(shared), partition).await {
            // A former owner recorded its last at this moment.
            Err(error) if error.kind() == ErrorKind::Aborted && tries < CLAIM_TRIES => tries += 1,
            claimed => return claimed.map_err(|error| error.context(format!("partition {partition}"))),
        }
    }
}

/// Owns a partition until the service stops.
pub(crate) async fn own(shared: Arc<Shared>, partition: Partition, first: Owned) {
    let (mut owned, mut pause) = (Some(first), PAUSE);
    loop {
        let attempt = async {
            let mut owned = match owned.take() {
                Some(owned) => owned,
                None => Owned::recover(Arc::clone(&shared), partition).await?,
            };
            shared.trouble.lock().remove(&partition);
            let result = owned.run().await;
            if owned.has_advanced() {
                pause = PAUSE;
            }
            result
        };
        // A defect must not end a partition for good, nor in silence; what it left in memory is thrown away.
        let ended = AssertUnwindSafe(attempt).catch_unwind().await;
        let Err(error) = ended.unwrap_or_else(|_| Err(Error::internal("an owner panicked"))) else { return };
        report(&shared, partition, &error);
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn report(shared: &Shared, partition: Partition, error: &Error) {
    shared.metrics.restarts.inc();
    shared.trouble.lock().insert(partition, error.to_string());
    if error.kind().retryable() {
        tracing::warn!(%partition, error = ?error, "rules of a partition begin again from their checkpoint");
    } else {
        tracing::error!(%partition, error = ?error, "rules of a partition cannot go on; trying again from their checkpoint");
    }
}
