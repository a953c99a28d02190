//! Trimming a stream: never past what any of its readers has dealt with, nor into what is kept.

use std::time::Duration;

use weir_core::{
    Clock, Result, Stream,
    port::{Log, Records},
    progress::{Generations, all_progress},
};

/// Trims `stream` once: through the lowest progress of `readers` over all `partitions`, and no younger than `keep` before
/// now. Returns the sequence up to which it was trimmed, 0 where nothing may go.
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
) -> Result<u64> {
    let generations = Generations::open(records, log, stream, partitions).await?;
    let progress = all_progress(records, stream, readers, partitions).await?;
    let lowest = progress
        .iter()
        .map(|reader| (reader.progress.generation, reader.progress.sequence))
        .map(|(generation, sequence)| if generations.holds(generation, sequence) { sequence } else { 0 })
        .min()
        .unwrap_or_default();
    let old = log.sequence_before(stream, clock.now().saturating_sub(keep)).await?;
    let through = lowest.min(old);
    if through > 0 {
        log.trim(stream, through).await?;
    }
    Ok(through)
}
