//! What a durable write survives.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// A power cut: it is on the disk (fdatasync) before it is acknowledged.
    #[default]
    PowerLoss,
    /// A crash of the process: it is with the operating system before it is acknowledged.
    Process,
}

impl Durability {
    /// As it is configured.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PowerLoss => "power-loss",
            Self::Process => "process",
        }
    }
}
