//! The section `analytics` of the configuration.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weir_core::{Error, Result};

/// Rules, alarms and their actions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `log.partitions`, filled in by whoever starts the service.
    #[serde(skip)]
    pub partitions: u16,
    /// How often the state of rules is recorded while there is something new: what a start after a crash reads again.
    #[serde(with = "weir_config::duration")]
    #[schemars(with = "String")]
    pub checkpoint_interval: Duration,
    /// Rules of a tenant at most.
    pub rules_per_tenant: u32,
    /// How long a cleared alarm is kept.
    #[serde(with = "weir_config::duration")]
    #[schemars(with = "String")]
    pub alarms_keep: Duration,
    /// Open `WatchAlarms` and `TestRule` streams of a tenant at most, each.
    pub streams_per_tenant: u32,
    /// How actions are delivered.
    pub actions: ActionsConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            partitions: 16,                                // as `log.partitions`
            checkpoint_interval: Duration::from_secs(1), // a second re-read is nothing, one sync a second neither
            rules_per_tenant: 1_000, // each device evaluates those that select it: thousands at most
            alarms_keep: Duration::from_secs(90 * 86_400), // a quarter: what a yearly review of sites still asks for
            streams_per_tenant: 64,                        // a few screens and scripts; each holds a task
            actions: ActionsConfig::default(),
        }
    }
}

/// How actions are delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ActionsConfig {
    /// How long a webhook may take to answer.
    #[serde(with = "weir_config::duration")]
    #[schemars(with = "String")]
    pub webhook_timeout: Duration,
    /// How often a webhook is tried before it is given up.
    pub webhook_attempts: u32,
    /// The pause after the first failed try; each further one is four times as long, at most 40 min, give or take a fifth.
    #[serde(with = "weir_config::duration")]
    #[schemars(with = "String")]
    pub retry_base: Duration,
    /// Webhook calls of one rule that may wait; past it further ones are recorded as FAILED.
    pub waiting_per_rule: u32,
    /// Actions under way at once.
    // Webhook calls and commands each by themselves; of the calls at most a quarter are one tenant's.
    pub concurrency: u32,
}

impl Default for ActionsConfig {
    fn default() -> Self {
        Self {
            webhook_timeout: Duration::from_secs(10), // a receiver should queue, not work
            webhook_attempts: 8,                      // with the base below: over about one hour
            retry_base: Duration::from_secs(1),       // a restart of the receiver takes a few
            waiting_per_rule: 1_000,                  // a dead endpoint's hour, at one alarm in four seconds
            concurrency: 64, // one a rule; a call waits most of its time, so they cost little more than sockets
        }
    }
}

impl Config {
    pub(crate) fn check(&self) -> Result<()> {
        let positive = [
            ("analytics.rules_per_tenant", u64::from(self.rules_per_tenant)),
            ("analytics.streams_per_tenant", u64::from(self.streams_per_tenant)),
            ("analytics.actions.webhook_attempts", u64::from(self.actions.webhook_attempts)),
            ("analytics.actions.waiting_per_rule", u64::from(self.actions.waiting_per_rule)),
            ("analytics.actions.concurrency", u64::from(self.actions.concurrency)),
        ];
        match positive.iter().find(|(_, value)| *value == 0) {
            None => Ok(()),
            Some((key, _)) => {
                Err(Error::invalid(*key, "CONFIG_INVALID", format!("{key} is 0, it must be at least 1"))
                    .with_limit(1))
            }
        }
    }
}
