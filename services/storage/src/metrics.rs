//! What storage counts.

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, GenericCounter, GenericGauge},
};
use weir_core::{Error, Result};

/// What storage counts. Labels are bounded: partitions are a configured few, kinds are listed here.
pub(crate) struct Metrics {
    /// Rows written; a re-read counts again.
    pub(crate) rows: IntCounter,
    /// Frames written; a re-read counts again.
    pub(crate) frames: IntCounter,
    /// Frames that could not be decoded and were kept aside.
    pub(crate) poison: IntCounter,
    /// How often a log was found to have lost frames.
    pub(crate) losses: IntCounter,
    /// How often an owner failed and began anew from its progress.
    pub(crate) restarts: IntCounter,
    /// Checkpoints recorded.
    pub(crate) checkpoints: IntCounter,
    /// Frames of the stream that a partition's owner has not reached.
    pub(crate) lag: IntGaugeVec,
    /// Up to where the stream of readings was trimmed.
    pub(crate) trimmed: IntGauge,
    /// Calls by method (`query`, `aggregate`, `latest`, `tail`, `rules`, `promql`).
    pub(crate) queries: IntCounterVec,
    /// Rows that calls read.
    pub(crate) rows_read: IntCounter,
    /// Bytes of rows that calls read.
    pub(crate) bytes_read: IntCounter,
    /// Open live tails.
    pub(crate) tails: IntGauge,
    /// Live tails ended because their reader was slow.
    pub(crate) tails_slow: IntCounter,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// `Internal` where one is registered already.
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let counter = |name: &str, help: &str| register(registry, GenericCounter::new(name, help));
        Ok(Self {
            rows: counter("weir_storage_rows_written_total", "rows written; a re-read counts again")?,
            frames: counter("weir_storage_frames_written_total", "frames written; a re-read counts again")?,
            poison: counter("weir_storage_poison_frames_total", "frames that could not be decoded")?,
            losses: counter(
                "weir_storage_log_losses_total",
                "times that a log was found to have lost frames",
            )?,
            restarts: counter(
                "weir_storage_owner_restarts_total",
                "times that an owner began anew after a failure",
            )?,
            checkpoints: counter("weir_storage_checkpoints_total", "checkpoints recorded")?,
            lag: register(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "weir_storage_lag_frames",
                        "frames of the stream that a partition's owner has not reached",
                    ),
                    &["partition"],
                ),
            )?,
            trimmed: register(
                registry,
                GenericGauge::new(
                    "weir_storage_trimmed_sequence",
                    "up to where the stream of readings was trimmed",
                ),
            )?,
            queries: register(
                registry,
                IntCounterVec::new(Opts::new("weir_storage_queries_total", "calls by method"), &["method"]),
            )?,
            rows_read: counter("weir_storage_query_rows_read_total", "rows that calls read")?,
            bytes_read: counter("weir_storage_query_bytes_read_total", "bytes of rows that calls read")?,
            tails: register(registry, GenericGauge::new("weir_storage_tails", "open live tails"))?,
            tails_slow: counter(
                "weir_storage_tails_slow_total",
                "live tails ended because their reader was slow",
            )?,
        })
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> Result<C> {
    let failed = |source| Error::internal("cannot register a metric of storage").with_source(source);
    let collector = made.map_err(failed)?;
    registry.register(Box::new(collector.clone())).map_err(failed)?;
    Ok(collector)
}
