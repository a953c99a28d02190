//! What the registry counts.

use prometheus::{IntCounterVec, IntGaugeVec, Registry};
use weir_core::Result;
use weir_metrics::{Registrar, Sampled};

/// Counters of the registry.
pub(crate) struct Metrics {
    authentications: IntCounterVec,
    lookups: IntCounterVec,
    /// Entries of each cache.
    pub(crate) cached: Sampled,
    cached_max: IntGaugeVec,
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
            authentications: to.counters_of(
                "weir_registry_authentications_total",
                "tokens shown, by result: ok, refused, failed",
                "result",
                &["ok", "refused", "failed"],
            )?,
            lookups: to.counters_of(
                "weir_registry_lookups_total",
                "lookups of the call port, by where they were answered: cache, store",
                "from",
                &["cache", "store"],
            )?,
            cached: to.sampled_by("weir_registry_cache_entries", "answers that are remembered", "cache")?,
            cached_max: to.gauges(
                "weir_registry_cache_entries_max",
                "answers that may be remembered",
                &["cache"],
            )?,
        })
    }

    pub(crate) fn authenticated(&self, result: &'static str) {
        self.authentications.with_label_values(&[result]).inc();
    }

    pub(crate) fn looked_up(&self, from: &'static str) {
        self.lookups.with_label_values(&[from]).inc();
    }

    /// How much each cache may hold.
    pub(crate) fn may_cache(&self, caches: &[(&str, usize)]) {
        for (cache, max) in caches {
            let max = i64::try_from(*max).unwrap_or(i64::MAX);
            self.cached_max.with_label_values(&[cache]).set(max);
        }
    }
}
