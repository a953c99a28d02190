//! `cargo bench -p weir-log-embedded`: 100 readings made durable, by the log and by a raw fjall batch with its sync, in
//! one run. Elements are readings. The last lines compare them in turns, because a disk that others use drifts more
//! between two benches than they differ.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)] // a bench's panic, and its print, is its report

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use futures::future::join_all;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use weir_core::{Partition, Stream, Uid, port::Log as _};
use weir_log_embedded::{EmbeddedLog, Options};

const READINGS: u64 = 100;
/// A reading of five doubles, with its share of the dictionary, in a frame or in a row.
const READING_BYTES: usize = 70;
const PARTITIONS: u16 = 16;

/// A raw fjall keyspace.
struct Raw {
    database: Database,
    rows: Keyspace,
    next: u128,
    _dir: TempDir,
}

impl Raw {
    fn open() -> Self {
        let dir = TempDir::new().unwrap();
        let database = Database::builder(dir.path()).open().unwrap();
        let rows = database.keyspace("rows", KeyspaceCreateOptions::default).unwrap();
        Self { database, rows, next: 0, _dir: dir }
    }

    fn write(&mut self) {
        let mut batch = self.database.batch();
        for _ in 0..READINGS {
            self.next += 1;
            batch.insert(&self.rows, self.next.to_be_bytes(), vec![7; READING_BYTES]);
        }
        batch.commit().unwrap();
        self.database.persist(PersistMode::SyncData).unwrap();
    }
}

fn fjall_batch(c: &mut Criterion) {
    let mut raw = Raw::open();
    let mut group = c.benchmark_group("durable_100_readings");
    group.throughput(Throughput::Elements(READINGS));
    group.bench_function("fjall_batch_and_fdatasync", |b| b.iter(|| raw.write()));
    group.finish();
}

fn frame() -> Bytes {
    vec![7; READINGS as usize * READING_BYTES].into()
}

fn open(dir: &TempDir) -> (Runtime, Arc<EmbeddedLog>) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    (runtime, Arc::new(EmbeddedLog::open(dir.path(), Options::default()).unwrap()))
}

async fn publish(log: &EmbeddedLog, partition: u16, frame: &Bytes) {
    log.publish(Stream::Readings, Partition(partition), Uid::random(), frame.clone()).await.unwrap();
}

fn log_of_one_publisher(c: &mut Criterion) {
    let dir = TempDir::new().unwrap();
    let (runtime, log) = open(&dir);
    let frame = frame();
    let mut group = c.benchmark_group("durable_100_readings");
    group.throughput(Throughput::Elements(READINGS));
    group.bench_function("log_one_frame_at_a_time", |b| {
        b.to_async(&runtime).iter(|| publish(&log, 0, &frame));
    });
    group.finish();
}

fn log_of_all_partitions(c: &mut Criterion) {
    let dir = TempDir::new().unwrap();
    let (runtime, log) = open(&dir);
    let frame = frame();
    let mut group = c.benchmark_group("durable_100_readings");
    group.throughput(Throughput::Elements(READINGS * u64::from(PARTITIONS)));
    group.bench_function("log_one_frame_in_flight_a_partition", |b| {
        b.to_async(&runtime).iter(|| async {
            join_all((0..PARTITIONS).map(|partition| publish(&log, partition, &frame))).await
        });
    });
    group.finish();
}

fn in_turns(_: &mut Criterion) {
    const ROUNDS: usize = 15;
    const WRITES: u32 = 100;
    let dir = TempDir::new().unwrap();
    let ((runtime, log), frame) = (open(&dir), frame());
    let mut raw = Raw::open();
    let mut ratios = [(); 2].map(|()| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        let fjall = time(|| (0..WRITES).for_each(|_| raw.write())) / WRITES;
        let one = time(|| (0..WRITES).for_each(|_| runtime.block_on(publish(&log, 0, &frame)))) / WRITES;
        let all = time(|| {
            let publishes = || join_all((0..PARTITIONS).map(|partition| publish(&log, partition, &frame)));
            (0..WRITES).for_each(|_| drop(runtime.block_on(publishes())));
        }) / WRITES
            / u32::from(PARTITIONS);
        for (ratios, log) in ratios.iter_mut().zip([one, all]) {
            ratios.push(fjall.as_secs_f64() / log.as_secs_f64());
        }
    }
    for (name, mut ratios) in
        ["one frame at a time", "one frame in flight a partition"].into_iter().zip(ratios)
    {
        ratios.sort_by(f64::total_cmp);
        let median = ratios.get(ROUNDS / 2).unwrap();
        println!("readings/s of the log over a raw fjall batch and fdatasync, {name}: {median:.2} (median)");
    }
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(5)).sample_size(20);
    targets = fjall_batch, log_of_one_publisher, log_of_all_partitions, in_turns
}
criterion_main!(benches);
