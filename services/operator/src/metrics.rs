//! What the operator counts.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use weir_core::{Error, Result};

/// The operator's metrics.
pub(crate) struct Metrics {
    reconciliations: IntCounterVec,
    leader: IntGauge,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// `Internal` where they are there already.
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let failed = |source| Error::internal("a metric cannot be registered").with_source(source);
        let reconciliations = IntCounterVec::new(
            Opts::new("weir_operator_reconciliations_total", "Reconciliations by outcome: ok, failed."),
            &["outcome"],
        )
        .map_err(failed)?;
        let leader =
            IntGauge::new("weir_operator_leader", "1 where this one holds the lease.").map_err(failed)?;
        registry.register(Box::new(reconciliations.clone())).map_err(failed)?;
        registry.register(Box::new(leader.clone())).map_err(failed)?;
        Ok(Self { reconciliations, leader })
    }

    pub(crate) fn reconciled(&self, is_ok: bool) {
        self.reconciliations.with_label_values(&[if is_ok { "ok" } else { "failed" }]).inc();
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }
}
