//! Small records, measured.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use weir_core::{
    Result,
    port::{KeyRange, Op, Records, Stored, Table, Write},
};

use super::{StoreMetrics, store::Operation};

/// Records that are measured.
pub struct MeasuredRecords {
    records: Arc<dyn Records>,
    get: Operation,
    scan: Operation,
    commit: Operation,
    partitions: Operation,
}

impl MeasuredRecords {
    /// Measures `records`.
    pub fn over(records: Arc<dyn Records>, metrics: &StoreMetrics) -> Arc<Self> {
        Arc::new(Self {
            records,
            get: metrics.operation("get"),
            scan: metrics.operation("scan"),
            commit: metrics.operation("commit"),
            partitions: metrics.operation("partitions"),
        })
    }
}

#[async_trait]
impl Records for MeasuredRecords {
    async fn get(&self, table: Table, partition: &[u8], key: &[u8]) -> Result<Option<Stored>> {
        let work = self.records.get(table, partition, key);
        self.get.run(0, work, |found| found.as_ref().map_or(0, |stored| stored.value.len())).await
    }

    async fn scan(
        &self,
        table: Table,
        partition: &[u8],
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<Stored>> {
        let work = self.records.scan(table, partition, range, limit);
        self.scan.run(0, work, |found| found.iter().map(|stored| stored.value.len()).sum()).await
    }

    async fn commit(&self, table: Table, partition: &[u8], writes: Vec<Write>) -> Result<Vec<u64>> {
        let value = |write: &Write| match &write.op {
            Op::Put(value) => value.len(),
            Op::Delete | Op::Check => 0,
        };
        let bytes = writes.iter().map(value).sum();
        self.commit.run(bytes, self.records.commit(table, partition, writes), |_| 0).await
    }

    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        let work = self.records.partitions(table, after, limit);
        self.partitions.run(0, work, |names| names.iter().map(Bytes::len).sum()).await
    }
}
