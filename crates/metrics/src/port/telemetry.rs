//! The telemetry store, measured.

use std::sync::Arc;

use async_trait::async_trait;
use weir_core::{
    Result, Timestamp,
    port::{BucketId, BucketRow, LatestCell, Row, RowScan, SeriesKey, TelemetryBatch, TelemetryStore},
};

use super::{StoreMetrics, store::Operation};

/// A telemetry store that is measured.
pub struct MeasuredTelemetry {
    store: Arc<dyn TelemetryStore>,
    write: Operation,
    sync: Operation,
    rows: Operation,
    latest: Operation,
    buckets: Operation,
}

impl MeasuredTelemetry {
    /// Measures `store`.
    pub fn over(store: Arc<dyn TelemetryStore>, metrics: &StoreMetrics) -> Arc<Self> {
        Arc::new(Self {
            store,
            write: metrics.operation("write"),
            sync: metrics.operation("sync"),
            rows: metrics.operation("rows"),
            latest: metrics.operation("latest"),
            buckets: metrics.operation("buckets"),
        })
    }
}

#[async_trait]
impl TelemetryStore for MeasuredTelemetry {
    async fn write(&self, batch: TelemetryBatch) -> Result<()> {
        let rows = batch.rows.iter().map(|row| row.body.len());
        let bytes = rows.chain(batch.latest.iter().map(|cell| cell.body.len())).sum();
        self.write.run(bytes, self.store.write(batch), |()| 0).await
    }

    async fn sync(&self) -> Result<()> {
        self.sync.run(0, self.store.sync(), |()| 0).await
    }

    fn losses(&self) -> u64 {
        self.store.losses()
    }

    async fn rows(&self, series: &SeriesKey, bucket: BucketId, scan: RowScan) -> Result<Vec<Row>> {
        let work = self.store.rows(series, bucket, scan);
        self.rows.run(0, work, |rows| rows.iter().map(|row| row.body.len()).sum()).await
    }

    async fn latest(&self, series: &SeriesKey) -> Result<Vec<LatestCell>> {
        let work = self.store.latest(series);
        self.latest.run(0, work, |cells| cells.iter().map(|cell| cell.body.len()).sum()).await
    }

    async fn buckets(
        &self,
        series: &SeriesKey,
        from: Timestamp,
        to: Timestamp,
        after: Option<BucketId>,
        limit: usize,
    ) -> Result<Vec<BucketRow>> {
        self.buckets.run(0, self.store.buckets(series, from, to, after, limit), |_| 0).await
    }
}
