//! `weir migrate`

use std::path::PathBuf;

use weir_core::{Error, ErrorKind, Result};
use weir_store_scylla::migrate;

use crate::{config::Config, signals};

/// `weir migrate`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir migrate --config /etc/weir/weir.toml --dry-run
  weir migrate --config /etc/weir/weir.toml")]
pub(crate) struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only print the CQL that would run
    #[arg(long)]
    dry_run: bool,
}

/// Brings the schema of the store to what this release reads and writes. Doing it twice, or at two places at once, does it
/// once.
///
/// # Errors
/// `FailedPrecondition` where the store is embedded (it migrates when it is opened); those of the store.
pub(crate) async fn run(args: Args) -> Result<()> {
    let config: Config = weir_config::load(args.config.as_deref())?;
    if !config.is_shared()? {
        let message =
            "store.engine is embedded, which needs no migration: it is done when the store is opened";
        return Err(Error::new(ErrorKind::FailedPrecondition, "NOTHING_TO_MIGRATE", message));
    }
    weir_observability::start(&config.logs)?;
    if !args.dry_run {
        return run_all(&config).await;
    }
    let steps = migrate::plan(&config.cql).await?;
    for step in &steps {
        signals::say(&format!("-- {}: {}", step.number, step.name))?;
        for statement in &step.statements {
            signals::say(&format!("{statement};"))?;
        }
    }
    if steps.is_empty() {
        signals::complain("the schema is up to date");
    }
    Ok(())
}

/// Runs what is pending.
///
/// # Errors
/// Those of the store.
pub(crate) async fn run_all(config: &Config) -> Result<()> {
    let done = migrate::run(&config.cql, |step| {
        signals::complain(&format!("migrating: {}, {}", step.number, step.name));
    })
    .await?;
    match done {
        0 => signals::complain("the schema is up to date"),
        done => signals::complain(&format!("the schema is up to date: {done} steps done")),
    }
    Ok(())
}
