//! What a group of commits adds up to: each sees the effects of those before it, and all are applied as one batch.

use std::collections::HashMap;

use bytes::Bytes;
use fjall::{Keyspace, UserKey, UserValue};
use tokio::sync::oneshot;
use weir_core::{
    Error, Result,
    port::{Expect, Op, Table, Write},
};

use super::{VERSION_BYTES, key};
use crate::database::Database;

type Reply = oneshot::Sender<Result<Vec<u64>>>;

/// One commit, with the keys of the database.
pub(crate) struct Commit {
    table: Table,
    writes: Vec<(Vec<u8>, Write)>,
}

impl Commit {
    pub(super) fn new(table: Table, partition: &[u8], writes: Vec<Write>) -> Result<Self> {
        let full = |write: Write| Ok((key::record(table, partition, &write.key)?, write));
        Ok(Self { table, writes: writes.into_iter().map(full).collect::<Result<_>>()? })
    }

    /// Bytes that it brings to the journal, about.
    pub(crate) fn bytes(&self) -> usize {
        let of = |(key, write): &(Vec<u8>, Write)| match &write.op {
            Op::Put(value) => key.len() + value.len(),
            Op::Delete | Op::Check => key.len(),
        };
        self.writes.iter().map(of).sum()
    }
}

/// The commits of a group that met their expectations.
#[derive(Default)]
pub(crate) struct Staging {
    records: HashMap<Vec<u8>, Option<(u64, Bytes)>>,
    next_version: u64,
    accepted: Vec<(Vec<u64>, Reply)>,
    refused: Vec<(Error, Reply)>,
}

impl Staging {
    /// An empty group on top of what `database` holds.
    pub(crate) fn begin(database: &Database) -> fjall::Result<Self> {
        let next_version = database.records.get(key::NEXT_VERSION)?.as_deref().and_then(version).unwrap_or(1);
        Ok(Self { next_version, ..Self::default() })
    }

    /// Why the expectations of a commit do not hold, if they do not.
    pub(crate) fn refusal(&self, database: &Database, commit: &Commit) -> fjall::Result<Option<Error>> {
        for (key, write) in &commit.writes {
            if !self.holds(database, key, write.expect)? {
                let shown = String::from_utf8_lossy(&write.key);
                let text = format!("the record {shown:?} of table {} is not as expected", commit.table.0);
                return Ok(Some(Error::aborted(text)));
            }
        }
        Ok(None)
    }

    /// Adds a commit whose expectations hold.
    pub(crate) fn accept(&mut self, commit: Commit, reply: Reply) {
        let versions = commit.writes.into_iter().map(|(key, write)| self.stage(key, write.op)).collect();
        self.accepted.push((versions, reply));
    }

    /// Keeps a refusal until the group is durable.
    pub(crate) fn refuse(&mut self, error: Error, reply: Reply) {
        self.refused.push((error, reply));
    }

    /// Whether nothing waits for an answer.
    pub(crate) fn is_empty(&self) -> bool {
        self.accepted.is_empty() && self.refused.is_empty()
    }

    /// Applies the group; true if there was something to write.
    pub(crate) fn apply(&mut self, database: &Database) -> fjall::Result<bool> {
        if self.records.is_empty() {
            return Ok(false);
        }
        let item = |(key, record): (Vec<u8>, Option<(u64, Bytes)>)| {
            let value =
                record.map(|(version, value)| UserValue::from([&version.to_be_bytes(), &*value].concat()));
            (&database.records, UserKey::from(key), value)
        };
        let mut items: Vec<(&Keyspace, UserKey, Option<UserValue>)> =
            std::mem::take(&mut self.records).into_iter().map(item).collect();
        let next = UserValue::from(self.next_version.to_be_bytes().as_slice());
        items.push((&database.records, UserKey::from(key::NEXT_VERSION), Some(next)));
        database.apply(items.into_iter())?;
        Ok(true)
    }

    /// Answers everybody: with the outcome of each where the group is durable, else with what went wrong. A refusal may
    /// rest on a commit of the same group, so it too is only true once that is durable.
    pub(crate) fn answer(self, outcome: Result<()>) {
        let failure = outcome.err();
        // A caller that went away does not want its answer.
        for (versions, reply) in self.accepted {
            let _ = reply.send(failure.clone().map_or(Ok(versions), Err));
        }
        for (refusal, reply) in self.refused {
            let _ = reply.send(Err(failure.clone().unwrap_or(refusal)));
        }
    }

    fn holds(&self, database: &Database, key: &[u8], expect: Expect) -> fjall::Result<bool> {
        if expect == Expect::Any {
            return Ok(true);
        }
        let current = match self.records.get(key) {
            Some(staged) => staged.as_ref().map(|(version, _)| *version),
            None => database.records.get(key)?.as_deref().and_then(version),
        };
        Ok(match expect {
            Expect::Any => true,
            Expect::Absent => current.is_none(),
            Expect::Version(version) => current == Some(version),
        })
    }

    fn stage(&mut self, key: Vec<u8>, op: Op) -> u64 {
        match op {
            Op::Put(value) => {
                let version = self.next_version;
                self.next_version += 1;
                self.records.insert(key, Some((version, value)));
                version
            }
            Op::Delete => {
                self.records.insert(key, None);
                0
            }
            Op::Check => 0,
        }
    }
}

fn version(value: &[u8]) -> Option<u64> {
    value.first_chunk::<VERSION_BYTES>().map(|version| u64::from_be_bytes(*version))
}
