//! The section `registry` of the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weir_core::{Error, Result};

/// Tenants, tokens, profiles, devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How many devices, and how many tokens, are kept in memory for some seconds at most; past it the longest unused go.
    pub cache_entries: usize,
}

impl Default for Config {
    fn default() -> Self {
        // About 1 KiB each at most: 16 MiB where that many are in use within 8 s, next to nothing where they are not.
        Self { cache_entries: 8_192 }
    }
}

impl Config {
    pub(crate) fn check(&self) -> Result<()> {
        if self.cache_entries >= 2 {
            return Ok(());
        }
        Err(Error::invalid(
            "registry.cache_entries",
            "CONFIG_INVALID",
            format!("registry.cache_entries is {}, it must be at least 2", self.cache_entries),
        )
        .with_limit(2))
    }
}
