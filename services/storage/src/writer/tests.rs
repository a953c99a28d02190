//! Owners over a store whose syncs are slow, and which forgets what was not synced when one fails.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use weir_config::ByteSize;
use weir_core::{
    DeviceId, Error, Message, Partition, Position, Result, Stream, SystemClock, TenantId, Timestamp, Uid,
    Value,
    device::{Device, Profile},
    port::{
        BucketId, BucketRow, LatestCell, Log, Records, Registry, Row, RowScan, SeriesKey, TelemetryBatch,
        TelemetryStore,
    },
    principal::Principal,
    progress::all_progress,
    selector::Selector,
};
use weir_frame::Encoder;
use weir_log_embedded::{EmbeddedLog, LocalLeases, LocalSignals};
use weir_runtime::Service as _;
use weir_store_embedded::EmbeddedStore;

use crate::{
    Config, Service,
    testing::{MemoryStore, reading, tenant},
};

const PATIENCE: Duration = Duration::from_secs(30);
const DEVICES: u64 = 4;

/// Rows, newest values and buckets, as text.
type Content = (Vec<String>, Vec<String>, Vec<String>);

/// The store, what of it is durable, and how its next syncs go.
#[derive(Default)]
struct Forgetful {
    now: MemoryStore,
    durable: MemoryStore,
    held_back: Mutex<Option<Arc<Semaphore>>>,
    failing: AtomicU64,
    syncs: AtomicU64,
}

impl Forgetful {
    fn copy(from: &MemoryStore, to: &MemoryStore) {
        to.rows.lock().clone_from(&from.rows.lock());
        to.cells.lock().clone_from(&from.cells.lock());
        to.buckets.lock().clone_from(&from.buckets.lock());
    }

    fn content(&self) -> Content {
        fn texts<'a, T: std::fmt::Debug + 'a>(values: impl Iterator<Item = &'a T>) -> Vec<String> {
            values.map(|value| format!("{value:?}")).collect()
        }
        let now = &self.now;
        (
            texts(now.rows.lock().values()),
            texts(now.cells.lock().values()),
            texts(now.buckets.lock().values()),
        )
    }
}

#[async_trait]
impl TelemetryStore for Forgetful {
    async fn write(&self, batch: TelemetryBatch) -> Result<()> {
        self.now.write(batch).await
    }

    async fn sync(&self) -> Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        let begun = MemoryStore::default();
        Self::copy(&self.now, &begun);
        let gate = self.held_back.lock().clone();
        if let Some(gate) = gate {
            let _pass = gate.acquire().await;
        }
        let fails = self.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if fails.is_ok() {
            Self::copy(&self.durable, &self.now);
            return Err(Error::unavailable("a node of the store was restarted"));
        }
        Self::copy(&begun, &self.durable);
        Ok(())
    }

    async fn rows(&self, series: &SeriesKey, bucket: BucketId, scan: RowScan) -> Result<Vec<Row>> {
        self.now.rows(series, bucket, scan).await
    }
    async fn latest(&self, series: &SeriesKey) -> Result<Vec<LatestCell>> {
        self.now.latest(series).await
    }
    async fn buckets(
        &self,
        series: &SeriesKey,
        from: Timestamp,
        to: Timestamp,
        after: Option<BucketId>,
        limit: usize,
    ) -> Result<Vec<BucketRow>> {
        self.now.buckets(series, from, to, after, limit).await
    }
}

/// A registry that nobody asks.
struct Nobody;

#[async_trait]
impl Registry for Nobody {
    async fn authenticate(&self, _: &str) -> Result<Principal> {
        Err(Error::unauthenticated("nobody is known"))
    }
    async fn device(&self, _: &TenantId, device: &DeviceId) -> Result<Arc<Device>> {
        Err(Error::not_found(device))
    }
    async fn profile(&self, _: &TenantId, profile: &str) -> Result<Arc<Profile>> {
        Err(Error::not_found(profile))
    }
    async fn select(
        &self,
        _: &TenantId,
        _: &Selector,
        _: Option<&DeviceId>,
        _: usize,
    ) -> Result<Vec<Arc<Device>>> {
        Ok(vec![])
    }
}

struct Fixture {
    service: Arc<Service>,
    store: Arc<Forgetful>,
    log: Arc<dyn Log>,
    records: Arc<dyn Records>,
}

impl Fixture {
    async fn open(dir: &Path) -> Self {
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(&dir.join("log"), Default::default()).unwrap());
        let records: Arc<dyn Records> = EmbeddedStore::open(dir.join("store"), Default::default()).unwrap();
        let store = Arc::new(Forgetful::default());
        let mut config = Config { partitions: 1, ..Config::default() };
        config.writer.checkpoint_interval = Duration::from_millis(2);
        // So that buckets fill, devices are forgotten and read again, and every frame is a write of its own.
        config.writer.bucket = ByteSize(500);
        config.writer.devices_cached = 2;
        config.writer.read = ByteSize(1);
        let service = Service::start(
            config,
            Arc::clone(&log),
            Arc::clone(&records),
            Arc::clone(&store) as _,
            Arc::new(LocalSignals::new()),
            Arc::new(LocalLeases::new()),
            Arc::new(Nobody),
            Arc::new(SystemClock),
            &prometheus::Registry::new(),
        )
        .await
        .unwrap();
        Self { service, store, log, records }
    }

    /// Publishes frames `from..to` of a sequence that is always the same, and gives the last one's position.
    async fn publish(&self, frames: std::ops::Range<u64>) -> Position {
        let mut sequence = 0;
        for n in frames {
            let device = format!("device-{}", n * 7 % DEVICES);
            let late = if n % 5 == 0 { 90_000_000_000 } else { 0 };
            let ts = 1_700_000_000_000_000 + n as i64 * 300_000 - late;
            let message = Message {
                tenant: tenant(),
                uid: Uid::hash(&[device.as_bytes()]),
                device: DeviceId::new(device).unwrap(),
                readings: vec![reading(ts, &[("n", Value::Int64(n as i64))])],
                trace_context: None,
            };
            let mut encoder = Encoder::new();
            encoder.push(&message).unwrap();
            let id = Uid::hash(&[&n.to_be_bytes()]);
            sequence = self.log.publish(Stream::Readings, Partition(0), id, encoder.finish()).await.unwrap();
        }
        Position { stream: Stream::Readings, generation: 1, sequence, index: 0, partition: Partition(0) }
    }

    async fn written(&self, position: Position) {
        self.eventually("it is written", async || {
            self.service.lag().await.unwrap().iter().all(|lag| lag.written >= position.sequence)
        })
        .await;
    }

    async fn recorded(&self) -> u64 {
        let found = all_progress(&*self.records, Stream::Readings, &["storage"], 1).await.unwrap();
        found[0].progress.sequence
    }

    async fn eventually(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let until = tokio::time::Instant::now() + PATIENCE;
        while !condition().await {
            assert!(tokio::time::Instant::now() < until, "not within {PATIENCE:?}: {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn end(self) -> Content {
        self.service.stop_intake().await;
        self.service.drain().await;
        self.store.content()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_written_on_while_a_sync_is_under_way_and_progress_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    let first = fixture.publish(0..20).await;
    fixture.eventually("progress is recorded", async || fixture.recorded().await >= first.sequence).await;
    let gate = Arc::new(Semaphore::new(0));
    *fixture.store.held_back.lock() = Some(Arc::clone(&gate));
    let syncs = fixture.store.syncs.load(Ordering::SeqCst);
    let one_more = fixture.publish(20..21).await;
    fixture
        .eventually("a sync is under way", async || fixture.store.syncs.load(Ordering::SeqCst) > syncs)
        .await;
    let last = fixture.publish(21..120).await;
    fixture.written(last).await;
    assert!(fixture.recorded().await < one_more.sequence, "nothing is recorded that is not durable");
    assert_eq!(fixture.store.syncs.load(Ordering::SeqCst), syncs + 1, "one sync at a time");
    gate.add_permits(1_000);
    fixture.eventually("progress is recorded", async || fixture.recorded().await >= last.sequence).await;
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_forgot_what_was_not_synced_holds_the_same_in_the_end() {
    let undisturbed = {
        let dir = tempfile::tempdir().unwrap();
        let fixture = Fixture::open(dir.path()).await;
        let last = fixture.publish(0..200).await;
        fixture.written(last).await;
        fixture.end().await
    };
    assert!(undisturbed.0.len() == 200 && undisturbed.2.len() > DEVICES as usize, "buckets were full");

    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path()).await;
    for round in 0..4_u64 {
        let gate = Arc::new(Semaphore::new(0));
        *fixture.store.held_back.lock() = Some(Arc::clone(&gate));
        let last = fixture.publish(round * 50..(round + 1) * 50).await;
        fixture.written(last).await;
        fixture.store.failing.store(1 + round % 2, Ordering::SeqCst);
        gate.add_permits(1_000);
        fixture
            .eventually("the sync has failed", async || fixture.store.failing.load(Ordering::SeqCst) == 0)
            .await;
        fixture.eventually("progress is recorded", async || fixture.recorded().await >= last.sequence).await;
    }
    assert!(fixture.end().await == undisturbed, "a row, a newest value or a bucket differs");
}
