//! [`TelemetryStore`] on the database.

mod encoded;
mod key;

use std::sync::Arc;

use async_trait::async_trait;
use fjall::Readable as _;
use weir_core::{
    Error, Result, Timestamp,
    port::{
        BucketId, BucketRow, LatestCell, Row, RowScan, ScanOrder, SeriesKey, TelemetryBatch, TelemetryStore,
        Width,
    },
};

pub(crate) use encoded::Encoded;

use crate::{EmbeddedStore, writer::Job};

#[async_trait]
impl TelemetryStore for EmbeddedStore {
    async fn write(&self, batch: TelemetryBatch) -> Result<()> {
        let batch = Arc::new(Encoded::new(batch));
        if batch.is_empty() {
            return Ok(());
        }
        self.submit(|reply| Job::Write { batch, reply }).await
    }

    async fn sync(&self) -> Result<()> {
        self.submit(|reply| Job::Sync { reply }).await
    }

    async fn rows(&self, series: &SeriesKey, bucket: BucketId, scan: RowScan) -> Result<Vec<Row>> {
        let (from, to) = row_bounds(series, bucket, &scan);
        if from >= to || scan.limit == 0 {
            return Ok(vec![]);
        }
        let series = series.clone();
        self.shared
            .read(move |database| {
                let mut found = database.applied().range(&database.rows, from..to);
                let mut next = || match scan.order {
                    ScanOrder::Ascending => found.next(),
                    ScanOrder::Descending => found.next_back(),
                };
                let mut rows = Vec::new();
                while rows.len() < scan.limit
                    && let Some(item) = next()
                {
                    let (key, value) = item.into_inner()?;
                    let Some(row) = key::read_row(&series, bucket, &key, &value) else {
                        return Ok(Err(unreadable("row", &series)));
                    };
                    rows.push(row);
                }
                Ok(Ok(rows))
            })
            .await
    }

    async fn latest(&self, series: &SeriesKey) -> Result<Vec<LatestCell>> {
        let series = series.clone();
        self.shared
            .read(move |database| {
                let mut cells = Vec::new();
                for item in database.applied().prefix(&database.latest, key::series(&series)) {
                    let (key, value) = item.into_inner()?;
                    let Some(cell) = key::read_latest(&series, &key, &value) else {
                        return Ok(Err(unreadable("newest value", &series)));
                    };
                    cells.push(cell);
                }
                Ok(Ok(cells))
            })
            .await
    }

    async fn buckets(
        &self,
        series: &SeriesKey,
        from: Timestamp,
        to: Timestamp,
        after: Option<BucketId>,
        limit: usize,
    ) -> Result<Vec<BucketRow>> {
        if from >= to || limit == 0 {
            return Ok(vec![]);
        }
        let series = series.clone();
        let is_next = move |bucket: &BucketId| after.is_none_or(|after| *bucket > after);
        self.shared
            .read(move |database| {
                let snapshot = database.applied();
                let mut buckets = Vec::new();
                // A bucket that began before `from` overlaps only if it holds `from`: one for each width.
                let mut earlier = Width::ALL.map(|width| BucketId::containing(from, width));
                earlier.sort_unstable();
                for bucket in earlier.into_iter().filter(|bucket| bucket.start < from).filter(is_next) {
                    if let Some(value) = snapshot.get(&database.buckets, key::bucket(&series, bucket))? {
                        buckets.push(key::read_bucket(&series, bucket, &value));
                    }
                }
                let first = after.filter(|after| after.start >= from);
                let lower = match first {
                    Some(after) => key::past_bucket(&series, after),
                    None => key::bucket_start(&series, from),
                };
                let upper = key::bucket_start(&series, to);
                if lower < upper {
                    for item in snapshot.range(&database.buckets, lower..upper).take(limit) {
                        let (key, value) = item.into_inner()?;
                        let bucket = key::bucket_of(&series, &key);
                        buckets.push(bucket.and_then(|bucket| key::read_bucket(&series, bucket, &value)));
                    }
                }
                buckets.truncate(limit);
                Ok(buckets.into_iter().collect::<Option<_>>().ok_or_else(|| unreadable("bucket", &series)))
            })
            .await
    }
}

fn row_bounds(series: &SeriesKey, bucket: BucketId, scan: &RowScan) -> (Vec<u8>, Vec<u8>) {
    let mut from = key::row_time(series, bucket, scan.from);
    let mut to = key::row_time(series, bucket, scan.to);
    if let Some((ts, position)) = scan.after {
        let mut row = key::row(series, bucket, ts, position);
        match scan.order {
            ScanOrder::Ascending => {
                row.push(0); // the least key after that row
                from = from.max(row);
            }
            ScanOrder::Descending => to = to.min(row),
        }
    }
    (from, to)
}

fn unreadable(what: &str, series: &SeriesKey) -> Error {
    Error::data_loss(format!("a stored {what} of device uid {} cannot be read", series.uid))
}
