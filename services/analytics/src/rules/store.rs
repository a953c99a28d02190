//! Where rules are kept: one record partition for each tenant.
//!
//! | key                     | value |
//! | ----------------------- | ----- |
//! | `version`               | how many rules there are; rewritten with every change |
//! | `r/` id                 | a rule as it is now |
//! | `v/` uid revision       | a rule at a revision, which partitions and alarms refer to |
//! | `x/` uid                | when a rule was deleted, while its revisions are kept |

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_core::managed::ManagedBy;
use weir_core::{
    Error, Result, TenantId, Timestamp, Uid, json,
    port::{Expect, KeyRange, Op, Records, Stored, Table, Write},
};
use weir_rules::Rule;

const RULES: Table = Table("rules");
const VERSION: &[u8] = b"version";
const CURRENT: &str = "r/";
/// Rules of one page of a scan: some hundred KiB.
const PAGE: usize = 100;
/// Revisions of a rule that are kept; partitions take a new one within seconds.
const REVISIONS_MAX: u64 = 1_000;
/// Revisions of a deleted rule that go in one commit.
const PURGED: usize = 500;

/// A rule and its life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) rule: Rule,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    #[serde(default)]
    pub(crate) managed_by: ManagedBy,
    /// The request that made it.
    #[serde(default)]
    pub(crate) request: Option<Uid>,
    /// The version of this record.
    #[serde(skip)]
    pub(crate) version: u64,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Tally {
    rules: u32,
}

/// The number of a tenant's rules, and the version to write it against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Version {
    tally: Tally,
    expect: Expect,
}

impl Version {
    pub(crate) fn rules(&self) -> u32 {
        self.tally.rules
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Tombstone {
    deleted_at: Timestamp,
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

    /// What changes with each change of a tenant's rules; 0 where there never was one.
    pub(crate) async fn version(&self, tenant: &TenantId) -> Result<u64> {
        let stored = self.records.get(RULES, tenant.as_str().as_bytes(), VERSION).await?;
        Ok(stored.map_or(0, |stored| stored.version))
    }

    /// As [`Store::version`], to write against.
    pub(crate) async fn begin(&self, tenant: &TenantId) -> Result<Version> {
        let stored = self.records.get(RULES, tenant.as_str().as_bytes(), VERSION).await?;
        Ok(match &stored {
            Some(stored) => {
                Version { tally: json::from_stored(stored)?, expect: Expect::Version(stored.version) }
            }
            None => Version { tally: Tally::default(), expect: Expect::Absent },
        })
    }

    pub(crate) async fn get(&self, tenant: &TenantId, id: &str) -> Result<Option<Record>> {
        let stored = self.records.get(RULES, tenant.as_str().as_bytes(), &current(id)).await?;
        stored.as_ref().map(record).transpose()
    }

    /// At most `limit` rules in order of their ids, after `after`.
    pub(crate) async fn page(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        let mut range = KeyRange::prefix(CURRENT.as_bytes());
        if let Some(after) = after {
            range = range.after(&current(after));
        }
        let found = self.records.scan(RULES, tenant.as_str().as_bytes(), range, limit).await?;
        found.iter().map(record).collect()
    }

    /// Every rule of a tenant: as many as its limit allows.
    pub(crate) async fn all(&self, tenant: &TenantId) -> Result<Vec<Record>> {
        let mut all: Vec<Record> = Vec::new();
        loop {
            let after = all.last().map(|last| last.rule.id.clone());
            let page = self.page(tenant, after.as_ref().map(AsRef::as_ref), PAGE).await?;
            let last = page.len() < PAGE;
            all.extend(page);
            if last {
                return Ok(all);
            }
        }
    }

    pub(crate) async fn revision(&self, tenant: &TenantId, uid: Uid, number: u64) -> Result<Option<Rule>> {
        let stored = self.records.get(RULES, tenant.as_str().as_bytes(), &revision(uid, number)).await?;
        stored.as_ref().map(json::from_stored).transpose()
    }

    /// Writes a rule where none is (`record.version` 0) or over the version that was read.
    ///
    /// # Errors
    /// `Aborted` where somebody else has written a rule of the tenant since.
    pub(crate) async fn put(&self, tenant: &TenantId, at: Version, mut record: Record) -> Result<Record> {
        let expect = if record.version == 0 { Expect::Absent } else { Expect::Version(record.version) };
        let tally = Tally { rules: at.tally.rules + u32::from(record.version == 0) };
        let rule = &record.rule;
        let mut writes = vec![
            Write { key: current(rule.id.as_str()), expect, op: Op::Put(json::to_bytes(&record)?) },
            version(at, tally)?,
            Write::put(revision(rule.uid, rule.revision), json::to_bytes(rule)?),
        ];
        if let Some(old) = rule.revision.checked_sub(REVISIONS_MAX) {
            writes.push(Write::delete(revision(rule.uid, old)));
        }
        let versions = self.records.commit(RULES, tenant.as_str().as_bytes(), writes).await?;
        record.version = versions.first().copied().unwrap_or_default();
        Ok(record)
    }

    /// Deletes a rule as it was read; its revisions stay for [`Store::purge`].
    ///
    /// # Errors
    /// `Aborted` where somebody else has written a rule of the tenant since.
    pub(crate) async fn delete(
        &self,
        tenant: &TenantId,
        at: Version,
        record: &Record,
        now: Timestamp,
    ) -> Result<()> {
        let tally = Tally { rules: at.tally.rules.saturating_sub(1) };
        let writes = vec![
            Write {
                key: current(record.rule.id.as_str()),
                expect: Expect::Version(record.version),
                op: Op::Delete,
            },
            version(at, tally)?,
            Write::put(tombstone(record.rule.uid), json::to_bytes(&Tombstone { deleted_at: now })?),
        ];
        self.records.commit(RULES, tenant.as_str().as_bytes(), writes).await.map(drop)
    }

    /// Forgets the revisions of rules that were deleted before `before`, some of them at each call.
    pub(crate) async fn purge(&self, before: Timestamp) -> Result<()> {
        let mut tenant: Option<Bytes> = None;
        loop {
            let page = self.records.partitions(RULES, tenant.as_deref(), PAGE).await?;
            for place in &page {
                for stored in self.records.scan(RULES, place, KeyRange::prefix(b"x/"), PAGE).await? {
                    let tombstone: Tombstone = json::from_stored(&stored)?;
                    if let Some(uid) =
                        stored.key.strip_prefix(b"x/").filter(|_| tombstone.deleted_at < before)
                    {
                        self.purge_rule(place, uid, &stored.key).await?;
                    }
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE => tenant = Some(last.clone()),
                _ => return Ok(()),
            }
        }
    }

    async fn purge_rule(&self, place: &[u8], uid: &[u8], tombstone: &Bytes) -> Result<()> {
        let range = KeyRange::prefix(&[b"v/".as_slice(), uid].concat());
        let revisions = self.records.scan(RULES, place, range, PURGED).await?;
        let last = revisions.len() < PURGED;
        let keys = revisions.into_iter().map(|stored| stored.key).chain(last.then(|| tombstone.clone()));
        self.records.commit(RULES, place, keys.map(Write::delete).collect()).await.map(drop)
    }
}

fn record(stored: &Stored) -> Result<Record> {
    Ok(Record { version: stored.version, ..json::from_stored(stored)? })
}

fn version(at: Version, tally: Tally) -> Result<Write> {
    Ok(Write { key: Bytes::from_static(VERSION), expect: at.expect, op: Op::Put(json::to_bytes(&tally)?) })
}

fn current(id: &str) -> Bytes {
    format!("{CURRENT}{id}").into()
}

fn revision(uid: Uid, revision: u64) -> Bytes {
    [b"v/".as_slice(), &uid.to_bytes(), &revision.to_be_bytes()].concat().into()
}

fn tombstone(uid: Uid) -> Bytes {
    [b"x/".as_slice(), &uid.to_bytes()].concat().into()
}

/// A rule's full name.
pub(crate) fn name(tenant: &TenantId, id: &str) -> String {
    weir_core::name::child(tenant, "rules", id)
}

/// No such rule.
pub(crate) fn missing(tenant: &TenantId, id: &str) -> Error {
    Error::not_found(name(tenant, id))
}
