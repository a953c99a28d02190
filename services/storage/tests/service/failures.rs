//! What storage does when a frame or an engine fails.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use weir_core::{
    Error, Partition, Position, Result, Stream, Timestamp, Uid, Value,
    port::{
        BucketId, BucketRow, KeyRange, LatestCell, Row, RowScan, SeriesKey, Table, TelemetryBatch,
        TelemetryStore,
    },
};
use weir_runtime::Service as _;

use crate::harness::{Engines, PARTITIONS, World, config, eventually, message, query_of, uid};

const TS: i64 = 1_700_000_000_000_000;

/// A store that is away while told so.
struct Flaky {
    inner: Arc<dyn TelemetryStore>,
    away: AtomicBool,
}

impl Flaky {
    fn check(&self) -> Result<()> {
        if self.away.load(Ordering::Acquire) { Err(Error::unavailable("the store is away")) } else { Ok(()) }
    }
}

#[async_trait]
impl TelemetryStore for Flaky {
    async fn write(&self, batch: TelemetryBatch) -> Result<()> {
        self.check()?;
        self.inner.write(batch).await
    }
    async fn sync(&self) -> Result<()> {
        self.check()?;
        self.inner.sync().await
    }
    async fn rows(&self, series: &SeriesKey, bucket: BucketId, scan: RowScan) -> Result<Vec<Row>> {
        self.inner.rows(series, bucket, scan).await
    }
    async fn latest(&self, series: &SeriesKey) -> Result<Vec<LatestCell>> {
        self.inner.latest(series).await
    }
    async fn buckets(
        &self,
        series: &SeriesKey,
        from: Timestamp,
        to: Timestamp,
        after: Option<BucketId>,
        limit: usize,
    ) -> Result<Vec<BucketRow>> {
        self.inner.buckets(series, from, to, after, limit).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_makes_storage_unready_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut engines = Engines::open(dir.path()).await;
    let flaky = Arc::new(Flaky { inner: Arc::clone(&engines.store), away: AtomicBool::new(false) });
    engines.store = Arc::clone(&flaky) as _;
    let world = World::start(engines, config()).await;
    world.devices.add("a", &[]);
    let mut positions = vec![];
    for round in 0..3_i64 {
        flaky.away.store(true, Ordering::Release);
        for n in 0..20 {
            let ts = TS + round * 100 + n;
            positions.push(world.publish(&[message("a", &[(ts, &[("n", Value::Int64(n))])])]).await);
        }
        eventually("storage says that it is not ready", async || world.service.ready().await.is_err()).await;
        flaky.away.store(false, Ordering::Release);
        world.written(&positions).await;
    }
    eventually("storage is ready again", async || world.service.ready().await.is_ok()).await;
    assert_eq!(world.query(query_of(&["a"])).await.unwrap().len(), 60);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_cannot_be_decoded_is_kept_aside_and_blocks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut small = config();
    small.writer.poison_frames = 2;
    let world = World::open(dir.path(), small).await;
    world.devices.add("a", &[]);
    let partition = Partition::of(uid("a"), PARTITIONS);
    for n in 0..3 {
        let bytes = Bytes::from(format!("not a frame {n}"));
        world.log.publish(Stream::Readings, partition, Uid::random(), bytes).await.unwrap();
    }
    let after = world.publish(&[message("a", &[(TS, &[("n", Value::Int64(1))])])]).await;
    world.written(&[after]).await;
    assert_eq!(world.query(query_of(&["a"])).await.unwrap().len(), 1);
    let place = format!("{:05}", partition.0);
    let bodies = KeyRange::prefix(b"body/");
    let kept = world.records.scan(Table("poison_frames"), place.as_bytes(), bodies, 10).await.unwrap();
    let kept: Vec<&[u8]> = kept.iter().map(|stored| stored.value.as_ref()).collect();
    assert_eq!(kept, [b"not a frame 1", b"not a frame 2"], "the oldest made room");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_made_anew_is_read_under_a_new_generation_and_old_positions_are_lost() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path(), config()).await;
    let mut positions = vec![];
    for n in 0..10 {
        positions.push(world.publish(&[message("a", &[(TS + n, &[("n", Value::Int64(n))])])]).await);
    }
    world.written(&positions).await;
    world.end().await;
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();

    let world = World::open(dir.path(), config()).await;
    world.devices.add("a", &[]);
    let anew = world.publish(&[message("a", &[(TS, &[("n", Value::Int64(100))])])]).await;
    let anew = Position { generation: 2, ..anew };
    let request =
        weir_proto::storage::v1::QueryRequest { min_positions: vec![anew.to_string()], ..query_of(&["a"]) };
    let points = world.query(request).await.unwrap();
    assert_eq!(points.len(), 10, "what was stored stays");
    assert_eq!(points[0].position, anew.to_string(), "a newer generation wins");
    let old = positions.last().unwrap().to_string();
    let request = weir_proto::storage::v1::QueryRequest { min_positions: vec![old], ..query_of(&["a"]) };
    assert_eq!(world.query(request).await.unwrap_err().code(), tonic::Code::FailedPrecondition);
    world.end().await;
}
