//! What commands count.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use weir_core::{Error, Result, command::State};

/// Counters of commands.
pub(crate) struct Metrics {
    transitions: IntCounterVec,
    /// Records of the log that are no command.
    pub(crate) undecodable: IntCounter,
    /// Sends that were refused because the device has too many pending.
    pub(crate) backlog_full: IntCounter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let make = || -> prometheus::Result<Self> {
            let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
                let counter = IntCounter::new(name, help)?;
                registry.register(Box::new(counter.clone()))?;
                Ok(counter)
            };
            let transitions = IntCounterVec::new(
                Opts::new("weir_commands_transitions_total", "commands that came into a state, by state"),
                &["state"],
            )?;
            registry.register(Box::new(transitions.clone()))?;
            Ok(Self {
                transitions,
                undecodable: counter(
                    "weir_commands_undecodable_total",
                    "records of the commands stream that are no command and were passed over",
                )?,
                backlog_full: counter(
                    "weir_commands_backlog_full_total",
                    "commands refused because their device has too many pending",
                )?,
            })
        };
        make().map_err(|source| Error::internal("cannot register a metric of commands").with_source(source))
    }

    pub(crate) fn came_into(&self, state: State) {
        self.transitions.with_label_values(&[&state.as_str().to_lowercase()]).inc();
    }
}
