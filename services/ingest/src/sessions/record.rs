//! Sessions as they are stored.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_core::{
    DeviceId, Result, TenantId, Timestamp, Uid, json,
    port::{KeyRange, Stored, Table},
};

use super::Subscription;

/// Keys are device id, NUL, client id, so that a scan is in the order of both; the record partition is a tenant's shard.
pub(super) const SESSIONS: Table = Table("sessions");
/// A store agrees on conditional writes of one record partition one after the other, at some 200 a second where replicas
/// agree over a network, and all devices of a tenant may come back at once. Few enough that a list looks at all of them.
pub(super) const SHARDS: u8 = 64;

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
    /// When it subscribed to the device's own commands last: of several sessions the newest by this gets the device's commands.
    #[serde(default)]
    pub(super) subscribed_at: Option<Timestamp>,
    /// The replica that holds the connection. None of a process that is there wrote a record without one.
    #[serde(default)]
    pub(super) replica: Option<Uid>,
}

impl Record {
    pub(super) fn parse(stored: &Stored) -> Result<Self> {
        json::from_stored(stored)
    }

    pub(super) fn key(&self) -> Bytes {
        key(&self.device, &self.client_id)
    }

    /// Since when it wants the device's commands, if it does.
    pub(super) fn wants_since(&self) -> Timestamp {
        self.subscribed_at.unwrap_or(self.connected_at).max(self.connected_at)
    }

    pub(super) fn expiry(&self) -> Duration {
        Duration::from_secs(self.expiry_seconds)
    }
}

/// The record partition of a device's sessions.
pub(super) fn partition(tenant: &TenantId, device: &DeviceId) -> Bytes {
    let hash = Uid::hash(&[device.as_str().as_bytes()]).as_u128() % u128::from(SHARDS);
    shard(tenant, u8::try_from(hash).unwrap_or(0)) // it always fits
}

/// The record partition of a tenant's shard.
pub(super) fn shard(tenant: &TenantId, shard: u8) -> Bytes {
    format!("{tenant}/{shard:02}").into()
}

/// The key of a session.
pub(super) fn key(device: &DeviceId, client_id: &str) -> Bytes {
    format!("{device}\0{client_id}").into()
}

/// The keys of a device's sessions.
pub(super) fn of_device(device: &DeviceId) -> KeyRange {
    KeyRange::prefix(format!("{device}\0").as_bytes())
}
