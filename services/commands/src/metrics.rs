//! What commands count.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, Registry};
use weir_core::{
    Result, Timestamp,
    command::{Command, State},
};
use weir_metrics::{Registrar, Sampled, buckets};
use weir_runtime::trim::TrimMetrics;

/// Every state, as labels have it.
const STATES: [&str; 7] = ["queued", "sent", "delivered", "succeeded", "failed", "expired", "canceled"];
/// The states that something can follow: the first of them.
const OPEN: usize = 3;

/// Counters of commands.
pub(crate) struct Metrics {
    transitions: IntCounterVec,
    in_state: HistogramVec,
    outcomes: IntCounterVec,
    delivery: Histogram,
    /// Records of the log that are no command.
    pub(crate) undecodable: IntCounter,
    /// Sends that were refused because the device has too many pending.
    pub(crate) backlog_full: IntCounter,
    /// Times that an owner failed and began anew from its progress.
    pub(crate) restarts: IntCounter,
    /// Whether this replica works at a partition.
    pub(crate) owned: Sampled,
    /// How far the stream of commands was trimmed.
    pub(crate) trim: TrimMetrics,
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
        let in_state = to.histograms(
            "weir_commands_state_seconds",
            "how long a command was in a state that it left",
            &["state"],
            &buckets::LIFE,
        )?;
        for state in STATES.into_iter().take(OPEN) {
            drop(in_state.with_label_values(&[state]));
        }
        Ok(Self {
            transitions: to.counters_of(
                "weir_commands_transitions_total",
                "commands that came into a state, by state",
                "state",
                &STATES,
            )?,
            in_state,
            outcomes: to.counters_of(
                "weir_commands_outcomes_total",
                "commands by what came of their delivery: delivered (the device has it), undelivered (its time ran out \
                 before), canceled (before it was delivered)",
                "outcome",
                &["delivered", "undelivered", "canceled"],
            )?,
            delivery: to.histogram(
                "weir_commands_delivery_seconds",
                "from accepting a command until its device has it",
                &buckets::LIFE,
            )?,
            undecodable: to.counter(
                "weir_commands_undecodable_total",
                "records of the commands stream that are no command and were passed over",
            )?,
            backlog_full: to.counter(
                "weir_commands_backlog_full_total",
                "commands refused because their device has too many pending",
            )?,
            restarts: to.counter(
                "weir_commands_owner_restarts_total",
                "times that an owner began anew after a failure",
            )?,
            owned: to.sampled_by(
                "weir_commands_partition_owned",
                "1 where this replica copies a partition, else 0",
                "partition",
            )?,
            trim: TrimMetrics::new(to, "commands")?,
        })
    }

    /// A command was copied from the log.
    pub(crate) fn queued(&self) {
        self.came_into(State::Queued);
    }

    /// A command moved at `now`; `before` is how it was.
    pub(crate) fn moved(&self, before: &Before, command: &Command, now: Timestamp) {
        self.came_into(command.state);
        let in_state = self.in_state.with_label_values(&[label(before.state)]);
        in_state.observe(now.since(before.since).as_secs_f64());
        if before.delivered {
            return;
        }
        match (command.delivered_at, command.state) {
            (Some(at), _) => {
                self.delivery.observe(at.since(command.request.created_at).as_secs_f64());
                self.came_to("delivered");
            }
            (None, State::Expired) => self.came_to("undelivered"),
            (None, State::Canceled) => self.came_to("canceled"),
            (None, _) => {}
        }
    }

    fn came_into(&self, state: State) {
        self.transitions.with_label_values(&[label(state)]).inc();
    }

    fn came_to(&self, outcome: &str) {
        self.outcomes.with_label_values(&[outcome]).inc();
    }
}

/// What is counted of a command as it was before it moved.
pub(crate) struct Before {
    pub(crate) state: State,
    since: Timestamp,
    delivered: bool,
}

impl Before {
    pub(crate) fn of(command: &Command) -> Self {
        let since = match command.state {
            State::Sent => command.sent_at,
            State::Delivered => command.delivered_at,
            _ => None,
        };
        let since = since.unwrap_or(command.request.created_at);
        Self { state: command.state, since, delivered: command.delivered_at.is_some() }
    }
}

fn label(state: State) -> &'static str {
    let [queued, sent, delivered, succeeded, failed, expired, canceled] = STATES;
    match state {
        State::Queued => queued,
        State::Sent => sent,
        State::Delivered => delivered,
        State::Succeeded => succeeded,
        State::Failed => failed,
        State::Expired => expired,
        State::Canceled => canceled,
    }
}
