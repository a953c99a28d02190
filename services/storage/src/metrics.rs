//! What storage counts.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use weir_core::{Partition, Result};
use weir_metrics::{Lag, Registrar, Sampled, buckets};
use weir_runtime::trim::TrimMetrics;

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
    /// How long a checkpoint took, from its freeze until it was recorded.
    pub(crate) checkpoint: Histogram,
    /// From the arrival of a reading until it can be read.
    pub(crate) freshness: Histogram,
    /// Frames of the stream that a partition's owner has not reached.
    pub(crate) lag: IntGaugeVec,
    /// The same in time.
    pub(crate) behind: Lag,
    /// Whether this replica works at a partition.
    pub(crate) owned: Sampled,
    /// How far the stream of readings was trimmed.
    pub(crate) trim: TrimMetrics,
    /// What owners use.
    pub(crate) writer: Writer,
    /// Calls by method (`query`, `aggregate`, `latest`, `tail`, `rules`).
    pub(crate) queries: IntCounterVec,
    /// Rows that calls read.
    pub(crate) rows_read: IntCounter,
    /// Bytes of rows that calls read.
    pub(crate) bytes_read: IntCounter,
    /// Queries under way.
    pub(crate) running: Sampled,
    /// Queries and tails that were refused because their tenant has too many.
    pub(crate) refused: Sampled,
    /// Open live tails.
    pub(crate) tails: IntGauge,
    /// Live tails ended because their reader was slow.
    pub(crate) tails_slow: IntCounter,
}

/// What owners use.
pub(crate) struct Writer {
    /// Batches that are being written.
    pub(crate) slots: Sampled,
    pub(crate) slots_max: IntGauge,
    /// Devices in memory, by partition; one with many buckets counts as several.
    pub(crate) devices: IntGaugeVec,
    pub(crate) devices_max: IntGauge,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// `Internal` where one is registered already.
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        Self::register(&Registrar::new(registry))
    }

    /// As [`Metrics::new`], through a registrar that remembers them.
    ///
    /// # Errors
    /// As [`Metrics::new`].
    pub(crate) fn register(to: &Registrar<'_>) -> Result<Self> {
        Ok(Self {
            rows: to.counter("weir_storage_rows_written_total", "rows written; a re-read counts again")?,
            frames: to.counter("weir_storage_frames_written_total", "frames written; a re-read counts again")?,
            poison: to.counter("weir_storage_poison_frames_total", "frames that could not be decoded")?,
            losses: to
                .counter("weir_storage_log_losses_total", "times that a log was found to have lost frames")?,
            restarts: to.counter(
                "weir_storage_owner_restarts_total",
                "times that an owner began anew after a failure",
            )?,
            checkpoint: to.histogram(
                "weir_storage_checkpoint_seconds",
                "from the freeze of a checkpoint until it is recorded: what was written meanwhile is read again after a \
                 crash",
                &buckets::FRESHNESS,
            )?,
            freshness: to.histogram(
                "weir_storage_freshness_seconds",
                "from the arrival of a message at the edge until a query finds it; a re-read counts again",
                &buckets::FRESHNESS,
            )?,
            lag: to.gauges(
                "weir_storage_lag_frames",
                "frames of the stream that a partition's owner has not reached",
                &["partition"],
            )?,
            behind: Lag::new(to, "storage")?,
            owned: to.sampled_by(
                "weir_storage_partition_owned",
                "1 where this replica writes a partition, else 0",
                "partition",
            )?,
            trim: TrimMetrics::new(to, "storage")?,
            writer: Writer::register(to)?,
            queries: to.counters_of(
                "weir_storage_queries_total",
                "calls by method",
                "method",
                &["query", "aggregate", "latest", "tail", "rules"],
            )?,
            rows_read: to.counter("weir_storage_query_rows_read_total", "rows that calls read")?,
            bytes_read: to.counter("weir_storage_query_bytes_read_total", "bytes of rows that calls read")?,
            running: to.sampled("weir_storage_queries_running", "queries under way, of all tenants")?,
            refused: to.sampled_counter(
                "weir_storage_queries_refused_total",
                "queries and live tails refused because their tenant has as many as it may",
            )?,
            tails: to.gauge("weir_storage_tails", "open live tails")?,
            tails_slow: to
                .counter("weir_storage_tails_slow_total", "live tails ended because their reader was slow")?,
        })
    }

    /// Forgets a partition that is no longer this replica's: whoever owns it now tells.
    pub(crate) fn forget(&self, partition: Partition) {
        self.behind.forget(partition);
        let label = partition.to_string();
        for gauges in [&self.lag, &self.writer.devices] {
            let _ = gauges.remove_label_values(&[&label]); // one that is not there is not removed
        }
    }
}

impl Writer {
    fn register(to: &Registrar<'_>) -> Result<Self> {
        Ok(Self {
            slots: to
                .sampled("weir_storage_writer_slots_used", "batches that are decoded or being written")?,
            slots_max: to
                .gauge("weir_storage_writer_slots_max", "batches that may be decoded or written at a time")?,
            devices: to.gauges(
                "weir_storage_devices_cached",
                "devices that a partition's owner has in memory; one with many buckets counts as several",
                &["partition"],
            )?,
            devices_max: to.gauge(
                "weir_storage_devices_cached_max",
                "devices that the owner of one partition keeps in memory",
            )?,
        })
    }
}
