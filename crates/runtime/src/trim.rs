//! Trimming a stream: never past what any of its readers has dealt with, nor into what is kept.

use std::time::Duration;

use prometheus::{IntGauge, IntGaugeVec};
use weir_core::{
    Clock, Partition, Result, Stream,
    port::{Log, Records},
    progress::{Generations, all_progress},
};
use weir_metrics::Registrar;

/// What came of trimming once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trimmed {
    /// Up to where the stream was trimmed; 0 where nothing may go.
    pub through: u64,
    /// Which reader, at which partition, keeps it from going further; none where only `keep` does.
    pub blocker: Option<(String, Partition)>,
}

/// How far a service trimmed its stream, and what keeps it from going further.
pub struct TrimMetrics {
    through: IntGauge,
    blocker: IntGaugeVec,
}

impl TrimMetrics {
    /// Registers those of `component`.
    ///
    /// # Errors
    /// As of [`Registrar`].
    pub fn new(registrar: &Registrar<'_>, component: &str) -> Result<Self> {
        Ok(Self {
            through: registrar.gauge(
                &format!("weir_{component}_trimmed_sequence"),
                "up to where the stream was trimmed last, by the replica that trims",
            )?,
            blocker: registrar.gauges(
                &format!("weir_{component}_trim_blocker"),
                "1 for what keeps the stream from being trimmed further: a reader (by its slowest partition), or keep \
                 (log.keep alone)",
                &["by", "partition"],
            )?,
        })
    }

    /// Tells nothing more of what blocks: another replica trims.
    pub fn leave(&self) {
        self.blocker.reset();
    }

    /// Tells of the last trim.
    pub fn tell(&self, trimmed: &Trimmed) {
        self.through.set(i64::try_from(trimmed.through).unwrap_or(i64::MAX));
        self.blocker.reset();
        let (by, partition) = match &trimmed.blocker {
            Some((reader, partition)) => (reader.as_str(), partition.to_string()),
            None => ("keep", String::new()),
        };
        self.blocker.with_label_values(&[by, &partition]).set(1);
    }
}

/// Trims `stream` once: through the lowest progress of `readers` over all `partitions`, and no younger than `keep` before
/// now. Returns how far, and what blocks.
///
/// A progress over a log that fell back or was made anew says nothing of the log that is there: it blocks until its
/// reader has looked at that one.
///
/// # Errors
/// `FailedPrecondition` for a changed partition count; `Unavailable` of store or log.
pub async fn trim_once(
    log: &dyn Log,
    records: &dyn Records,
    stream: Stream,
    readers: &[&str],
    partitions: u16,
    keep: Duration,
    clock: &dyn Clock,
) -> Result<Trimmed> {
    let generations = Generations::open(records, log, stream, partitions).await?;
    let progress = all_progress(records, stream, readers, partitions).await?;
    let reached = |generation, sequence| if generations.holds(generation, sequence) { sequence } else { 0 };
    let lowest = progress
        .into_iter()
        .map(|of| (reached(of.progress.generation, of.progress.sequence), (of.reader, of.partition)))
        .min_by_key(|(sequence, _)| *sequence);
    let old = log.sequence_before(stream, clock.now().saturating_sub(keep)).await?;
    let (through, blocker) = match lowest {
        Some((sequence, reader)) if sequence < old => (sequence, Some(reader)),
        Some(_) => (old, None),
        None => (0, None),
    };
    if through > 0 {
        log.trim(stream, through).await?;
    }
    Ok(Trimmed { through, blocker })
}
