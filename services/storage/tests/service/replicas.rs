//! Several replicas over the same log and store: partitions move, and nothing else changes.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Streaming;
use weir_conformance::board::{Board, Seat};
use weir_core::{
    ErrorKind, Partition, Position, Result, Stream, Timestamp, Value,
    port::{
        BucketId, BucketRow, KeyRange, LatestCell, Records, Row, RowScan, SeriesKey, Stored, Table,
        TelemetryBatch, TelemetryStore, Write,
    },
    progress::{PROGRESS, all_progress},
};
use weir_proto::storage::v1 as pb;
use weir_runtime::Service as _;
use weir_storage::Config;

use crate::harness::{
    Engines, World, as_reader, config, devices, eventually, message, micros, publish, query_of, soon, uid,
};

const MANY: u16 = 6;
const START: i64 = 1_700_000_000_000_000;
const DEVICES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

fn many() -> Config {
    Config { partitions: MANY, ..config() }
}

/// The engines that every replica of a test shares, and where the replicas meet.
struct Site {
    engines: Engines,
    board: Board,
    _dir: tempfile::TempDir,
}

impl Site {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { engines: Engines::open(Path::new(dir.path())).await, board: Board::default(), _dir: dir }
    }

    fn engines_of(&self, seat: &Seat) -> Engines {
        Engines { leases: Arc::new(seat.clone()), ..self.engines.clone() }
    }

    async fn replica(&self, name: &str) -> (World, Seat) {
        let seat = self.board.seat(name);
        (start(self.engines_of(&seat)).await, seat)
    }

    /// One reading of a device in a frame: `n` counts.
    async fn publish(&self, id: &str, n: i64) -> Position {
        let made = message(id, &[(START + n, &[("n", Value::Int64(n))])]);
        publish(&*self.engines.log, MANY, &[made]).await
    }

    /// (epoch, generation, sequence) of storage's progress in each partition.
    async fn progress(&self) -> Vec<(u64, u32, u64)> {
        let found = all_progress(&*self.engines.records, Stream::Readings, &["storage"], MANY).await.unwrap();
        found.iter().map(|one| (one.epoch, one.progress.generation, one.progress.sequence)).collect()
    }

    async fn recorded_to_the_end(&self, positions: &[Position]) {
        eventually("progress is recorded to the end", async || {
            let progress = self.progress().await;
            positions
                .iter()
                .all(|position| progress[usize::from(position.partition.0)].2 >= position.sequence)
        })
        .await;
    }
}

fn partition_of(id: &str) -> usize {
    usize::from(Partition::of(uid(id), MANY).0)
}

async fn start(engines: Engines) -> World {
    let world = World::start(engines, many()).await;
    DEVICES.iter().for_each(|id| world.devices.add(id, &[]));
    world
}

/// Every reading of every device as `world` answers it: how often each is there.
async fn answers(world: &World, positions: &[Position]) -> BTreeMap<(String, i64), usize> {
    let mut newest: BTreeMap<Partition, Position> = BTreeMap::new();
    for position in positions {
        newest.insert(position.partition, *position);
    }
    let min_positions = newest.values().map(ToString::to_string).collect();
    let request = pb::QueryRequest { min_positions, ..query_of(&DEVICES) };
    let mut found = BTreeMap::new();
    for point in world.query(request).await.unwrap() {
        *found.entry((point.device, micros(&point.ts) - START)).or_default() += 1;
    }
    found
}

async fn rows(world: &World) -> usize {
    let mut rows = 0;
    for id in DEVICES {
        rows += world.dump(id).await.rows.len();
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_come_and_go_while_frames_flow_and_every_row_is_there_once() {
    let site = Site::open().await;
    let stop = AtomicBool::new(false);
    let flow = async {
        let mut positions = vec![];
        for n in 0.. {
            if stop.load(Ordering::Acquire) {
                break;
            }
            positions.push(site.publish(DEVICES[n % DEVICES.len()], n as i64).await);
        }
        positions
    };
    let watch_progress = async {
        let mut before = site.progress().await;
        while !stop.load(Ordering::Acquire) {
            let now = site.progress().await;
            assert!(before.iter().zip(&now).all(|(before, now)| before <= now), "{before:?} fell to {now:?}");
            before = now;
            tokio::task::yield_now().await;
        }
    };
    let scale = async {
        let (one, _) = site.replica("one").await;
        let (two, _) = site.replica("two").await;
        let (three, _) = site.replica("three").await;
        let moved_on = async || {
            let before = site.progress().await;
            eventually("every partition with frames goes on", async || {
                let now = site.progress().await;
                DEVICES.iter().map(|id| partition_of(id)).all(|partition| now[partition] > before[partition])
            })
            .await;
        };
        moved_on().await;
        one.end().await;
        moved_on().await;
        two.end().await;
        moved_on().await;
        stop.store(true, Ordering::Release);
        three
    };
    let (positions, (), last) = tokio::join!(flow, watch_progress, scale);
    let found = answers(&last, &positions).await;
    let expected =
        (0..positions.len()).map(|n| ((DEVICES[n % DEVICES.len()].to_owned(), n as i64), 1)).collect();
    assert_eq!(found, expected);
    assert_eq!(rows(&last).await, positions.len(), "a frame that two owners wrote is there once");
    site.recorded_to_the_end(&positions).await;
    last.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_waits_for_what_another_writes() {
    let site = Site::open().await;
    let (one, _) = site.replica("one").await;
    let (two, _) = site.replica("two").await;
    for round in 0..5 {
        for world in [&one, &two] {
            for (index, id) in DEVICES.into_iter().enumerate() {
                let n = round * 100 + index as i64;
                let position = site.publish(id, n).await;
                let found = answers(world, &[position]).await;
                assert_eq!(found.get(&(id.to_owned(), n)), Some(&1), "{id} of {position} in round {round}");
            }
        }
    }
    let end = site.publish("a", 1_000).await;
    for world in [&one, &two] {
        eventually("the lag goes to nothing on every replica", async || {
            world
                .service
                .lag()
                .await
                .unwrap()
                .iter()
                .all(|lag| lag.written >= end.sequence && lag.frames == 0)
        })
        .await;
    }
    one.end().await;
    two.end().await;
}

/// Takes points until `count` of them came.
async fn points(tail: &mut Streaming<pb::TailResponse>, count: usize) -> Vec<(String, i64)> {
    let mut found = vec![];
    while found.len() < count {
        let message = soon("the next points of a tail", tail.message()).await.unwrap().expect("it goes on");
        found.extend(message.points.iter().map(|point| (point.device.clone(), micros(&point.ts) - START)));
    }
    found
}

async fn tail(world: &World) -> Streaming<pb::TailResponse> {
    let request = pb::TailRequest {
        parent: "tenants/acme".to_owned(),
        filter: devices(&DEVICES),
        ..Default::default()
    };
    let mut tail = world.client.clone().tail(as_reader(request)).await.unwrap().into_inner();
    loop {
        let message = soon("the snapshot", tail.message()).await.unwrap().expect("it goes on");
        if message.event() == pb::TailEvent::Synced {
            return tail;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_sees_everything_once_and_in_order_whoever_owns_the_partitions() {
    let site = Site::open().await;
    let (one, _) = site.replica("one").await;
    let (two, _) = site.replica("two").await;
    let mut tails = [tail(&one).await, tail(&two).await];
    let mut n = 0;
    let mut others: Vec<World> = vec![];
    for change in 0..3 {
        // A replica comes between the rounds, and another, and goes: the tails go on.
        match change {
            1 => others.push(site.replica("three").await.0),
            2 => others.pop().unwrap().end().await,
            _ => {}
        }
        let first = n;
        for id in DEVICES.into_iter().cycle().take(120) {
            site.publish(id, n).await;
            n += 1;
        }
        for tail in &mut tails {
            let found = points(tail, 120).await;
            for id in DEVICES {
                let of_device: Vec<i64> = found.iter().filter(|(of, _)| of == id).map(|(_, n)| *n).collect();
                let sent: Vec<i64> =
                    (first..n).filter(|n| DEVICES[*n as usize % DEVICES.len()] == id).collect();
                assert_eq!(of_device, sent, "{id} after change {change}");
            }
        }
    }
    one.end().await;
    let [_, mut last] = tails;
    site.publish("a", n).await;
    assert_eq!(points(&mut last, 1).await, [("a".to_owned(), n)]);
    two.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_that_died_had_not_written_another_writes() {
    let site = Site::open().await;
    let (one, seat) = site.replica("one").await;
    let mut positions = vec![];
    for n in 0..50_i64 {
        positions.push(site.publish(DEVICES[n as usize % DEVICES.len()], n).await);
    }
    drop(one);
    seat.cut_off();
    let (two, _) = site.replica("two").await;
    for n in 50..100_i64 {
        positions.push(site.publish(DEVICES[n as usize % DEVICES.len()], n).await);
    }
    let found = answers(&two, &positions).await;
    assert_eq!((found.len(), found.values().max()), (100, Some(&1)));
    assert_eq!(rows(&two).await, 100);
    two.end().await;
}

/// A store that a replica reaches only while it is not stalled, and records that note who was fenced off.
struct Stall {
    store: Arc<dyn TelemetryStore>,
    records: Arc<dyn Records>,
    stalled: watch::Sender<bool>,
    waiting: AtomicUsize,
    fenced: Mutex<Vec<Bytes>>,
}

impl Stall {
    async fn pass(&self) {
        if *self.stalled.borrow() {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            let _ = self.stalled.subscribe().wait_for(|stalled| !stalled).await;
        }
    }
}

#[async_trait]
impl TelemetryStore for Stall {
    async fn write(&self, batch: TelemetryBatch) -> Result<()> {
        self.pass().await;
        self.store.write(batch).await
    }
    async fn sync(&self) -> Result<()> {
        self.store.sync().await
    }
    async fn rows(&self, series: &SeriesKey, bucket: BucketId, scan: RowScan) -> Result<Vec<Row>> {
        self.store.rows(series, bucket, scan).await
    }
    async fn latest(&self, series: &SeriesKey) -> Result<Vec<LatestCell>> {
        self.store.latest(series).await
    }
    async fn buckets(
        &self,
        series: &SeriesKey,
        from: Timestamp,
        to: Timestamp,
        after: Option<BucketId>,
        limit: usize,
    ) -> Result<Vec<BucketRow>> {
        self.store.buckets(series, from, to, after, limit).await
    }
}

#[async_trait]
impl Records for Stall {
    async fn get(&self, table: Table, partition: &[u8], key: &[u8]) -> Result<Option<Stored>> {
        self.records.get(table, partition, key).await
    }
    async fn scan(
        &self,
        table: Table,
        partition: &[u8],
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<Stored>> {
        self.records.scan(table, partition, range, limit).await
    }
    async fn commit(&self, table: Table, partition: &[u8], writes: Vec<Write>) -> Result<Vec<u64>> {
        let done = self.records.commit(table, partition, writes).await;
        if table == PROGRESS && done.as_ref().is_err_and(|error| error.kind() == ErrorKind::Aborted) {
            self.fenced.lock().push(Bytes::copy_from_slice(partition));
        }
        done
    }
    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        self.records.partitions(table, after, limit).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_owner_that_wakes_up_writes_the_same_rows_and_no_progress() {
    let site = Site::open().await;
    let seat = site.board.seat("one");
    let stall = Arc::new(Stall {
        store: Arc::clone(&site.engines.store),
        records: Arc::clone(&site.engines.records),
        stalled: watch::Sender::new(false),
        waiting: AtomicUsize::new(0),
        fenced: Mutex::default(),
    });
    let slow = Engines {
        store: Arc::clone(&stall) as _,
        records: Arc::clone(&stall) as _,
        ..site.engines_of(&seat)
    };
    let one = start(slow).await;
    let mut positions = vec![];
    for n in 0..40_i64 {
        positions.push(site.publish(DEVICES[n as usize % DEVICES.len()], n).await);
    }
    site.recorded_to_the_end(&positions).await;
    stall.stalled.send_replace(true);
    for n in 40..80_i64 {
        positions.push(site.publish(DEVICES[n as usize % DEVICES.len()], n).await);
    }
    let partitions: std::collections::BTreeSet<_> =
        positions.iter().map(|position| position.partition).collect();
    // At least as many as may write at once; the others wait for them.
    eventually("owners are stalled", async || stall.waiting.load(Ordering::SeqCst) >= 2).await;
    seat.cut_off(); // it still believes that everything is its own
    let (two, _) = site.replica("two").await;
    answers(&two, &positions).await;
    site.recorded_to_the_end(&positions).await;
    let (rows_before, progress) = (rows(&two).await, site.progress().await);
    assert_eq!(rows_before, 80);

    stall.stalled.send_replace(false);
    eventually("each owner that woke up is fenced off", async || {
        let fenced: std::collections::BTreeSet<_> = stall.fenced.lock().iter().cloned().collect();
        fenced.len() >= partitions.len()
    })
    .await;
    seat.come_back();
    let found = answers(&two, &positions).await;
    assert_eq!((found.len(), found.values().max()), (80, Some(&1)));
    assert_eq!(rows(&two).await, rows_before, "what it wrote was there");
    assert!(site.progress().await.iter().zip(&progress).all(|(now, before)| now >= before));
    eventually("both are ready", async || {
        one.service.ready().await.is_ok() && two.service.ready().await.is_ok()
    })
    .await;
    one.end().await;
    two.end().await;
}
