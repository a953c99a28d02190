//! Logs: structured, to standard error, as JSON or for people.
//!
//! Metrics: what the process costs. Each component registers its own into the `prometheus::Registry` that it is given.

mod process;

pub use process::process_metrics;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};
use weir_core::{Error, Result};

/// The section `logs`: what the process tells about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`), or directives such as
    /// `info,weir_ingest=debug`.
    pub level: String,
    /// How: `json`, one object a line, or `pretty`, for people.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One object a line.
    Json,
    /// For people.
    Pretty,
}

impl Default for Config {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Json }
    }
}

/// Starts to log; once in a process.
///
/// # Errors
/// `LOG_LEVEL_INVALID` for directives that do not parse; `Internal` where logging was started before.
pub fn start(config: &Config) -> Result<()> {
    let filter = EnvFilter::try_new(&config.level).map_err(|source| {
        Error::invalid(
            "logs.level",
            "LOG_LEVEL_INVALID",
            format!("logs.level {:?} is no level or directive", config.level),
        )
        .with_source(source)
    })?;
    let layer = fmt::layer().with_writer(std::io::stderr);
    let layer = match config.format {
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).boxed(),
        LogFormat::Pretty => layer.compact().with_target(false).boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .map_err(|source| Error::internal("logging was started before").with_source(source))
}
