//! [`Records`] on the tables `records` and `record_partitions`.

mod commit;
mod partitions;
mod settle;
mod statements;

use async_trait::async_trait;
use bytes::Bytes;
use scylla::{response::PagingState, serialize::row::SerializeRow, statement::prepared::PreparedStatement};
use std::ops::ControlFlow;
use weir_core::{
    Error, Result,
    port::{KeyRange, Records, Stored, Table, Write, check_writes},
};

pub(crate) use statements::RecordTables;

use crate::{
    ScyllaStore,
    client::{own, parse},
};
use commit::Commit;

/// A key, its version and its value as a row; the latter two are absent where only a tombstone is left.
type Found = (Vec<u8>, Option<i64>, Option<Vec<u8>>);
/// As the embedded engine limits a partition's name.
const PARTITION_BYTES_MAX: usize = 1 << 10;

/// Where a record is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) table: Table,
    pub(crate) partition: &'a [u8],
}

impl<'a> Place<'a> {
    fn new(table: Table, partition: &'a [u8]) -> Result<Self> {
        if partition.len() > PARTITION_BYTES_MAX {
            let text = format!(
                "a record's partition has {} bytes; at most {PARTITION_BYTES_MAX} are possible",
                partition.len()
            );
            return Err(Error::invalid("partition", "KEY_TOO_LONG", text).with_limit(PARTITION_BYTES_MAX));
        }
        Ok(Self { table, partition })
    }
}

#[async_trait]
impl Records for ScyllaStore {
    async fn get(&self, table: Table, partition: &[u8], key: &[u8]) -> Result<Option<Stored>> {
        let Place { table, partition } = Place::new(table, partition)?;
        let values = (table.0, partition, key);
        let found = self.client.rows::<Found>("read a record", &self.records.get, &values).await?;
        found.into_iter().find_map(stored).transpose()
    }

    async fn scan(
        &self,
        table: Table,
        partition: &[u8],
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<Stored>> {
        let Place { table, partition } = Place::new(table, partition)?;
        if limit == 0 || range.to.as_ref().is_some_and(|to| *to <= range.from) {
            return Ok(vec![]);
        }
        let tables = &self.records;
        let most = i32::try_from(limit).unwrap_or(i32::MAX);
        let from = &range.from[..];
        match (&range.to, range.descending) {
            (Some(to), false) => {
                self.all(&tables.scan_range, &(table.0, partition, from, &to[..], most), limit).await
            }
            (Some(to), true) => {
                self.all(&tables.scan_range_down, &(table.0, partition, from, &to[..], most), limit).await
            }
            (None, false) => self.all(&tables.scan, &(table.0, partition, from, most), limit).await,
            (None, true) => self.all(&tables.scan_down, &(table.0, partition, from, most), limit).await,
        }
    }

    async fn commit(&self, table: Table, partition: &[u8], writes: Vec<Write>) -> Result<Vec<u64>> {
        let place = Place::new(table, partition)?;
        check_writes(&writes)?;
        if writes.is_empty() {
            return Ok(vec![]);
        }
        let commit = Commit::new(place, writes);
        self.register(place, &commit).await?;
        self.decide(&commit).await?;
        Ok(commit.versions())
    }

    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        self.list(table, after, limit).await
    }
}

impl ScyllaStore {
    /// Every row of a scan, page by page, up to `limit`.
    async fn all(
        &self,
        statement: &PreparedStatement,
        values: &(impl SerializeRow + Sync),
        limit: usize,
    ) -> Result<Vec<Stored>> {
        let what = "scan records";
        let mut found = Vec::new();
        let mut from = PagingState::start();
        while found.len() < limit {
            let (page, next) = self.client.page(what, statement, values, &from).await?;
            for row in parse::<Found>(what, page)? {
                found.extend(stored(row).transpose()?);
            }
            match next.into_paging_control_flow() {
                ControlFlow::Continue(next) => from = next,
                ControlFlow::Break(()) => break,
            }
        }
        found.truncate(limit);
        Ok(found)
    }
}

/// A row is a record where it has a version: rows are never inserted, only updated, so nothing else keeps one.
fn stored((key, version, value): Found) -> Option<Result<Stored>> {
    let version = version?;
    let Some(value) = value else {
        let key = String::from_utf8_lossy(&key).into_owned();
        return Some(Err(Error::data_loss(format!(
            "the record with key {key:?} has a version and no value"
        ))));
    };
    Some(Ok(Stored { key: key.into(), value: own(&value), version: version.cast_unsigned() }))
}
