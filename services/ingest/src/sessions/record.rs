//! Sessions as they are stored.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_core::{
    DeviceId, Result, Timestamp, Uid, json,
    port::{KeyRange, Stored, Table},
};

use super::Subscription;

/// One record partition for each tenant; keys are device id, NUL, client id, so that a scan is in the order of both.
pub(super) const SESSIONS: Table = Table("sessions");

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// New at each connect.
    pub(super) session: Uid,
    pub(super) device: DeviceId,
    /// The device's uid: a device that was made anew under its id does not inherit.
    pub(super) uid: Uid,
    pub(super) client_id: String,
    pub(super) protocol: String,
    pub(super) remote: String,
    pub(super) connected_at: Timestamp,
    pub(super) last_seen: Timestamp,
    #[serde(default)]
    pub(super) disconnected_at: Option<Timestamp>,
    pub(super) expiry_seconds: u64,
    #[serde(default)]
    pub(super) subscriptions: Vec<Subscription>,
}

impl Record {
    pub(super) fn parse(stored: &Stored) -> Result<Self> {
        json::from_stored(stored)
    }

    pub(super) fn key(&self) -> Bytes {
        key(&self.device, &self.client_id)
    }

    /// When it is forgotten, if it is not connected. One that a crash left without a disconnect counts from `started`,
    /// the start of this process, since it could not come back before.
    pub(super) fn expires_at(&self, started: Timestamp) -> Timestamp {
        let since = self.disconnected_at.unwrap_or_else(|| self.last_seen.max(started));
        since.saturating_add(Duration::from_secs(self.expiry_seconds))
    }
}

/// The key of a session.
pub(super) fn key(device: &DeviceId, client_id: &str) -> Bytes {
    format!("{device}\0{client_id}").into()
}

/// The keys of a device's sessions.
pub(super) fn of_device(device: &DeviceId) -> KeyRange {
    KeyRange::prefix(format!("{device}\0").as_bytes())
}
