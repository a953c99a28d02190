//! Tells those who wait inside this process that a command has changed. Only where to look is told: whoever hears it
//! reads the store.

use tokio::sync::broadcast;
use weir_core::{Timestamp, Uid, command::DeviceKey};

/// A change of a command, or its arrival.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) to: DeviceKey,
    pub(crate) id: Uid,
    pub(crate) at: Timestamp,
}

/// Changes that a listener may be behind; one that falls further behind is told so. About 100 bytes each.
const BEHIND_MAX: usize = 4_096;

/// Where changes are told.
pub(crate) struct Hub(broadcast::Sender<Change>);

impl Hub {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(BEHIND_MAX))
    }

    pub(crate) fn tell(&self, change: Change) {
        let _ = self.0.send(change); // nobody listens
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Change> {
        self.0.subscribe()
    }
}
