//! The section `commands` of the configuration.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weir_core::{Error, Result};

/// Commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How many commands of one device may wait for their answers; more are refused.
    pub pending_max: usize,
    /// How long a command stays listed after it would have expired.
    #[serde(with = "weir_config::duration")]
    #[schemars(with = "String")]
    pub retention: Duration,
    /// Partitions of the log: `log.partitions`, put here by the program.
    #[serde(skip)]
    pub partitions: u16,
    /// How long the log keeps what everybody has read: `log.keep`, put here by the program.
    #[serde(skip)]
    pub log_keep: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pending_max: 1_000, // a device that is further behind is not coming back for them
            retention: Duration::from_secs(30 * 86_400), // a month's question: what did we tell it?
            partitions: 16,
            log_keep: Duration::from_secs(3_600),
        }
    }
}

/// One scan reads all of a device's pending commands.
const PENDING_MAX: usize = 10_000;

impl Config {
    pub(crate) fn check(&self) -> Result<()> {
        if !(1..=PENDING_MAX).contains(&self.pending_max) {
            return Err(Error::invalid(
                "commands.pending_max",
                "CONFIG_INVALID",
                format!("commands.pending_max is {}, it must be 1 to {PENDING_MAX}", self.pending_max),
            )
            .with_limit(PENDING_MAX));
        }
        Ok(())
    }
}
