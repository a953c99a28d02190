//! What analytics counts.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};
use weir_core::{Error, Result};

/// Counters of analytics.
pub(crate) struct Metrics {
    /// Readings that rules were evaluated on.
    pub(crate) readings: IntCounter,
    /// Frames that rules were evaluated on; a re-read counts again.
    pub(crate) frames: IntCounter,
    /// Frames of the stream that a partition's owner has not reached.
    pub(crate) lag: IntGaugeVec,
    /// Frames that could not be decoded and were passed over.
    pub(crate) poison_frames: IntCounter,
    /// Times that an owner had to begin again from its checkpoint.
    pub(crate) restarts: IntCounter,
    /// How long a checkpoint took.
    pub(crate) checkpoint: Histogram,
    transitions: IntCounterVec,
    actions: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        Self::register(registry)
            .map_err(|source| Error::internal("cannot register a metric of analytics").with_source(source))
    }

    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let labelled = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let checkpoint = Histogram::with_opts(HistogramOpts::new(
            "weir_analytics_checkpoint_seconds",
            "time to record the state of a partition's rules",
        ))?;
        registry.register(Box::new(checkpoint.clone()))?;
        let lag = IntGaugeVec::new(
            Opts::new(
                "weir_analytics_lag_frames",
                "frames of the stream that a partition's owner has not reached",
            ),
            &["partition"],
        )?;
        registry.register(Box::new(lag.clone()))?;
        Ok(Self {
            lag,
            frames: counter("weir_analytics_frames_total", "frames that rules saw; a re-read counts again")?,
            readings: counter("weir_analytics_readings_total", "readings that rules saw")?,
            poison_frames: counter(
                "weir_analytics_poison_frames_total",
                "frames that could not be decoded and were passed over",
            )?,
            restarts: counter(
                "weir_analytics_owner_restarts_total",
                "times that the owner of a partition began again from its checkpoint",
            )?,
            checkpoint,
            transitions: labelled(
                "weir_analytics_transitions_total",
                "what happened with alarms: raised, escalated, acknowledged, cleared",
                &["kind"],
            )?,
            actions: labelled(
                "weir_analytics_action_attempts_total",
                "tries of actions, by kind (command, webhook) and result (done, retry, failed)",
                &["kind", "result"],
            )?,
        })
    }

    pub(crate) fn transition(&self, kind: &str) {
        self.transitions.with_label_values(&[kind]).inc();
    }

    pub(crate) fn attempted(&self, kind: &str, result: &str) {
        self.actions.with_label_values(&[kind, result]).inc();
    }
}
