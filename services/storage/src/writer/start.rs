//! Claiming a partition, and finding where to begin.

use std::sync::Arc;

use weir_core::{
    Partition, Result, Stream,
    port::TelemetryBatch,
    progress::{Claim, Progress, resume},
};

use super::{READER, Shared, checkpoint::Checkpoints};
use crate::marks::Mark;

/// A partition that is owned, and where to go on.
pub(super) struct Claimed {
    pub(super) claim: Claim,
    pub(super) checkpoints: Checkpoints,
    pub(super) progress: Progress,
    pub(super) from: u64,
    /// What the store had possibly lost before this claim wrote anything.
    pub(super) losses: u64,
}

impl Claimed {
    /// What can be read already.
    pub(super) fn mark(&self) -> Mark {
        Mark { generation: self.progress.generation, sequence: self.progress.sequence }
    }

    /// Asks the log, claims a partition, brings the `buckets` table to where its progress stands, and checks that the log is the same.
    ///
    /// # Errors
    /// `FailedPrecondition` for a changed partition count; `Aborted` where another claims it; those of store and log.
    pub(super) async fn take(shared: &Shared, partition: Partition) -> Result<Self> {
        let Shared { records, log, marks, metrics, .. } = shared;
        // A log that does not answer here may well answer the present owner: it is not taken from that one in vain.
        log.identity(Stream::Readings).await?;
        let losses = shared.store.losses(); // before the counts are written: they may be lost as well
        let claim = Claim::take(Arc::clone(records), READER, Stream::Readings, partition).await?;
        let (checkpoints, buckets) = Checkpoints::open(&claim).await?;
        if !buckets.is_empty() {
            shared.store.write(TelemetryBatch { buckets, ..TelemetryBatch::default() }).await?;
        }
        let mut progress = claim.progress().clone();
        let found = resume(&**records, &**log, Stream::Readings, marks.partitions(), &progress).await?;
        let mut from = found.from;
        if let Some(lost) = &found.lost {
            metrics.losses.inc();
            tracing::error!(%partition, lost, "the log has lost frames");
            progress.recent.retain(|(sequence, _)| *sequence < from);
            progress.sequence = from.saturating_sub(1);
            progress.generation = found.generations.of(from);
        }
        let first = log.bounds(Stream::Readings).await?.first;
        if first > from {
            metrics.losses.inc();
            tracing::error!(%partition, from, first, "frames may have been trimmed before they were stored");
            from = first;
        }
        marks.adopt(found.generations);
        let claimed = Self { claim, checkpoints, progress, from, losses };
        marks.advance(partition, claimed.mark());
        Ok(claimed)
    }
}
