//! Claiming partitions, and finding where to begin.

use std::sync::Arc;

use futures::future::try_join_all;
use weir_core::{
    Partition, Result, Stream,
    port::{Log, Records, TelemetryBatch, TelemetryStore},
    progress::{Claim, Generations, Progress, resume},
};

use super::{READER, checkpoint::Checkpoints};
use crate::{marks::Mark, metrics::Metrics};

/// The engines that an owner claims on.
pub(crate) struct Engines<'a> {
    pub(crate) log: &'a dyn Log,
    pub(crate) records: &'a Arc<dyn Records>,
    pub(crate) store: &'a dyn TelemetryStore,
    pub(crate) metrics: &'a Metrics,
    pub(crate) partitions: u16,
}

/// A partition that is owned, and where to go on.
pub(crate) struct Claimed {
    pub(super) claim: Claim,
    pub(super) checkpoints: Checkpoints,
    pub(super) progress: Progress,
    pub(super) from: u64,
    pub(crate) generations: Generations,
}

impl Claimed {
    /// What can be read already.
    pub(crate) fn mark(&self) -> Mark {
        Mark { generation: self.progress.generation, sequence: self.progress.sequence }
    }

    /// Claims a partition, brings the `buckets` table to where its progress stands, and checks the log.
    ///
    /// # Errors
    /// `FailedPrecondition` for a changed partition count; those of store and log.
    pub(super) async fn take(engines: &Engines<'_>, partition: Partition) -> Result<Self> {
        let mut claim = Claim::take(Arc::clone(engines.records), READER, Stream::Readings, partition).await?;
        let (checkpoints, buckets) = Checkpoints::open(&claim).await?;
        if !buckets.is_empty() {
            engines.store.write(TelemetryBatch { buckets, ..TelemetryBatch::default() }).await?;
        }
        checkpoints.sweep(&mut claim).await?;
        let mut progress = claim.progress().clone();
        let found =
            resume(&**engines.records, engines.log, Stream::Readings, engines.partitions, &progress).await?;
        let mut from = found.from;
        if let Some(lost) = &found.lost {
            engines.metrics.losses.inc();
            tracing::error!(%partition, lost, "the log has lost frames");
            progress.recent.retain(|(sequence, _)| *sequence < from);
            progress.sequence = from.saturating_sub(1);
            progress.generation = found.generations.of(from);
        }
        let first = engines.log.bounds(Stream::Readings).await?.first;
        if first > from {
            engines.metrics.losses.inc();
            tracing::error!(%partition, from, first, "frames may have been trimmed before they were stored");
            from = first;
        }
        Ok(Self { claim, checkpoints, progress, from, generations: found.generations })
    }
}

/// Claims every partition at once, and gives them the newest generations that any of them found.
///
/// # Errors
/// What the first that fails says.
pub(crate) async fn claim_all(engines: &Engines<'_>) -> Result<(Vec<Claimed>, Generations)> {
    let claims = (0..engines.partitions).map(|partition| Claimed::take(engines, Partition(partition)));
    let claimed = try_join_all(claims).await?;
    let generations =
        Generations::open(&**engines.records, engines.log, Stream::Readings, engines.partitions).await?;
    Ok((claimed, generations))
}
