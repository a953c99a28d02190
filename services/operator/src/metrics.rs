//! What the operator counts.

use prometheus::{Histogram, IntCounterVec, IntGauge, Registry};
use weir_core::Result;
use weir_metrics::{Registrar, buckets};

/// The operator's metrics.
pub(crate) struct Metrics {
    reconciliations: IntCounterVec,
    seconds: Histogram,
    leader: IntGauge,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// `Internal` where they are there already.
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        Self::register(&Registrar::new(registry))
    }

    /// As [`Metrics::new`], through a registrar that remembers them.
    ///
    /// # Errors
    /// As [`Metrics::new`].
    pub(crate) fn register(to: &Registrar<'_>) -> Result<Self> {
        Ok(Self {
            reconciliations: to.counters_of(
                "weir_operator_reconciliations_total",
                "reconciliations by outcome: ok, failed",
                "outcome",
                &["ok", "failed"],
            )?,
            seconds: to.histogram(
                "weir_operator_reconciliation_seconds",
                "how long a reconciliation took",
                &buckets::FRESHNESS,
            )?,
            leader: to.gauge("weir_operator_leader", "1 where this one holds the lease")?,
        })
    }

    pub(crate) fn reconciled(&self, is_ok: bool, seconds: f64) {
        self.reconciliations.with_label_values(&[if is_ok { "ok" } else { "failed" }]).inc();
        self.seconds.observe(seconds);
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }
}
