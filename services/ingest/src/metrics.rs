//! What the edge counts.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use weir_core::{Error, Result};

/// What the edge counts. Labels are bounded: protocols are `mqtt`, `http`, `grpc`; reasons are those of our errors.
pub(crate) struct Metrics {
    /// Open connections by protocol.
    pub(crate) connections: IntGaugeVec,
    /// Readings that the log has, by protocol.
    pub(crate) readings: IntCounterVec,
    /// Messages that were refused, by protocol and reason.
    pub(crate) refused: IntCounterVec,
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
        Ok(Self {
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
