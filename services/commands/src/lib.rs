//! Commands: what a device is asked to do, and proof of how far that came. Serves `weir.commands.v1` and the call ports
//! [`weir_core::port::CommandSender`] and [`weir_core::port::CommandQueue`].
//!
//! A Send is acknowledged when the `commands` stream of the log has it; its position there is the device's order. The owner
//! of the partition copies the stream into the store, insert-if-absent, and everything else happens in the store:
//! whatever is killed and when, a command is neither lost nor repeated nor forgotten.
//!
//! - All records of one device lie in one record partition, so that each change of a command is one atomic commit,
//!   conditional on the command's version and, where a session moves it, on the session's epoch.
//! - Indexes across devices (`store`) are written before the command and taken away after it: what a crash leaves between
//!   is an entry that leads nowhere, and is skipped or removed by whoever finds it.
//! - Time ends commands by an index ordered by expiry (`sweep`), not by timers in memory, so that a command ends also when
//!   its device is away or Weir was.
//!
//! Not here: how a command reaches a device. Ingest pulls ([`weir_core::port::CommandQueue`]), and this crate knows no MQTT.
//!
//! Ended commands stay listed for 30 days after they would have expired (`commands.retention`), so that a repeated
//! `request_id` finds its command for all of its time to live.
//!
//! Rejected: the MQTT session as the queue (a clean start would lose commands); pushing from here to ingest (whoever pushes
//! must know who is connected, and be right); a state machine over log entries (each state change would wait for the
//! whole partition).

mod backlog;
mod choose;
mod config;
mod copy;
mod find;
mod grpc;
mod hub;
mod list;
mod machine;
mod metrics;
mod owner;
mod queue;
mod send;
mod service;
mod store;
mod sweep;
mod transition;
mod watch;

pub use config::Config;
pub use service::Service;

/// Registers every metric of this service, for the inventory.
///
/// # Errors
/// `Internal` where one is registered already.
pub fn register_metrics(registrar: &weir_metrics::Registrar<'_>) -> weir_core::Result<()> {
    metrics::Metrics::register(registrar).map(drop)
}
