//! What the edge counts.

use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};
use weir_core::{Error, Result};

/// What the edge counts. Labels are bounded: protocols are `mqtt`, `http`, `grpc`; reasons are those of our errors.
pub(crate) struct Metrics {
    /// Open connections by protocol.
    pub(crate) connections: IntGaugeVec,
    /// Readings that the log has, by protocol.
    pub(crate) readings: IntCounterVec,
    /// Messages that were refused, by protocol and reason.
    pub(crate) refused: IntCounterVec,
    /// Frames that the log has.
    pub(crate) frames: IntCounter,
    /// Their bytes.
    pub(crate) frame_bytes: IntCounter,
    /// Their readings.
    pub(crate) frame_readings: IntCounter,
    /// Frames that were published again because the log was away.
    pub(crate) publish_retries: IntCounter,
    /// How long the log takes to make a frame durable.
    pub(crate) publish_seconds: Histogram,
    /// How full the windows are: what waits for the log, of what may.
    pub(crate) window_used: Gauge,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// `Internal` where one is registered already.
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let failed = |source| Error::internal("cannot register a metric").with_source(source);
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels).map_err(failed)?;
            registry.register(Box::new(vec.clone())).map_err(failed)?;
            Ok::<_, Error>(vec)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntGaugeVec::new(Opts::new(name, help), labels).map_err(failed)?;
            registry.register(Box::new(vec.clone())).map_err(failed)?;
            Ok::<_, Error>(vec)
        };
        let single = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help).map_err(failed)?;
            registry.register(Box::new(counter.clone())).map_err(failed)?;
            Ok::<_, Error>(counter)
        };
        let publish = HistogramOpts::new(
            "weir_ingest_publish_seconds",
            "how long the log takes to make a frame durable, with retries",
        );
        let publish_seconds = Histogram::with_opts(publish).map_err(failed)?;
        registry.register(Box::new(publish_seconds.clone())).map_err(failed)?;
        let window_used = Gauge::new(
            "weir_ingest_window_used_ratio",
            "what waits for the log, as a share of what may wait",
        )
        .map_err(failed)?;
        registry.register(Box::new(window_used.clone())).map_err(failed)?;
        Ok(Self {
            window_used,
            frames: single("weir_ingest_frames_total", "frames that the log has")?,
            frame_bytes: single("weir_ingest_frame_bytes_total", "bytes of frames that the log has")?,
            frame_readings: single(
                "weir_ingest_frame_readings_total",
                "readings of frames that the log has",
            )?,
            publish_retries: single("weir_ingest_publish_retries_total", "frames published again")?,
            publish_seconds,
            connections: gauge("weir_ingest_connections", "open connections", &["protocol"])?,
            readings: counter("weir_ingest_readings_total", "readings that the log has", &["protocol"])?,
            refused: counter(
                "weir_ingest_refused_total",
                "messages that were refused",
                &["protocol", "reason"],
            )?,
        })
    }
}
