//! Analytics: rules, alarms and their actions.
//!
//! The owner of each partition reads the log in order and runs the engine of `weir-rules` over it (`owner`); what follows
//! becomes alarms and outbox rows in one commit (`alarm`), and a dispatcher does what the rows say (`outbox`). Rules are
//! data that anybody may write at any time (`rules`); an owner takes a change over at a position that it records first, so
//! that a crash never makes it judge a reading twice by different rules. `TestRule` runs the same engine over stored
//! readings (`testing`).
//!
//! It is not where readings are kept, and it never asks storage for one but in a test: windows are filled from the log.
//! It does not decide whether a command reaches its device; it hands it over once.
//!
//! Rejected: one state store keyed by device that is written with each reading (an fsync for each; a checkpoint a second
//! does, since reading again comes to the same); a queue of transitions in the log (alarms would lag behind it, and the
//! outbox is a queue already); evaluating on the query path (an alarm that nobody asks for is still an alarm).
//!
//! Sources: asynchronous barrier snapshots (Carbone et al. 2015) for state and position that move together; the
//! transactional outbox (Richardson, "Microservices Patterns", 3.3.7); Standard Webhooks for what is posted.

mod admission;
mod alarm;
mod catalog;
mod config;
mod grpc;
mod housekeeping;
mod metrics;
mod outbox;
mod owner;
mod rules;
mod service;
mod testing;

pub use config::{ActionsConfig, Config};
pub use service::Service;

/// Registers every metric of this service, for the inventory.
///
/// # Errors
/// `Internal` where one is registered already.
pub fn register_metrics(registrar: &weir_metrics::Registrar<'_>) -> weir_core::Result<()> {
    metrics::Metrics::register(registrar).map(drop)
}
