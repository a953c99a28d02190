//! Where commands are kept, typed.
//!
//! | table              | partition        | key                | value |
//! | ------------------ | ---------------- | ------------------ | ----- |
//! | `commands`         | tenant/device uid| `c` id             | the command |
//! |                    |                  | `p` position       | what its delivery needs, until it ends |
//! |                    |                  | `o` position       | its id: the device's list |
//! |                    |                  | `s`                | the session that gets the device's commands |
//! | `commands_names`   | tenant/id        | `to`               | its device |
//! | `commands_tenants` | tenant/day       | position           | id and device: the tenant's list, by day of creation |
//! | `commands_open`    | tenant           | position           | id and device, until it ends |
//! | `commands_timers`  | log partition    | due, id            | id and device, until expiry; then until removal |
//!
//! The first is the truth, and changes in one commit. The others are written before it and removed after it.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use weir_core::{
    Partition, Position, Result, TenantId, Timestamp, Uid,
    command::{Command, DeviceKey, Order, State},
    json,
    port::{KeyRange, Records, Stored, Table, Write},
};

use crate::machine::{Held, Offer};

pub(crate) const DEVICES: Table = Table("commands");
pub(crate) const NAMES: Table = Table("commands_names");
pub(crate) const TENANTS: Table = Table("commands_tenants");
pub(crate) const OPEN: Table = Table("commands_open");
pub(crate) const TIMERS: Table = Table("commands_timers");

pub(crate) const TO: &[u8] = b"to";
pub(crate) const SESSION: &[u8] = b"s";
const COMMAND: u8 = b'c';
const PENDING: u8 = b'p';
const LISTED: u8 = b'o';
const DAY_MICROS: i64 = 86_400_000_000;

/// What the delivery of a command needs; there until it ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) id: Uid,
    #[serde(with = "position_text")]
    pub(crate) position: Position,
    pub(crate) state: State,
    pub(crate) order: Order,
    pub(crate) expires_at: Timestamp,
    pub(crate) offer: Option<Offer>,
}

impl Pending {
    pub(crate) fn of(held: &Held) -> Self {
        let Command { request, position, state, .. } = &held.command;
        Self {
            id: request.id,
            position: *position,
            state: *state,
            order: request.order,
            expires_at: request.expires_at,
            offer: held.offer,
        }
    }
}

/// The session that gets a device's commands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attached {
    pub(crate) epoch: u64,
    pub(crate) session: Option<Uid>,
    /// From when it no longer wants any: an older session may attach again.
    #[serde(default)]
    pub(crate) ended_at: Option<Timestamp>,
}

/// Where a command is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) id: Uid,
    pub(crate) to: DeviceKey,
    #[serde(with = "position_text")]
    pub(crate) position: Position,
    pub(crate) created_at: Timestamp,
}

impl Entry {
    pub(crate) fn of(command: &Command) -> Self {
        let request = &command.request;
        Self {
            id: request.id,
            to: request.to.clone(),
            position: command.position,
            created_at: request.created_at,
        }
    }
}

/// Something to do with a command when its time has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timer {
    pub(crate) entry: Entry,
    pub(crate) due: Timestamp,
    /// Remove it; else: end it as EXPIRED.
    pub(crate) remove: bool,
}

/// A value and the version that names its last write.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Versioned<T> {
    pub(crate) value: T,
    pub(crate) version: u64,
}

pub(crate) fn device_place(to: &DeviceKey) -> Bytes {
    format!("{}/{}", to.tenant, to.uid).into()
}

pub(crate) fn name_place(tenant: &TenantId, id: Uid) -> Bytes {
    format!("{tenant}/{id}").into()
}

/// The day, since the Unix epoch, on which a command was created.
pub(crate) fn day_of(created_at: Timestamp) -> i64 {
    created_at.as_micros().div_euclid(DAY_MICROS)
}

pub(crate) fn day_place(tenant: &TenantId, day: i64) -> Bytes {
    format!("{tenant}/{day}").into()
}

pub(crate) fn timer_place(partition: Partition) -> Bytes {
    format!("{:05}", partition.0).into()
}

pub(crate) fn command_key(id: Uid) -> Bytes {
    prefixed(COMMAND, &id.to_bytes())
}

pub(crate) fn pending_key(position: Position) -> Bytes {
    prefixed(PENDING, &position.to_bytes())
}

pub(crate) fn listed_key(position: Position) -> Bytes {
    prefixed(LISTED, &position.to_bytes())
}

pub(crate) fn position_key(position: Position) -> Bytes {
    Bytes::copy_from_slice(&position.to_bytes())
}

/// In the order of their times.
pub(crate) fn timer_key(due: Timestamp, id: Uid) -> Bytes {
    let due = (due.as_micros() as u64) ^ (1 << 63); // so that byte order is number order
    due.to_be_bytes().into_iter().chain(id.to_bytes()).collect()
}

fn prefixed(kind: u8, rest: &[u8]) -> Bytes {
    std::iter::once(kind).chain(rest.iter().copied()).collect()
}

/// Typed reads and writes.
#[derive(Clone)]
pub(crate) struct Store {
    records: Arc<dyn Records>,
}

impl Store {
    pub(crate) fn new(records: Arc<dyn Records>) -> Self {
        Self { records }
    }

    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        table: Table,
        partition: &[u8],
        key: &[u8],
    ) -> Result<Option<Versioned<T>>> {
        let stored = self.records.get(table, partition, key).await?;
        stored
            .map(|stored| Ok(Versioned { value: json::from_stored(&stored)?, version: stored.version }))
            .transpose()
    }

    pub(crate) async fn scan<T: DeserializeOwned>(
        &self,
        table: Table,
        partition: &[u8],
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<(Stored, T)>> {
        let found = self.records.scan(table, partition, range, limit).await?;
        found
            .into_iter()
            .map(|stored| {
                let value = json::from_stored(&stored)?;
                Ok((stored, value))
            })
            .collect()
    }

    pub(crate) async fn commit(&self, table: Table, partition: &[u8], writes: Vec<Write>) -> Result<()> {
        self.records.commit(table, partition, writes).await.map(drop)
    }

    pub(crate) async fn command(&self, to: &DeviceKey, id: Uid) -> Result<Option<Versioned<Command>>> {
        self.get(DEVICES, &device_place(to), &command_key(id)).await
    }

    /// A command by its name alone; `None` also where its device does not have it (yet).
    pub(crate) async fn named(&self, tenant: &TenantId, id: Uid) -> Result<Option<Command>> {
        let to: Option<Versioned<DeviceKey>> = self.get(NAMES, &name_place(tenant, id), TO).await?;
        match to {
            Some(to) => Ok(self.command(&to.value, id).await?.map(|found| found.value)),
            None => Ok(None),
        }
    }

    pub(crate) async fn attached(&self, to: &DeviceKey) -> Result<Option<Versioned<Attached>>> {
        self.get(DEVICES, &device_place(to), SESSION).await
    }

    /// At most `limit` of a device's pending commands in position order.
    pub(crate) async fn pending(&self, to: &DeviceKey, limit: usize) -> Result<Vec<Pending>> {
        let range = KeyRange::prefix(&[PENDING]);
        let found = self.scan(DEVICES, &device_place(to), range, limit).await?;
        Ok(found.into_iter().map(|(_, pending)| pending).collect())
    }

    /// At most `limit` ids of a device's commands, newest first, before `before`.
    pub(crate) async fn listed(
        &self,
        to: &DeviceKey,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let mut range = KeyRange::prefix(&[LISTED]).reversed();
        if let Some(before) = before {
            range = range.before(&listed_key(before));
        }
        let found = self.scan(DEVICES, &device_place(to), range, limit).await?;
        Ok(found.into_iter().map(|(_, entry)| entry).collect())
    }
}

mod position_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};
    use weir_core::Position;

    pub(super) fn serialize<S: Serializer>(position: &Position, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(position)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Position, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_are_in_the_order_of_their_times_also_before_the_epoch() {
        let key = |micros| timer_key(Timestamp::from_micros(micros), Uid::from_u128(0));
        let times = [i64::MIN, -1, 0, 1, i64::MAX];
        assert!(times.windows(2).all(|pair| key(pair[0]) < key(pair[1])));
    }
}
