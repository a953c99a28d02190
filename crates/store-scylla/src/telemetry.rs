//! [`TelemetryStore`] on the tables `readings`, `latest`, `buckets` and `bucket_periods`.

mod period;
mod read;
mod statements;
mod write;

use async_trait::async_trait;
use weir_core::{
    Error, Result, Timestamp,
    port::{BucketId, BucketRow, LatestCell, Row, RowScan, SeriesKey, TelemetryBatch, TelemetryStore},
};

pub(crate) use statements::TelemetryTables;

use crate::ScyllaStore;

#[async_trait]
impl TelemetryStore for ScyllaStore {
    async fn write(&self, batch: TelemetryBatch) -> Result<()> {
        // A reader that finds a row finds its bucket, and one that finds a newest value finds its row.
        self.write_buckets(&batch.buckets).await?;
        self.write_rows(&batch.rows).await?;
        self.write_latest(&batch.latest).await
    }

    async fn sync(&self) -> Result<()> {
        self.watch.sync(&self.client).await
    }

    fn losses(&self) -> u64 {
        self.watch.losses()
    }

    async fn rows(&self, series: &SeriesKey, bucket: BucketId, scan: RowScan) -> Result<Vec<Row>> {
        if scan.from >= scan.to || scan.limit == 0 {
            return Ok(vec![]);
        }
        self.read_rows(series, bucket, &scan).await
    }

    async fn latest(&self, series: &SeriesKey) -> Result<Vec<LatestCell>> {
        self.read_latest(series).await
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
        self.read_buckets(series, from, to, after, limit).await
    }
}

fn unreadable(what: &str, series: &SeriesKey) -> Error {
    Error::data_loss(format!("a stored {what} of device uid {} cannot be read", series.uid))
}
