//! What the unit tests stand on: a store in memory, and rows as the writer makes them.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use weir_core::{
    DeviceId, Partition, Position, Reading, Result, Stream, TenantId, Timestamp, Uid, Value,
    device::Device,
    port::{
        BucketId, BucketRow, LatestCell, Row, RowScan, ScanOrder, SeriesKey, TelemetryBatch, TelemetryStore,
        Width,
    },
};
use weir_frame::row::{encode_latest, encode_row};

type RowKey = (SeriesKey, BucketId, Timestamp, Position);

/// The telemetry store by the letter of its port, and as unhelpful as the port allows: it gives buckets that end up to a
/// day before the range.
#[derive(Default)]
pub(crate) struct MemoryStore {
    pub(crate) rows: Mutex<BTreeMap<RowKey, Row>>,
    pub(crate) cells: Mutex<BTreeMap<(SeriesKey, Arc<str>), LatestCell>>,
    pub(crate) buckets: Mutex<BTreeMap<(SeriesKey, BucketId), BucketRow>>,
}

#[async_trait]
impl TelemetryStore for MemoryStore {
    async fn write(&self, batch: TelemetryBatch) -> Result<()> {
        for bucket in batch.buckets {
            self.buckets.lock().insert((bucket.series.clone(), bucket.bucket), bucket);
        }
        for row in batch.rows {
            self.rows.lock().insert((row.series.clone(), row.bucket, row.ts, row.position), row);
        }
        for cell in batch.latest {
            let mut cells = self.cells.lock();
            let known = cells.get(&(cell.series.clone(), Arc::clone(&cell.metric)));
            if known.is_none_or(|known| (cell.ts, cell.position) > (known.ts, known.position)) {
                cells.insert((cell.series.clone(), Arc::clone(&cell.metric)), cell);
            }
        }
        Ok(())
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }

    async fn rows(&self, series: &SeriesKey, bucket: BucketId, scan: RowScan) -> Result<Vec<Row>> {
        let rows = self.rows.lock();
        let of_bucket = rows.values().filter(|row| {
            row.series == *series && row.bucket == bucket && row.ts >= scan.from && row.ts < scan.to
        });
        let mut found: Vec<Row> = of_bucket.cloned().collect();
        found.sort_by_key(|row| (row.ts, row.position));
        if scan.order == ScanOrder::Descending {
            found.reverse();
        }
        let is_after = |row: &Row| match (scan.after, scan.order) {
            (None, _) => true,
            (Some(after), ScanOrder::Ascending) => (row.ts, row.position) > after,
            (Some(after), ScanOrder::Descending) => (row.ts, row.position) < after,
        };
        Ok(found.into_iter().filter(is_after).take(scan.limit).collect())
    }

    async fn latest(&self, series: &SeriesKey) -> Result<Vec<LatestCell>> {
        Ok(self.cells.lock().values().filter(|cell| cell.series == *series).cloned().collect())
    }

    async fn buckets(
        &self,
        series: &SeriesKey,
        from: Timestamp,
        to: Timestamp,
        after: Option<BucketId>,
        limit: usize,
    ) -> Result<Vec<BucketRow>> {
        let buckets = self.buckets.lock();
        let earliest = from.as_micros().saturating_sub(Width::Day.micros());
        let is_in = |row: &&BucketRow| {
            row.series == *series
                && row.bucket.start < to
                && row.bucket.end().as_micros() > earliest
                && after.is_none_or(|after| row.bucket > after)
        };
        Ok(buckets.values().filter(is_in).take(limit).cloned().collect())
    }
}

pub(crate) fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

pub(crate) fn device(id: &str) -> Arc<Device> {
    Arc::new(Device {
        tenant: tenant(),
        id: DeviceId::new(id).unwrap(),
        uid: Uid::hash(&[id.as_bytes()]),
        profile: "default".to_owned(),
        labels: BTreeMap::default(),
        attributes: BTreeMap::default(),
        enabled: true,
        gateway: false,
        created_at: Timestamp::from_micros(0),
        updated_at: Timestamp::from_micros(0),
    })
}

pub(crate) fn series(id: &str) -> SeriesKey {
    SeriesKey { tenant: tenant(), uid: Uid::hash(&[id.as_bytes()]) }
}

pub(crate) fn position(sequence: u64) -> Position {
    Position { stream: Stream::Readings, generation: 1, sequence, index: 0, partition: Partition(0) }
}

pub(crate) fn reading(ts: i64, values: &[(&str, Value)]) -> Reading {
    Reading {
        ts: Timestamp::from_micros(ts),
        received_at: Timestamp::from_micros(ts + 1),
        claimed_ts: None,
        values: values.iter().map(|(metric, value)| (Arc::from(*metric), value.clone())).collect(),
    }
}

impl MemoryStore {
    /// Puts a reading into a bucket, as a writer would.
    pub(crate) async fn put(&self, series: &SeriesKey, bucket: BucketId, at: Position, reading: &Reading) {
        let latest = reading.values.iter().map(|(metric, value)| LatestCell {
            series: series.clone(),
            metric: Arc::clone(metric),
            ts: reading.ts,
            position: at,
            body: encode_latest(value, reading.received_at),
        });
        let batch = TelemetryBatch {
            buckets: vec![BucketRow {
                series: series.clone(),
                bucket,
                bytes: 0,
                seal_generation: 0,
                sealed_through: None,
            }],
            rows: vec![Row {
                series: series.clone(),
                bucket,
                ts: reading.ts,
                position: at,
                body: encode_row(reading, |_| false),
            }],
            latest: latest.collect(),
        };
        self.write(batch).await.unwrap();
    }
}
