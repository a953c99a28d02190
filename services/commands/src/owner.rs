//! The owner of a partition: reads the log from its progress, copies, and moves its progress.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;
use weir_core::{
    Error, Partition, Result, Stream, Timestamp,
    port::Batch,
    progress::{Claim, Progress},
};
use weir_runtime::{
    marks::Mark,
    ownership::{Held, Work},
};

use crate::Service;

/// This reader's name in the records of progress.
pub(crate) const READER: &str = "commands";
/// Read at once: bounds the memory of a partition that catches up.
const READ_MAX: usize = 256 * 1024;
/// How long a read waits; after an empty one it is certain that nothing came.
const READ_WAIT: Duration = Duration::from_secs(1);
/// An idle partition records how far the stream is this often, so that it does not pin the trim.
const IDLE_RECORD_EVERY: Duration = Duration::from_secs(10);

/// Owns partitions: each attempt claims anew and begins at the recorded progress.
pub(crate) struct Owner(pub(crate) Arc<Service>);

#[async_trait]
impl Work for Owner {
    async fn own(&self, held: &Held) -> Result<()> {
        let (service, partition) = (&self.0, held.partition());
        let records = Arc::clone(&service.records);
        // A log that does not answer here may well answer the present owner: it is not taken from that one in vain.
        service.log.identity(Stream::Commands).await?;
        let claim = Claim::take(records, READER, Stream::Commands, partition).await?;
        // What the former owner has left to end.
        service.timers.lower(partition, Timestamp::MIN);
        tokio::select! {
            ended = service.read(held, claim) => ended,
            never = service.marks.announce(&*service.signals, partition) => match never {},
        }
    }

    fn failed(&self, _: Partition, _: &Error) {
        self.0.metrics.restarts.inc();
    }
}

impl Service {
    async fn read(&self, held: &Held, mut claim: Claim) -> Result<()> {
        let partition = held.partition();
        let resumed = claim.resume(&*self.log, Stream::Commands, self.config.partitions).await?;
        if let Some(lost) = &resumed.lost {
            tracing::error!(%partition, lost, "the log of commands has lost what it had accepted");
        }
        let mut progress = resumed.progress;
        self.marks.adopt(resumed.generations);
        let mut reader = self.log.read_from(Stream::Commands, partition, resumed.from).await?;
        held.works();
        let mut recorded_at = Instant::now();
        loop {
            let batch = tokio::select! {
                () = held.stop().cancelled() => break,
                batch = reader.next(READ_MAX, READ_WAIT) => batch?,
            };
            if batch.records.is_empty() {
                progress.idle_through(self.marks.step(&progress, batch.end)?, batch.end);
                self.copied(partition, &progress);
                if progress != *claim.progress() && recorded_at.elapsed() >= IDLE_RECORD_EVERY {
                    claim.advance(progress.clone(), Vec::new()).await?;
                    recorded_at = Instant::now();
                }
                continue;
            }
            self.take(partition, &batch, &mut progress).await?;
            claim.advance(progress.clone(), Vec::new()).await?;
            recorded_at = Instant::now();
        }
        if progress == *claim.progress() { Ok(()) } else { claim.advance(progress, Vec::new()).await }
    }

    async fn take(&self, partition: Partition, batch: &Batch, progress: &mut Progress) -> Result<()> {
        self.copy(partition, &batch.records).await?;
        for record in &batch.records {
            let generation = self.marks.step(progress, record.sequence)?;
            progress.passed(generation, record.sequence, record.id);
        }
        self.copied(partition, progress);
        Ok(())
    }

    /// Tells how far a partition is in the store.
    fn copied(&self, partition: Partition, progress: &Progress) {
        let mark = Mark { generation: progress.generation, sequence: progress.sequence };
        self.marks.advance(partition, mark);
    }
}
