//! What the registry counts.

use prometheus::{IntCounterVec, Opts, Registry};
use weir_core::{Error, Result};

/// Counters of the registry.
pub(crate) struct Metrics {
    authentications: IntCounterVec,
    lookups: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let counter = |name: &str, help: &str, label: &str| -> prometheus::Result<IntCounterVec> {
            let counter = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let make = || -> prometheus::Result<Self> {
            Ok(Self {
                authentications: counter(
                    "weir_registry_authentications_total",
                    "tokens shown, by result: ok, refused, failed",
                    "result",
                )?,
                lookups: counter(
                    "weir_registry_lookups_total",
                    "lookups of the call port, by where they were answered: cache, store",
                    "from",
                )?,
            })
        };
        make().map_err(|source| Error::internal("cannot register a metric of registry").with_source(source))
    }

    pub(crate) fn authenticated(&self, result: &'static str) {
        self.authentications.with_label_values(&[result]).inc();
    }

    pub(crate) fn looked_up(&self, from: &'static str) {
        self.lookups.with_label_values(&[from]).inc();
    }
}
