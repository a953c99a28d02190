//! What is read at a scrape.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use prometheus::{
    CounterVec, GaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::Kind;

type Read = Box<dyn Fn() -> Vec<(String, f64)> + Send + Sync>;

/// A metric whose value stands in some structure and is read at each scrape. Cheap to clone.
#[derive(Clone)]
pub struct Sampled(Arc<Inner>);

struct Inner {
    family: Family,
    labelled: bool,
    read: OnceLock<Read>,
    /// One scrape at a time fills the family.
    filling: Mutex<()>,
}

enum Family {
    Gauge(GaugeVec),
    Counter(CounterVec),
}

impl Sampled {
    pub(crate) fn new(kind: Kind, name: &str, help: &str, label: Option<&str>) -> prometheus::Result<Self> {
        let (options, labels) = (Opts::new(name, help), label.as_slice());
        let family = match kind {
            Kind::Counter => Family::Counter(CounterVec::new(options, labels)?),
            Kind::Gauge | Kind::Histogram => Family::Gauge(GaugeVec::new(options, labels)?),
        };
        let labelled = label.is_some();
        Ok(Self(Arc::new(Inner { family, labelled, read: OnceLock::new(), filling: Mutex::new(()) })))
    }

    /// Says how it is read; the first call counts. What `read` holds lives as long as the registry: let it hold leaves.
    pub fn by(&self, read: impl Fn() -> f64 + Send + Sync + 'static) {
        self.by_label(move || vec![(String::new(), read())]);
    }

    /// Says how it is read, by its label. A value of the label that is not given is not told.
    pub fn by_label(&self, read: impl Fn() -> Vec<(String, f64)> + Send + Sync + 'static) {
        drop(self.0.read.set(Box::new(read)));
    }
}

impl Collector for Sampled {
    fn desc(&self) -> Vec<&Desc> {
        match &self.0.family {
            Family::Gauge(gauges) => gauges.desc(),
            Family::Counter(counters) => counters.desc(),
        }
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(read) = self.0.read.get() else { return Vec::new() };
        let samples = read();
        let label = |name: &'_ String| if self.0.labelled { vec![name.clone()] } else { Vec::new() };
        let _one = self.0.filling.lock();
        match &self.0.family {
            Family::Gauge(gauges) => {
                gauges.reset();
                samples.iter().for_each(|(name, value)| gauges.with_label_values(&label(name)).set(*value));
                gauges.collect()
            }
            Family::Counter(counters) => {
                counters.reset();
                for (name, value) in &samples {
                    counters.with_label_values(&label(name)).inc_by(value.max(0.0));
                }
                counters.collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use crate::Registrar;

    #[test]
    fn a_label_that_is_no_longer_given_is_no_longer_told() {
        let registry = Registry::new();
        let level =
            Registrar::new(&registry).sampled_by("weir_a_level_bytes", "a level", "partition").unwrap();
        let text = || TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert_eq!(text(), "");
        let asked = std::sync::atomic::AtomicU64::new(0);
        level.by_label(move || {
            let partition = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            vec![(partition.to_string(), 7.0)]
        });
        assert!(text().contains("weir_a_level_bytes{partition=\"0\"} 7"));
        let second = text();
        assert!(second.contains("{partition=\"1\"} 7") && !second.contains("\"0\""));
    }
}
