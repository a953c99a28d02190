//! Storage: frames become rows, and rows become answers.
//!
//! The write side (an owner for each partition that is this replica's: `weir_runtime::ownership`) reads frames from its recorded progress, decides
//! which values are late and in which bucket a row goes, writes, tells `written`, and moves its progress once the store
//! has it durably. The read side merges immutable rows by position: one value for each (device, metric, ts), the one
//! accepted last.
//!
//! A re-read after a crash writes the very same bytes, and for that two things are rebuilt exactly as they stood at the
//! recorded progress:
//! - *A device's clock* is derived from the store, not checkpointed: from its newest values where none of them stands
//!   above the progress, else from its rows at or below the progress, which are immutable (`writer::clock`).
//! - *A bucket's byte count* decides the width of the next row's bucket. Counts reach the `buckets` table only after the
//!   progress that they belong to, by a redo record in the same commit as that progress (`writer::checkpoint`), so the table
//!   never runs ahead of it.
//!
//! It is not the place for rules (it only gives them rows), nor for identity: device ids and labels are the registry's.
//! It knows no engine: order of rows, atomicity and durability are those of the ports in `weir-core`.
//!
//! Rejected: checkpointing every device's clock (a write for each device a second, for what the rows already say);
//! deleting superseded rows on correction (a read before each write); live tails that each read the log (sixteen readers
//! a tail).
//!
//! Sources: `DDSketch` (Masson, Rim, Lee, VLDB 2019); merging variances (Chan, Golub, `LeVeque` 1983; Welford 1962).

mod config;
mod grpc;
mod marks;
mod metrics;
mod poison;
mod query;
mod read;
mod service;
mod tail;
#[cfg(test)]
mod testing;
mod trim;
mod writer;

pub use config::{Config, QueryConfig, WriterConfig};
pub use service::{PartitionLag, Service};

/// Registers every metric of this service, for the inventory.
///
/// # Errors
/// `Internal` where one is registered already.
pub fn register_metrics(registrar: &weir_metrics::Registrar<'_>) -> weir_core::Result<()> {
    metrics::Metrics::register(registrar).map(drop)
}
