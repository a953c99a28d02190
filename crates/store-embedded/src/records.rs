//! [`Records`] on the database.

mod key;
mod staging;

use async_trait::async_trait;
use bytes::Bytes;
use fjall::Readable as _;
use weir_core::{
    Error, Result,
    port::{KeyRange, Records, Stored, Table, Write, check_writes},
};

pub(crate) use staging::{Commit, Staging};

use crate::{EmbeddedStore, writer::Job};

/// A stored value begins with its version.
const VERSION_BYTES: usize = 8;

#[async_trait]
impl Records for EmbeddedStore {
    async fn get(&self, table: Table, partition: &[u8], key: &[u8]) -> Result<Option<Stored>> {
        let full = key::record(table, partition, key)?;
        let found =
            self.shared.read(move |database| database.durable().get(&database.records, full).map(Ok)).await?;
        found.map(|value| stored(key, &value)).transpose()
    }

    async fn scan(
        &self,
        table: Table,
        partition: &[u8],
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<Stored>> {
        let prefix = key::partition(table, partition)?.len();
        let from = key::record(table, partition, &range.from)?;
        let to = match &range.to {
            Some(to) => key::record(table, partition, to)?,
            None => key::after_partition(table, partition)?,
        };
        if from >= to || limit == 0 {
            return Ok(vec![]);
        }
        self.shared
            .read(move |database| {
                let mut found = database.durable().range(&database.records, from..to);
                let mut next = || if range.descending { found.next_back() } else { found.next() };
                let mut records = Vec::new();
                while records.len() < limit
                    && let Some(item) = next()
                {
                    let (key, value) = item.into_inner()?;
                    match stored(key.get(prefix..).unwrap_or_default(), &value) {
                        Ok(record) => records.push(record),
                        Err(error) => return Ok(Err(error)),
                    }
                }
                Ok(Ok(records))
            })
            .await
    }

    async fn commit(&self, table: Table, partition: &[u8], writes: Vec<Write>) -> Result<Vec<u64>> {
        check_writes(&writes)?;
        if writes.is_empty() {
            return Ok(vec![]);
        }
        let commit = Commit::new(table, partition, writes)?;
        self.submit(|reply| Job::Commit { commit, reply }).await
    }

    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        let mut from = match after {
            Some(partition) => key::after_partition(table, partition)?,
            None => key::table(table)?,
        };
        let to = key::after_table(table)?;
        self.shared
            .read(move |database| {
                let snapshot = database.durable();
                let mut found = Vec::new();
                while found.len() < limit
                    && let Some(item) = snapshot.range(&database.records, from.clone()..to.clone()).next()
                {
                    let key = item.key()?;
                    let Some(partition) = key::partition_of(table, &key) else {
                        return Ok(Err(Error::data_loss(format!(
                            "a record of table {} has a key that cannot be read",
                            table.0
                        ))));
                    };
                    match key::after_partition(table, &partition) {
                        Ok(next) => from = next,
                        Err(error) => return Ok(Err(error)),
                    }
                    found.push(Bytes::from(partition));
                }
                Ok(Ok(found))
            })
            .await
    }
}

fn stored(key: &[u8], value: &[u8]) -> Result<Stored> {
    let Some((version, value)) = value.split_first_chunk::<VERSION_BYTES>() else {
        let key = String::from_utf8_lossy(key);
        return Err(Error::data_loss(format!("the record with key {key:?} has no version")));
    };
    Ok(Stored {
        key: Bytes::copy_from_slice(key),
        value: Bytes::copy_from_slice(value),
        version: u64::from_be_bytes(*version),
    })
}
