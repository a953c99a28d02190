//! What analytics counts.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use weir_core::{Partition, Result};
use weir_metrics::{Lag, Registrar, Sampled, buckets};

/// Kinds of actions, as labels.
const ACTIONS: [&str; 2] = ["command", "webhook"];
/// What comes of a try of one.
const RESULTS: [&str; 3] = ["done", "retry", "failed"];

/// Counters of analytics.
pub(crate) struct Metrics {
    /// Readings that rules were evaluated on.
    pub(crate) readings: IntCounter,
    /// Frames that rules were evaluated on; a re-read counts again.
    pub(crate) frames: IntCounter,
    /// Frames of the stream that a partition's owner has not reached.
    pub(crate) lag: IntGaugeVec,
    /// The same in time.
    pub(crate) behind: Lag,
    /// Whether this replica works at a partition.
    pub(crate) owned: Sampled,
    /// Frames that could not be decoded and were passed over.
    pub(crate) poison_frames: IntCounter,
    /// Times that an owner had to begin again from its checkpoint.
    pub(crate) restarts: IntCounter,
    /// How long a checkpoint took.
    pub(crate) checkpoint: Histogram,
    /// Conditions of rules that were evaluated.
    pub(crate) evaluations: Sampled,
    /// Those of them that were unknown.
    pub(crate) unknown: Sampled,
    /// Open alarms, by partition.
    pub(crate) open: IntGaugeVec,
    /// Devices that are followed, by partition.
    pub(crate) devices: IntGaugeVec,
    /// What becomes of actions.
    pub(crate) actions: Actions,
    transitions: IntCounterVec,
}

/// What becomes of actions.
pub(crate) struct Actions {
    /// Actions that wait here, for their turn or for their next try.
    pub(crate) waiting: Sampled,
    /// Tries under way, by kind.
    pub(crate) trying: Sampled,
    pub(crate) trying_max: IntGauge,
    attempts: IntCounterVec,
    seconds: HistogramVec,
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
        const PARTITION: &[&str] = &["partition"];
        Ok(Self {
            lag: to.gauges(
                "weir_analytics_lag_frames",
                "frames of the stream that a partition's owner has not reached",
                PARTITION,
            )?,
            behind: Lag::new(to, "analytics")?,
            owned: to.sampled_by(
                "weir_analytics_partition_owned",
                "1 where this replica evaluates a partition, else 0",
                "partition",
            )?,
            frames: to.counter("weir_analytics_frames_total", "frames that rules saw; a re-read counts again")?,
            readings: to.counter("weir_analytics_readings_total", "readings that rules saw")?,
            poison_frames: to.counter(
                "weir_analytics_poison_frames_total",
                "frames that could not be decoded and were passed over",
            )?,
            restarts: to.counter(
                "weir_analytics_owner_restarts_total",
                "times that the owner of a partition began again from its checkpoint",
            )?,
            checkpoint: to.histogram(
                "weir_analytics_checkpoint_seconds",
                "time to record the state of a partition's rules",
                &buckets::LATENCY,
            )?,
            evaluations: to.sampled_counter(
                "weir_analytics_evaluations_total",
                "evaluations of a rule's condition, on a reading or on silence",
            )?,
            unknown: to.sampled_counter(
                "weir_analytics_evaluations_unknown_total",
                "evaluations whose result was unknown, such as for want of a metric: they fire nothing and clear nothing",
            )?,
            open: to.gauges(
                "weir_analytics_alarms_open",
                "open alarms, as of the last checkpoint of a partition",
                PARTITION,
            )?,
            devices: to.gauges(
                "weir_analytics_devices",
                "devices whose readings are followed, as of the last checkpoint of a partition",
                PARTITION,
            )?,
            transitions: to.counters_of(
                "weir_analytics_transitions_total",
                "what happened with alarms: raised, escalated, acknowledged, cleared",
                "kind",
                &["raised", "escalated", "acknowledged", "cleared"],
            )?,
            actions: Actions::register(to)?,
        })
    }

    pub(crate) fn transition(&self, kind: &str) {
        self.transitions.with_label_values(&[kind]).inc();
    }

    /// Tells what an owner has in memory.
    pub(crate) fn holds(&self, partition: Partition, open: usize, devices: usize) {
        let label = partition.to_string();
        for (gauges, count) in [(&self.open, open), (&self.devices, devices)] {
            gauges.with_label_values(&[&label]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Forgets a partition that is no longer this replica's: whoever owns it now tells.
    pub(crate) fn forget(&self, partition: Partition) {
        self.behind.forget(partition);
        let label = partition.to_string();
        for gauges in [&self.lag, &self.open, &self.devices] {
            let _ = gauges.remove_label_values(&[&label]); // one that is not there is not removed
        }
    }
}

impl Actions {
    fn register(to: &Registrar<'_>) -> Result<Self> {
        let attempts = to.counters(
            "weir_analytics_action_attempts_total",
            "tries of actions, by kind (command, webhook) and result (done, retry, failed: given up)",
            &["kind", "result"],
        )?;
        for kind in ACTIONS {
            RESULTS.iter().for_each(|result| drop(attempts.with_label_values(&[kind, result])));
        }
        Ok(Self {
            attempts,
            waiting: to.sampled(
                "weir_analytics_actions_waiting",
                "actions that wait for their turn or for their next try",
            )?,
            trying: to.sampled_by("weir_analytics_actions_running", "tries of actions under way", "kind")?,
            trying_max: to.gauge(
                "weir_analytics_actions_running_max",
                "tries of actions of one kind that may be under way",
            )?,
            seconds: to.histograms(
                "weir_analytics_action_seconds",
                "how long a try of an action took, by kind",
                &["kind"],
                &buckets::LATENCY,
            )?,
        })
    }

    /// A try ended so, after so many seconds.
    pub(crate) fn attempted(&self, kind: &str, result: &str, seconds: f64) {
        self.attempts.with_label_values(&[kind, result]).inc();
        self.seconds.with_label_values(&[kind]).observe(seconds);
    }
}
