//! Rows and commits a second: `cargo bench -p weir-store-embedded`.
//!
//! `rows`: batches of 1,000 small rows with their newest values, synced after each tenth, as storage writes them.
//! `commits`: 64 callers, each with one small record; a group shares one sync.

#![allow(clippy::expect_used, reason = "a bench fails by panicking")]

use std::{hint::black_box, sync::Arc, time::Duration};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::future::join_all;
use tokio::runtime::Runtime;
use weir_core::{
    Partition, Position, Stream, TenantId, Timestamp, Uid,
    port::{
        BucketId, LatestCell, Records, Row, SeriesKey, Table, TelemetryBatch, TelemetryStore, Width, Write,
    },
};
use weir_store_embedded::{Durability, EmbeddedStore, Options};

const ROWS: u64 = 1_000;
const SERIES: u64 = 100;
const BATCHES_A_SYNC: u64 = 10;
const T0: i64 = 1_424_044_800_000_000;

/// What storage writes for one frame of 1,000 readings of 100 devices with one metric.
fn batch(sequence: u64) -> TelemetryBatch {
    let tenant = TenantId::new("default").expect("a valid tenant");
    let series =
        |n: u64| SeriesKey { tenant: tenant.clone(), uid: Uid::hash(&[&(n % SERIES).to_be_bytes()]) };
    let ts = |n: u64| Timestamp::from_micros(T0 + i64::try_from(sequence * ROWS + n).unwrap_or(0) * 100_000);
    let position = |n: u64| Position {
        stream: Stream::Readings,
        generation: 1,
        sequence,
        index: u32::try_from(n).unwrap_or(0),
        partition: Partition(0),
    };
    let row = |n| Row {
        series: series(n),
        bucket: BucketId::containing(ts(n), Width::Hour),
        ts: ts(n),
        position: position(n),
        body: Bytes::from(format!("{n:040}")),
    };
    let cell = |n| LatestCell {
        series: series(n),
        metric: "temperature".into(),
        ts: ts(n),
        position: position(n),
        body: Bytes::from_static(b"123456789"),
    };
    TelemetryBatch {
        buckets: vec![],
        rows: (0..ROWS).map(row).collect(),
        latest: (ROWS - SERIES..ROWS).map(cell).collect(),
    }
}

fn open(durability: Durability) -> (Arc<EmbeddedStore>, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory for the bench");
    let options = Options { durability, ..Options::default() };
    (EmbeddedStore::open(dir.path(), options).expect("an empty store"), dir)
}

fn rows(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("rows");
    group.throughput(Throughput::Elements(ROWS * BATCHES_A_SYNC)).sample_size(20);
    group.measurement_time(Duration::from_secs(10));
    for durability in [Durability::PowerLoss, Durability::Process] {
        let (store, _dir) = open(durability);
        let mut sequence = 0;
        group.bench_function(BenchmarkId::from_parameter(format!("{durability:?}")), |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    for _ in 0..BATCHES_A_SYNC {
                        sequence += 1;
                        store.write(black_box(batch(sequence))).await.expect("a write");
                    }
                    store.sync().await.expect("a sync");
                });
            });
        });
    }
    group.finish();
}

fn commits(criterion: &mut Criterion) {
    const CALLERS: u64 = 64;
    let runtime = Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("commits");
    group.throughput(Throughput::Elements(CALLERS)).sample_size(20);
    for durability in [Durability::PowerLoss, Durability::Process] {
        let (store, _dir) = open(durability);
        group.bench_function(BenchmarkId::from_parameter(format!("{durability:?}")), |bencher| {
            bencher.iter(|| {
                let calls = (0..CALLERS).map(|caller| {
                    let write = Write::put(caller.to_be_bytes().to_vec(), vec![7; 100]);
                    store.commit(Table("bench"), b"partition", vec![write])
                });
                runtime.block_on(join_all(calls)).into_iter().for_each(|outcome| {
                    outcome.expect("a commit");
                });
            });
        });
    }
    group.finish();
}

criterion_group!(benches, rows, commits);
criterion_main!(benches);
