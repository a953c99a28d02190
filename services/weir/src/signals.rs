//! The process's signals, and its words to a person.

use std::io::Write as _;

use tokio::signal::unix::{SignalKind, signal};
use weir_core::{Error, Result};

/// Listens from now on, and resolves at the first SIGINT or SIGTERM; a second one ends the process at once.
///
/// # Errors
/// `Unavailable` where the system gives no signals.
pub(crate) fn stop() -> Result<impl Future<Output = Result<()>>> {
    let failed = |source| Error::unavailable("cannot listen for signals").with_source(source);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::process::exit(130); // 128 + SIGINT, as shells say it
        });
        Ok(())
    })
}

/// A line to standard output.
///
/// # Errors
/// `Unavailable` where nobody reads it.
pub(crate) fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|error| Error::unavailable(format!("cannot write to standard output: {error}")))
}

/// A line to standard error.
pub(crate) fn complain(text: &str) {
    drop(writeln!(std::io::stderr().lock(), "{text}")); // a closed terminal has nobody to tell
}
