//! What every service can be asked.

use async_trait::async_trait;

/// A running service. It is made by its crate's `Service::start`, which returns when it has recovered and works.
#[async_trait]
pub trait Service: Send + Sync {
    /// Its target name: `registry`, `ingest`, `storage`, `analytics` or `commands`.
    fn name(&self) -> &'static str;

    /// Whether it can do its work now.
    ///
    /// # Errors
    /// Why not, in words: shown by `/readyz`.
    async fn ready(&self) -> Result<(), String>;

    /// Stops to take new work: listeners close, streams end, what is under way goes on. Idempotent.
    async fn stop_intake(&self);

    /// Finishes what is under way, records progress, ends every task. Idempotent; called after `stop_intake`.
    async fn drain(&self);
}
