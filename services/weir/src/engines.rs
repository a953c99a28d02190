//! The engines behind the ports. Only this module knows which they are.

mod embedded;
mod shared;

use std::sync::Arc;

use weir_core::{
    Error, Result, Stream,
    port::{Leases, Log, Records, Signals, TelemetryStore},
    progress,
};

pub(crate) use embedded::prepare;
pub(crate) use shared::hostname;

use crate::config::Config;

/// The engine ports, bound.
#[derive(Clone)]
pub(crate) struct Engines {
    /// Readings and commands.
    pub(crate) log: Arc<dyn Log>,
    /// Doorbells.
    pub(crate) signals: Arc<dyn Signals>,
    /// Who shares the work.
    pub(crate) leases: Arc<dyn Leases>,
    /// Small records.
    pub(crate) records: Arc<dyn Records>,
    /// Telemetry.
    pub(crate) telemetry: Arc<dyn TelemetryStore>,
    /// Requests to a server of the store that were repeated so far.
    pub(crate) retries: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Which engines these are and what their acknowledgements survive, for `/readyz`.
    pub(crate) detail: Vec<String>,
}

/// Opens the engines that the configuration names.
///
/// # Errors
/// What [`embedded::open`] and [`shared::open`] say; `CONFIG_INVALID` where log and store are not of one kind.
pub(crate) async fn open(config: &Config) -> Result<Engines> {
    match config.is_shared()? {
        true => shared::open(config).await,
        false => embedded::open(config).await,
    }
}

/// Every reader records which log it reads before the first frame is written: a log with frames beside a store that knows
/// nothing of it means that the store has lost everything.
///
/// # Errors
/// `DataLoss` that names the log and says what to do; those of log and store.
async fn know_each_other(records: &dyn Records, log: &dyn Log, place: &str, otherwise: &str) -> Result<()> {
    for stream in Stream::ALL {
        // The log first: what another process records and publishes meanwhile is seen in this order or not at all.
        if log.bounds(stream).await?.last == 0 {
            continue;
        }
        let known = records.partitions(progress::GENERATIONS, None, Stream::ALL.len()).await?;
        if !known.iter().any(|name| name == stream.as_str().as_bytes()) {
            return Err(Error::data_loss(format!(
                "{place} holds a log of {stream} that the store beside it knows nothing of: the store is damaged or gone; \
                 restore both from a backup, or {otherwise}"
            )));
        }
    }
    Ok(())
}
