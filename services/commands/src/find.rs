//! A command by its name, also right after its Send.

use std::time::Duration;

use weir_core::{
    Error, Result, Stream, TenantId, Uid,
    command::{Command, DeviceKey},
    name,
};
use weir_runtime::marks::Mark;

use crate::{Service, machine::Event};

/// Copying takes milliseconds; where it takes longer the caller is told so.
const WAIT_MAX: Duration = Duration::from_secs(5);

impl Service {
    /// A command. Where the store does not have it, waits until everything that the log held at the call is copied: only
    /// then is it certain that there is none.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` where copying is behind by more than the wait.
    pub(crate) async fn find(&self, tenant: &TenantId, id: Uid) -> Result<Command> {
        if let Some(found) = self.store.named(tenant, id).await? {
            return Ok(found);
        }
        let end = self.log.bounds(Stream::Commands).await?.last;
        let end = Mark { generation: self.marks.generation_of(end), sequence: end };
        let mut moved = self.marks.moved();
        let search = async {
            loop {
                moved.borrow_and_update();
                let complete = self.marks.all().iter().all(|copied| *copied >= end);
                if let Some(found) = self.store.named(tenant, id).await? {
                    return Ok(found);
                }
                if complete || moved.changed().await.is_err() {
                    return Err(Error::not_found(name::child(tenant, "commands", id)));
                }
            }
        };
        tokio::time::timeout(WAIT_MAX, search).await.unwrap_or_else(|_| {
            let full_name = name::child(tenant, "commands", id);
            Err(Error::unavailable(format!("commands are behind their log; {full_name} may be in it")))
        })
    }

    /// Takes a command back.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` once it has ended otherwise.
    pub(crate) async fn cancel(&self, tenant: &TenantId, id: Uid) -> Result<Command> {
        let found = self.find(tenant, id).await?;
        let to: &DeviceKey = &found.request.to;
        self.transition(to, id, None, Event::Canceled).await
    }

    /// Waits for a command's end, at most for `wait`; then gives it as it is.
    pub(crate) async fn wait_for_end(&self, sent: Command, wait: Duration) -> Result<Command> {
        let mut changes = self.hub.listen();
        let id = sent.request.id;
        let deadline = tokio::time::Instant::now() + wait;
        let mut latest = sent;
        loop {
            if let Some(found) = self.store.command(&latest.request.to, id).await? {
                latest = found.value;
            }
            if latest.state.is_final() {
                return Ok(latest);
            }
            let changed = async {
                // Lagged, or a gap: look; Closed does not happen while this service lives
                while changes.recv().await.is_ok_and(|heard| heard.is_some_and(|change| change.id != id)) {}
            };
            let look = (tokio::time::Instant::now() + LOOK_EVERY).min(deadline);
            let _ = tokio::time::timeout_at(look, changed).await;
            if tokio::time::Instant::now() >= deadline {
                let found = self.store.command(&latest.request.to, id).await?;
                return Ok(found.map_or(latest, |found| found.value));
            }
        }
    }
}

/// Changes of which no signal told are found out within this time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
