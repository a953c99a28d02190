//! Registering, and remembering what was registered.

use std::cell::RefCell;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
};
use weir_core::{Error, Result};

use crate::Sampled;

/// What kind of metric one is, as Prometheus knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises; 0 after a restart.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts of observations by size.
    Histogram,
}

impl Kind {
    /// The name in the exposition format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric, as the inventory lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// `weir_<component>_<name>_<unit>[_total]`.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Its labels, besides those that whoever scrapes adds.
    pub labels: Vec<String>,
    /// What it means.
    pub help: String,
}

/// Registers metrics into a registry, and knows which. For as long as a component makes its handles.
pub struct Registrar<'a> {
    registry: &'a Registry,
    told: RefCell<Vec<Description>>,
}

impl<'a> Registrar<'a> {
    /// Registers into `registry`.
    pub fn new(registry: &'a Registry) -> Self {
        Self { registry, told: RefCell::default() }
    }

    /// Everything that was registered through this one, in order.
    pub fn descriptions(self) -> Vec<Description> {
        self.told.into_inner()
    }

    /// A count.
    ///
    /// # Errors
    /// `Internal`, as of every method here, where the name is registered already or is none: a defect.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        self.add(Kind::Counter, name, IntCounter::new(name, help))
    }

    /// A count by labels.
    ///
    /// # Errors
    /// As [`Registrar::counter`].
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.add(Kind::Counter, name, IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// A count by one label whose values are known: each is there from the start, so that its first event is a rise.
    ///
    /// # Errors
    /// As [`Registrar::counter`].
    pub fn counters_of(&self, name: &str, help: &str, label: &str, values: &[&str]) -> Result<IntCounterVec> {
        let counters = self.counters(name, help, &[label])?;
        for value in values {
            drop(counters.with_label_values(&[value]));
        }
        Ok(counters)
    }

    /// A level.
    ///
    /// # Errors
    /// As [`Registrar::counter`].
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge> {
        self.add(Kind::Gauge, name, IntGauge::new(name, help))
    }

    /// A level by labels.
    ///
    /// # Errors
    /// As [`Registrar::counter`].
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        self.add(Kind::Gauge, name, IntGaugeVec::new(Opts::new(name, help), labels))
    }

    /// A level that is no whole number.
    ///
    /// # Errors
    /// As [`Registrar::counter`].
    pub fn real_gauge(&self, name: &str, help: &str) -> Result<Gauge> {
        self.add(Kind::Gauge, name, Gauge::new(name, help))
    }

    /// A level that is no whole number, by labels.
    ///
    /// # Errors
    /// As [`Registrar::counter`].
    pub fn real_gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec> {
        self.add(Kind::Gauge, name, GaugeVec::new(Opts::new(name, help), labels))
    }

    /// How observations are distributed.
    ///
    /// # Errors
    /// As [`Registrar::counter`].
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(Kind::Histogram, name, Histogram::with_opts(options))
    }

    /// How observations are distributed, by labels.
    ///
    /// # Errors
    /// As [`Registrar::counter`].
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(Kind::Histogram, name, HistogramVec::new(options, labels))
    }

    /// A level that is read where it stands at each scrape; nothing is told before [`Sampled::by`] says how.
    ///
    /// # Errors
    /// As [`Registrar::counter`].
    pub fn sampled(&self, name: &str, help: &str) -> Result<Sampled> {
        self.add(Kind::Gauge, name, Sampled::new(Kind::Gauge, name, help, None))
    }

    /// As [`Registrar::sampled`], by one label.
    ///
    /// # Errors
    /// As [`Registrar::counter`].
    pub fn sampled_by(&self, name: &str, help: &str, label: &str) -> Result<Sampled> {
        self.add(Kind::Gauge, name, Sampled::new(Kind::Gauge, name, help, Some(label)))
    }

    /// A count that stands somewhere already, read at each scrape.
    ///
    /// # Errors
    /// As [`Registrar::counter`].
    pub fn sampled_counter(&self, name: &str, help: &str) -> Result<Sampled> {
        self.add(Kind::Counter, name, Sampled::new(Kind::Counter, name, help, None))
    }

    /// Registers whatever collects one kind of metric.
    ///
    /// # Errors
    /// As [`Registrar::counter`].
    pub fn add<C: Collector + Clone + 'static>(
        &self,
        kind: Kind,
        name: &str,
        made: prometheus::Result<C>,
    ) -> Result<C> {
        let failed =
            |source| Error::internal(format!("the metric {name} cannot be registered")).with_source(source);
        let collector = made.map_err(failed)?;
        self.registry.register(Box::new(collector.clone())).map_err(failed)?;
        self.tell(|_| kind, &collector.desc());
        Ok(collector)
    }

    /// Registers a collector of several metrics; those whose name ends in `_total` are counters, the others gauges.
    ///
    /// # Errors
    /// `AlreadyReg` where one of them is registered already.
    pub fn collector(&self, collector: Box<dyn Collector>) -> prometheus::Result<()> {
        let kind = |name: &str| if name.ends_with("_total") { Kind::Counter } else { Kind::Gauge };
        self.tell(kind, &collector.desc());
        self.registry.register(collector)
    }

    fn tell(&self, kind: impl Fn(&str) -> Kind, descriptions: &[&Desc]) {
        self.told.borrow_mut().extend(descriptions.iter().map(|desc| {
            Description {
                name: desc.fq_name.clone(),
                kind: kind(&desc.fq_name),
                labels: desc
                    .const_label_pairs
                    .iter()
                    .map(|pair| pair.name().to_owned())
                    .chain(desc.variable_labels.iter().cloned())
                    .collect(),
                help: desc.help.clone(),
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_registered_is_described_also_before_it_has_a_value() {
        let registry = Registry::new();
        let registrar = Registrar::new(&registry);
        registrar.counters("weir_a_things_total", "things", &["kind"]).unwrap();
        registrar.sampled_by("weir_a_level_bytes", "a level", "partition").unwrap();
        let told = registrar.descriptions();
        assert_eq!(told.len(), 2);
        assert_eq!((told[0].name.as_str(), told[0].kind), ("weir_a_things_total", Kind::Counter));
        assert_eq!(told[1].labels, ["partition"]);
        assert!(registry.gather().is_empty());
    }

    #[test]
    fn a_name_is_registered_once() {
        let registry = Registry::new();
        let registrar = Registrar::new(&registry);
        registrar.counter("weir_a_things_total", "things").unwrap();
        let error = registrar.gauge("weir_a_things_total", "things").unwrap_err();
        assert!(error.to_string().contains("weir_a_things_total"));
    }
}
