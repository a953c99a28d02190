//! Which partitions a table has, in byte order.
//!
//! CQL spreads partitions by a hash and can only list them in its order, by reading everything. So each name is put into
//! `record_partitions` before the first record of the partition: spread over [`SHARDS`] rows' partitions by a hash of the
//! name, within each in byte order; a list merges them. A name whose records are all gone stays, some tens of bytes, and a
//! list that meets it looks whether it is to be given.
//!
//! A name is put there by a light-weight transaction, as the records of its partition are: ScyllaDB syncs those before it
//! answers, and an ordinary write not. A name must not be lost where its records are kept, since nobody would write it again:
//! a process that knows it skips it. It costs one Paxos round for each new partition.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use weir_core::{Result, Uid, port::Table};

use super::{Commit, Place};
use crate::{ScyllaStore, client::together};

/// A list asks each shard, so they are few; a million names of 60 B are 2 MB in each, far below what a CQL partition may
/// hold well.
const SHARDS: u8 = 32;
/// Names of one shard that are read at once: 32 times that, of at most 1 KiB, is what a list holds in memory.
const PAGE: (usize, usize) = (4, 256);
/// Names that are looked into at once.
const LOOKS: usize = 32;

/// The names of one shard that come next.
struct Shard {
    number: i8,
    names: VecDeque<Vec<u8>>,
    /// Where its next page begins; none where it has no more.
    from: Option<Vec<u8>>,
}

impl ScyllaStore {
    /// Puts the partition of a commit into the list, where this process has not done so yet.
    pub(super) async fn register(&self, place: Place<'_>, commit: &Commit<'_>) -> Result<()> {
        let name = Uid::hash(&[place.table.0.as_bytes(), place.partition]);
        let (known, losses) = (&self.records.registered, self.watch.losses());
        if !commit.puts() || known.has(name, losses) {
            return Ok(());
        }
        let shard = shard(place.partition);
        let values = (place.table.0, shard, place.partition);
        // As a commit takes turns: these are the rows of few partitions.
        let _turn = self.turn(Uid::hash(&[b"shard", place.table.0.as_bytes(), &shard.to_be_bytes()])).await;
        // Applied, or there already, or both where an answer was lost and the driver asked again.
        self.client.run("list a partition", &self.records.register, &values).await?;
        known.add(name, losses);
        Ok(())
    }

    /// The partitions of a table that hold anything, after `after`.
    pub(super) async fn list(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        let from = after.map_or_else(Vec::new, past);
        let page = (limit / usize::from(SHARDS) * 2).clamp(PAGE.0, PAGE.1);
        let mut shards: Vec<Shard> = (0..SHARDS.cast_signed())
            .map(|number| Shard { number, names: VecDeque::new(), from: Some(from.clone()) })
            .collect();
        let mut found = Vec::new();
        while found.len() < limit {
            let wanted = limit.saturating_sub(found.len()).min(LOOKS);
            let next = self.next(table, &mut shards, page, wanted).await?;
            if next.is_empty() {
                break;
            }
            let mut looks = Vec::with_capacity(next.len());
            for name in next {
                looks.push(self.if_it_holds_any(table, name));
            }
            let held: Vec<Option<Bytes>> = stream::iter(looks).buffered(LOOKS).try_collect().await?;
            found.extend(held.into_iter().flatten());
        }
        Ok(found)
    }

    /// The next names in byte order, at most `count`.
    async fn next(
        &self,
        table: Table,
        shards: &mut [Shard],
        page: usize,
        count: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let mut next = Vec::new();
        while next.len() < count {
            let mut fills = Vec::new();
            for shard in shards.iter_mut() {
                if shard.names.is_empty() && shard.from.is_some() {
                    fills.push(self.fill(table, shard, page));
                }
            }
            together(fills, usize::from(SHARDS)).await?;
            let least = shards
                .iter_mut()
                .filter(|shard| !shard.names.is_empty())
                .min_by(|a, b| a.names.front().cmp(&b.names.front()));
            match least.and_then(|shard| shard.names.pop_front()) {
                Some(name) => next.push(name),
                None => break,
            }
        }
        Ok(next)
    }

    async fn fill(&self, table: Table, shard: &mut Shard, page: usize) -> Result<()> {
        let Some(from) = shard.from.take() else { return Ok(()) };
        let values = (table.0, shard.number, from, i32::try_from(page).unwrap_or(i32::MAX));
        let names = self.client.rows::<(Vec<u8>,)>("list partitions", &self.records.list, &values).await?;
        if names.len() == page {
            shard.from = names.last().map(|(last,)| past(last));
        }
        shard.names = names.into_iter().map(|(name,)| name).collect();
        Ok(())
    }

    async fn if_it_holds_any(&self, table: Table, partition: Vec<u8>) -> Result<Option<Bytes>> {
        let what = "look into a partition";
        let values = (table.0, &partition[..], &b""[..]);
        let found = self.client.rows::<(Option<Vec<u8>>,)>(what, &self.records.any, &values).await?;
        Ok(found.into_iter().any(|(key,)| key.is_some()).then(|| partition.into()))
    }
}

fn shard(partition: &[u8]) -> i8 {
    let hash = Uid::hash(&[partition]).as_u128() % u128::from(SHARDS);
    i8::try_from(hash).unwrap_or_default()
}

/// The least name after that one.
fn past(name: &[u8]) -> Vec<u8> {
    [name, &[0]].concat()
}
