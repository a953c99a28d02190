//! `cargo bench -p weir-log-embedded`: 100 readings made durable, by the log and by a raw fjall batch with its sync, in
//! one run. Elements are readings.
#![allow(missing_docs, clippy::unwrap_used)] // a bench's panic is its report

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use futures::future::join_all;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use weir_core::{Partition, Stream, Uid, port::Log as _};
use weir_log_embedded::{EmbeddedLog, Options};

const READINGS: u64 = 100;
/// A reading of five doubles, with its share of the dictionary, in a frame or in a row.
const READING_BYTES: usize = 70;
const PARTITIONS: u16 = 16;

fn fjall_batch(c: &mut Criterion) {
    let dir = TempDir::new().unwrap();
    let database = Database::builder(dir.path()).open().unwrap();
    let rows = database.keyspace("rows", KeyspaceCreateOptions::default).unwrap();
    let mut next = 0_u128;
    let mut group = c.benchmark_group("durable_100_readings");
    group.throughput(Throughput::Elements(READINGS));
    group.bench_function("fjall_batch_and_fdatasync", |b| {
        b.iter(|| {
            let mut batch = database.batch();
            for _ in 0..READINGS {
                next += 1;
                batch.insert(&rows, next.to_be_bytes(), vec![7; READING_BYTES]);
            }
            batch.commit().unwrap();
            database.persist(PersistMode::SyncData).unwrap();
        });
    });
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

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(5)).sample_size(20);
    targets = fjall_batch, log_of_one_publisher, log_of_all_partitions
}
criterion_main!(benches);
