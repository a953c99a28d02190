//! Writing: single-partition batches, bounded in bytes, many at once and never too many.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::atomic::Ordering,
    time::{SystemTime, UNIX_EPOCH},
};

use futures::TryFutureExt as _;
use scylla::{
    serialize::row::SerializeRow,
    statement::{
        batch::{Batch, BatchType},
        prepared::PreparedStatement,
    },
};
use weir_core::{
    Position, Result, Uid,
    port::{BucketRow, LatestCell, Row},
};

use super::period;
use crate::{ScyllaStore, client::together};

/// Bytes of one batch: enough that a request's own cost is spread over many rows, and well below what a server refuses
/// (ScyllaDB: 1 MiB; Cassandra sets no bound to batches of one partition).
const BATCH_BYTES: usize = 48 << 10;
/// Statements of one batch: small rows cost the server by their number.
const BATCH_ROWS: usize = 200;

impl ScyllaStore {
    pub(super) async fn write_buckets(&self, rows: &[BucketRow]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        self.list_periods(rows).await?;
        // One clock for all: two writes of a bucket through two servers would else be ordered by the servers' clocks.
        let at = self.bucket_time(rows.len());
        let timed = rows.iter().zip(at..);
        let groups = group(timed, |(row, _)| (&row.series, period::of(row.bucket)));
        let values = |(row, at): &(&BucketRow, i64)| {
            let (class, period) = period::of(row.bucket);
            let sealed = row.sealed_through.map(|position| position.to_bytes().to_vec());
            (
                (row.series.tenant.as_str().to_owned(), row.series.uid.to_bytes().to_vec(), class, period),
                (row.bucket.start.as_micros(), row.bucket.width as i8),
                (row.bytes.cast_signed(), row.seal_generation.cast_signed(), sealed, *at),
            )
        };
        let flat = |of: &(&BucketRow, i64)| {
            let ((tenant, uid, class, period), (start, width), (bytes, seal, sealed, at)) = values(of);
            (tenant, uid, class, period, start, width, bytes, seal, sealed, at)
        };
        self.write_groups("write buckets", &self.telemetry.put_bucket, groups, |_| 64, flat).await
    }

    pub(super) async fn write_rows(&self, rows: &[Row]) -> Result<()> {
        let groups = group(rows.iter(), |row| (&row.series, row.bucket));
        let bytes = |row: &&Row| row.body.len() + Position::LEN + 8;
        let values = |row: &&Row| {
            let Row { series, bucket, ts, position, body } = *row;
            (
                series.tenant.as_str().to_owned(),
                series.uid.to_bytes().to_vec(),
                bucket.start.as_micros(),
                bucket.width as i8,
                ts.as_micros(),
                position.to_bytes().to_vec(),
                body.clone(),
            )
        };
        self.write_groups("write rows", &self.telemetry.put_row, groups, bytes, values).await
    }

    pub(super) async fn write_latest(&self, cells: &[LatestCell]) -> Result<()> {
        let groups = group(cells.iter(), |cell| &cell.series);
        let bytes = |cell: &&LatestCell| cell.body.len() + cell.metric.len() + Position::LEN;
        let values = |cell: &&LatestCell| {
            let LatestCell { series, metric, ts, position, body } = *cell;
            (
                series.tenant.as_str().to_owned(),
                series.uid.to_bytes().to_vec(),
                metric.to_string(),
                [&position.to_bytes()[..], body].concat(),
                ts.as_micros(),
            )
        };
        self.write_groups("write newest values", &self.telemetry.put_latest, groups, bytes, values).await
    }

    /// Writes each group, which is of one partition, in batches; many at once.
    async fn write_groups<T, V: SerializeRow + Send + Sync>(
        &self,
        what: &'static str,
        statement: &PreparedStatement,
        groups: Vec<Vec<T>>,
        bytes: impl Fn(&T) -> usize,
        values: impl Fn(&T) -> V,
    ) -> Result<()> {
        let mut chunks: Vec<Vec<V>> = vec![];
        for group in &groups {
            let (mut chunk, mut chunk_bytes) = (Vec::new(), 0);
            for row in group {
                let row_bytes = bytes(row);
                if !chunk.is_empty() && (chunk_bytes + row_bytes > BATCH_BYTES || chunk.len() >= BATCH_ROWS) {
                    chunks.push(std::mem::take(&mut chunk));
                    chunk_bytes = 0;
                }
                chunk_bytes += row_bytes;
                chunk.push(values(row));
            }
            chunks.extend((!chunk.is_empty()).then_some(chunk));
        }
        let mut writes = Vec::with_capacity(chunks.len());
        for chunk in &chunks {
            writes.push(self.write_chunk(what, statement, chunk));
        }
        together(writes, self.client.concurrency).await
    }

    async fn write_chunk<V: SerializeRow + Sync>(
        &self,
        what: &str,
        statement: &PreparedStatement,
        values: &[V],
    ) -> Result<()> {
        if let [only] = values {
            return self.client.run(what, statement, only).await.map(drop);
        }
        let mut batch = Batch::new(BatchType::Unlogged);
        for _ in values {
            batch.append_statement(statement.clone());
        }
        batch.set_is_idempotent(true);
        self.client.write(what, &batch, &values).await
    }

    /// Lists the periods of buckets that this process has not listed yet, or not since the servers may have lost something,
    /// before the buckets. A loss that nobody has noticed yet is noticed by the sync that must succeed before progress passes
    /// these buckets, and then they are written again, after it was counted.
    async fn list_periods(&self, rows: &[BucketRow]) -> Result<()> {
        let (known, losses) = (&self.telemetry.periods_known, self.watch.losses());
        let mut new = HashMap::new();
        for row in rows {
            let (class, period) = period::of(row.bucket);
            let (tenant, uid) = (row.series.tenant.as_str(), row.series.uid.to_bytes());
            let name = Uid::hash(&[tenant.as_bytes(), &uid, &class.to_be_bytes(), &period.to_be_bytes()]);
            if !known.has(name, losses) {
                new.insert(name, (tenant, uid.to_vec(), class, period));
            }
        }
        let mut writes = Vec::with_capacity(new.len());
        for values in new.values() {
            let (what, statement) = ("list a period of buckets", &self.telemetry.put_period);
            writes.push(self.client.run(what, statement, values).map_ok(drop));
        }
        together(writes, self.client.concurrency).await?;
        new.into_keys().for_each(|name| known.add(name, losses));
        Ok(())
    }

    /// The first of `count` write timestamps that follow each other: by the clock, and never one that was given before.
    fn bucket_time(&self, count: usize) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let clock = &self.telemetry.bucket_clock;
        let last = clock.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| {
            Some(last.max(now).saturating_add(count))
        });
        last.unwrap_or_default().max(now).saturating_add(1)
    }
}

/// Items of one key together; within a group in their order.
fn group<T, K: Eq + Hash>(items: impl Iterator<Item = T>, key: impl Fn(&T) -> K) -> Vec<Vec<T>> {
    let mut groups: Vec<Vec<T>> = vec![];
    let mut index = HashMap::new();
    for item in items {
        let place = *index.entry(key(&item)).or_insert_with(|| {
            groups.push(vec![]);
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(place) {
            group.push(item);
        }
    }
    groups
}
