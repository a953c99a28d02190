//! The write side: one owner for each partition.
//!
//! An owner ([`owner`]) claims, reads frames, turns them into one batch of rows ([`batch`]) with what it knows of each
//! device ([`devices`]), writes, tells the live tails and the `written` mark, and records its progress now and then
//! ([`checkpoint`]). Whatever fails, it gives up all that it has in memory, waits, and begins again from its recorded
//! progress: a re-read writes the same bytes, so there is one way to recover, and a crash takes the same one.

mod batch;
mod checkpoint;
mod clock;
mod device;
mod devices;
mod health;
mod owner;
mod start;

use std::sync::Arc;

pub(crate) use batch::decode;
pub(crate) use health::Health;
pub(crate) use owner::Owner;
pub(crate) use start::{Engines, claim_all};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use weir_core::{
    DeviceId, Partition, Position, Reading, Stream,
    port::{Log, Records, SeriesKey, TelemetryStore},
};

use crate::{WriterConfig, marks::Marks, metrics::Metrics, tail::FanOut};

/// The name under which storage keeps its progress.
pub(crate) const READER: &str = "storage";

/// What the owners share.
pub(crate) struct Shared {
    pub(crate) config: WriterConfig,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) records: Arc<dyn Records>,
    pub(crate) store: Arc<dyn TelemetryStore>,
    pub(crate) marks: Arc<Marks>,
    pub(crate) fan_out: Arc<FanOut>,
    pub(crate) health: Health,
    pub(crate) metrics: Arc<Metrics>,
    /// Owners that may hold a decoded batch at once: memory is bounded by cores, not by partitions.
    pub(crate) slots: Semaphore,
    pub(crate) stop: CancellationToken,
}

/// A message as it came from the log: what becomes rows, and what live tails are told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Heard {
    pub(crate) series: SeriesKey,
    pub(crate) device: DeviceId,
    pub(crate) partition: Partition,
    pub(crate) generation: u32,
    pub(crate) sequence: u64,
    /// Each with its index in the frame.
    pub(crate) readings: Vec<(u32, Reading)>,
}

impl Heard {
    /// Where the reading with that index stands.
    pub(crate) fn position(&self, index: u32) -> Position {
        Position {
            stream: Stream::Readings,
            generation: self.generation,
            sequence: self.sequence,
            index,
            partition: self.partition,
        }
    }
}
