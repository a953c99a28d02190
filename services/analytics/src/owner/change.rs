//! The change list of a partition: what, beside readings, decides what rules do, each with the position from which it
//! counts, so that whoever reads the log again applies each where it was applied first.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_core::{
    DeviceId, Partition, Position, Result, Stream, TenantId, Timestamp, Uid,
    command::DeviceKey,
    device::{Device, Profile},
    json,
    port::{KeyRange, Records, Stored, Write},
    progress::{self, Claim},
    selector::Labels,
};

use super::READER;
use crate::alarm::Person;

const PREFIX: &[u8] = b"c/";
/// Changes of one page of a scan, and of one commit: a few hundred bytes each, a hundred KiB for a device with many
/// attributes of full length.
const PAGE: usize = 200;
const COMMIT_BYTES: usize = 512 * 1024;
/// Changes that are kept of a partition, some 15 MB; past it the oldest go, and a test of a rule that is older is a
/// simulation.
pub(crate) const KEPT_MAX: u64 = 50_000;

/// What a device is to rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) key: DeviceKey,
    pub(crate) labels: Labels,
    pub(crate) attributes: BTreeMap<String, String>,
}

impl Facts {
    pub(crate) fn of(device: &Device) -> Self {
        Self {
            key: DeviceKey { tenant: device.tenant.clone(), device: device.id.clone(), uid: device.uid },
            labels: device.labels.clone(),
            attributes: device.attributes.clone(),
        }
    }

    /// Of a device of which nothing is known but that it speaks.
    pub(crate) fn unknown(tenant: &TenantId, device: &DeviceId, uid: Uid) -> Self {
        let key = DeviceKey { tenant: tenant.clone(), device: device.clone(), uid };
        Self { key, labels: Labels::new(), attributes: BTreeMap::new() }
    }

    /// The device as rules see it; of the rest nothing is known, and nothing matters.
    pub(crate) fn device(&self) -> Device {
        Device {
            tenant: self.key.tenant.clone(),
            id: self.key.device.clone(),
            uid: self.key.uid,
            profile: Profile::DEFAULT_ID.to_owned(),
            labels: self.labels.clone(),
            attributes: self.attributes.clone(),
            enabled: true,
            gateway: false,
            created_at: Default::default(),
            updated_at: Default::default(),
        }
    }
}

/// A rule at one of its revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RuleRef {
    pub(crate) uid: Uid,
    pub(crate) revision: u64,
}

/// A change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    /// Rules of a tenant are new, have a new revision, or are gone.
    Rules { tenant: TenantId, put: Vec<RuleRef>, gone: Vec<Uid> },
    /// A device is new to rules, or its labels or attributes changed.
    Device(Facts),
    /// A device was deleted.
    Removed { tenant: TenantId, uid: Uid },
    /// A person acknowledged or cleared an alarm.
    Person(Person),
    /// Nobody listened: silence in that time is no device's.
    Outage { since: Timestamp, until: Timestamp },
}

/// An entry of the list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its place in the list, from 1.
    pub(crate) number: u64,
    /// Readings from this position on see it.
    #[serde(with = "position_text")]
    pub(crate) from: Position,
    pub(crate) change: Change,
}

/// The list as its owner holds it.
#[derive(Debug, Default)]
pub(super) struct ChangeList {
    /// The number of the next entry.
    next: u64,
    /// The oldest entry that is kept.
    first: u64,
    /// Entries that were recorded before a crash, and are not yet applied again.
    pub(super) pending: VecDeque<Entry>,
}

impl ChangeList {
    /// Reads the entries after number `applied`.
    pub(super) async fn load(claim: &Claim, applied: u64) -> Result<Self> {
        let mut list = Self { next: applied + 1, first: applied + 1, pending: VecDeque::new() };
        let first = claim.checkpoint(KeyRange::prefix(PREFIX), 1).await?;
        if let Some(first) = first.first() {
            list.first = json::from_stored::<Entry>(first)?.number;
        }
        loop {
            let range = KeyRange::prefix(PREFIX).after(&key(list.next - 1));
            let page = claim.checkpoint(range, PAGE).await?;
            for stored in &page {
                let entry: Entry = json::from_stored(stored)?;
                list.next = entry.number + 1;
                list.pending.push_back(entry);
            }
            if page.len() < PAGE {
                return Ok(list);
            }
        }
    }

    /// Appends changes that count from `from` on; durable, and fenced, when it returns.
    pub(super) async fn append(
        &mut self,
        claim: &mut Claim,
        from: Position,
        changes: Vec<Change>,
    ) -> Result<Vec<Entry>> {
        let mut entries = Vec::with_capacity(changes.len());
        let (mut writes, mut bytes) = (Vec::new(), 0);
        for change in changes {
            let entry = Entry { number: self.next, from, change };
            let value = json::to_bytes(&entry)?;
            if bytes + value.len() > COMMIT_BYTES || writes.len() >= PAGE {
                claim.commit_fenced(std::mem::take(&mut writes)).await?;
                bytes = 0;
            }
            bytes += value.len();
            writes.push(Write::put(key(entry.number), value));
            self.next += 1;
            entries.push(entry);
        }
        if !writes.is_empty() {
            claim.commit_fenced(writes).await?;
        }
        Ok(entries)
    }

    /// Deletes at most one page of entries that are too many, all of them applied.
    pub(super) fn surplus(&mut self, applied: u64) -> Vec<Write> {
        let through = self.next.saturating_sub(KEPT_MAX + 1).min(applied);
        let gone: Vec<u64> = (self.first..=through).take(PAGE).collect();
        self.first = gone.last().map_or(self.first, |last| last + 1);
        gone.into_iter().map(|number| Write::delete(key(number))).collect()
    }
}

/// The whole list of a partition, for a test; none where its beginning is not kept any more.
pub(crate) async fn history(records: &dyn Records, partition: Partition) -> Result<Option<Vec<Entry>>> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let range = KeyRange::prefix(PREFIX).after(&key(entries.last().map_or(0, |last| last.number)));
        let page: Vec<Stored> =
            progress::beside(records, READER, Stream::Readings, partition, range, PAGE).await?;
        for stored in &page {
            entries.push(json::from_stored(stored)?);
        }
        if page.len() < PAGE {
            let whole = entries.first().is_none_or(|first| first.number == 1);
            return Ok(whole.then_some(entries));
        }
    }
}

fn key(number: u64) -> Bytes {
    [PREFIX, &number.to_be_bytes()].concat().into()
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
