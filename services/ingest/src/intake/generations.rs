//! Which generation a sequence has, kept current.

use std::sync::Arc;

use parking_lot::RwLock;
use weir_core::{
    Partition, Position, Result, Stream,
    port::{Log, Records},
    progress::Generations,
};

/// The generations of the `readings` stream as this replica knows them.
pub(super) struct Numbering {
    records: Arc<dyn Records>,
    log: Arc<dyn Log>,
    partitions: u16,
    known: RwLock<Generations>,
}

impl Numbering {
    /// Reads them.
    ///
    /// # Errors
    /// `FailedPrecondition` for a changed partition count; `Unavailable` of store or log.
    pub(super) async fn open(records: Arc<dyn Records>, log: Arc<dyn Log>, partitions: u16) -> Result<Self> {
        let known = Generations::open(&*records, &*log, Stream::Readings, partitions).await?;
        Ok(Self { records, log, partitions, known: RwLock::new(known) })
    }

    /// Reads them again: after the log was away, and now and then, since an owner may have raised one.
    ///
    /// # Errors
    /// As [`Numbering::open`]; what was known stays.
    pub(super) async fn refresh(&self) -> Result<()> {
        let now = Generations::open(&*self.records, &*self.log, Stream::Readings, self.partitions).await?;
        *self.known.write() = now;
        Ok(())
    }

    /// The position of a reading.
    pub(super) fn position(&self, partition: Partition, sequence: u64, index: u32) -> Position {
        let generation = self.known.read().of(sequence);
        Position { stream: Stream::Readings, generation, sequence, index, partition }
    }
}
