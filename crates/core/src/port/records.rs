//! Small records with compare-and-set: what registry, rules, alarms, checkpoints, outbox, commands, sessions, dead
//! letters and reading progress are kept in.

use async_trait::async_trait;
use bytes::Bytes;

use crate::Result;

/// A table, declared as a constant by the service that owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table(pub &'static str);

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its key within the partition.
    pub key: Bytes,
    /// Its value, opaque to the engine.
    pub value: Bytes,
    /// Names this very write: never the same for two writes of a key, also across a delete. Not 0.
    pub version: u64,
}

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// No record is there.
    Absent,
    /// The record there has this version.
    Version(u64),
}

/// What a write does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Puts this value.
    Put(Bytes),
    /// Removes the record; nothing happens where none is there.
    Delete,
    /// Changes nothing: only the expectation counts (a fence).
    Check,
}

/// One write of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The key within the partition, at most 1 KiB.
    pub key: Bytes,
    /// What must hold.
    pub expect: Expect,
    /// What to do.
    pub op: Op,
}

impl Write {
    /// Puts a value whatever is there.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), expect: Expect::Any, op: Op::Put(value.into()) }
    }
    /// Puts a value where none is.
    pub fn insert(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), expect: Expect::Absent, op: Op::Put(value.into()) }
    }
    /// Replaces the value of that version.
    pub fn replace(key: impl Into<Bytes>, version: u64, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), expect: Expect::Version(version), op: Op::Put(value.into()) }
    }
    /// Removes whatever is there.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), expect: Expect::Any, op: Op::Delete }
    }
    /// Only checks.
    pub fn check(key: impl Into<Bytes>, expect: Expect) -> Self {
        Self { key: key.into(), expect, op: Op::Check }
    }
}

/// Which keys of a partition a scan gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyRange {
    /// Keys ≥ this; from the first key if empty.
    pub from: Bytes,
    /// Keys < this; to the last key if `None`.
    pub to: Option<Bytes>,
    /// From the greatest key down.
    pub descending: bool,
}

impl KeyRange {
    /// Every key.
    pub fn all() -> Self {
        Self::default()
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while end.last() == Some(&u8::MAX) {
            end.pop();
        }
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Self {
            from: Bytes::copy_from_slice(prefix),
            to: (!end.is_empty()).then(|| end.into()),
            descending: false,
        }
    }

    /// The same keys, but only those after `key` (ascending): the next page.
    #[must_use]
    pub fn after(mut self, key: &[u8]) -> Self {
        let mut from = key.to_vec();
        from.push(0);
        if from.as_slice() > self.from.as_ref() {
            self.from = from.into();
        }
        self
    }

    /// The same keys, but only those before `key`: the next page of a descending scan.
    #[must_use]
    pub fn before(mut self, key: &[u8]) -> Self {
        if self.to.as_ref().is_none_or(|to| key < to.as_ref()) {
            self.to = Some(Bytes::copy_from_slice(key));
        }
        self
    }

    /// The same keys from the greatest down.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        self.descending = true;
        self
    }
}

/// Records in partitions. Reads see every commit that was answered before they began.
#[async_trait]
pub trait Records: Send + Sync {
    /// The record of that key.
    ///
    /// # Errors
    /// `Unavailable` where the store is away.
    async fn get(&self, table: Table, partition: &[u8], key: &[u8]) -> Result<Option<Stored>>;

    /// At most `limit` records of one partition in key order.
    ///
    /// # Errors
    /// `Unavailable` where the store is away.
    async fn scan(
        &self,
        table: Table,
        partition: &[u8],
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<Stored>>;

    /// All of `writes` or none, in one partition of one table, at most 1,000 writes and 1 MiB of values; durable when it
    /// returns. No key may be named twice. Returns the version of each write, in order (0 for a delete or a check).
    ///
    /// # Errors
    /// `Aborted` (`CONFLICT`) where an expectation did not hold, nothing was written; `Unavailable` where the store is
    /// away, after which it is not known whether it was written.
    async fn commit(&self, table: Table, partition: &[u8], writes: Vec<Write>) -> Result<Vec<u64>>;

    /// The partitions of a table in byte order, after `after`: for an owner that must load everything at start.
    ///
    /// # Errors
    /// `Unavailable` where the store is away.
    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>>;
}
