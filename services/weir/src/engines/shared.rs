//! NATS JetStream and CQL: engines that any number of processes share.

use std::sync::Arc;

use weir_core::Result;
use weir_log_nats::{Bus, Options};
use weir_store_scylla::ScyllaStore;

use super::{Engines, know_each_other};
use crate::config::Config;

/// Connects to store and bus.
///
/// # Errors
/// `SCHEMA_OLD`, `SCHEMA_NEW` that name `weir migrate`; `FailedPrecondition` where store or bus cannot give the configured
/// durability, or a stream has settings that would break a promise; `Unavailable` where they are away.
pub(super) async fn open(config: &Config) -> Result<Engines> {
    let store = ScyllaStore::connect(&config.cql, config.log.durability).await?;
    let options = Options {
        partitions: config.log.partitions,
        durability: config.log.durability,
        max_bytes: config.log.max_bytes,
        client: format!("{}/{}", hostname(), std::process::id()),
    };
    let bus = Bus::connect(&config.nats, options).await?;
    let log = bus.log();
    let otherwise = "start anew with another nats.prefix";
    know_each_other(&*store, &*log, "nats.servers", otherwise).await?;
    Ok(Engines {
        log,
        signals: bus.signals(),
        leases: bus.leases(),
        detail: vec![
            format!("durability of the log (nats): {}", bus.detail()),
            format!("durability of the store (cql): {}", store.detail()),
        ],
        retries: {
            let store = Arc::clone(&store);
            Arc::new(move || store.retries())
        },
        records: Arc::clone(&store) as _,
        telemetry: store,
    })
}

/// What people call this machine: in a container, its name.
pub(crate) fn hostname() -> String {
    let known = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if known.trim().is_empty() { "weir".to_owned() } else { known.trim().to_owned() }
}
