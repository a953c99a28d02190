//! What durability costs through the whole product: readings over gRPC into `weir dev`, acknowledged when durable, against
//! the loop that one would write by hand on the raw engine: a `fjall` batch of 100 rows, then a sync.
//!
//! Both run in turns on the same disk; the last line is the ratio of their medians.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, missing_docs)] // a benchmark reports by panicking and by printing

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput};
use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use tokio::runtime::Runtime;
use weir_core::{Timestamp, Value};
use weir_drive::{Edge, Reading, Via, edge};
use weir_tests::Weir;

/// Rows in one batch, readings in one message.
const BATCH: usize = 100;
/// Devices that send at the same time, as many as there are partitions.
const DEVICES: usize = 16;
/// Messages of one device under way.
const WINDOW: usize = 8;
/// Turns of which the medians are taken.
const TURNS: usize = 7;
/// Batches in one turn of the hand-written loop, and messages in one of Weir's.
const RAW_BATCHES: usize = 300;
const MESSAGES: usize = 1_600;

struct Raw {
    database: Database,
    rows: fjall::Keyspace,
    next: u64,
    _home: tempfile::TempDir,
}

impl Raw {
    fn open() -> Self {
        let home = tempfile::tempdir().unwrap();
        let database = Database::builder(home.path()).open().unwrap();
        let rows = database.keyspace("rows", KeyspaceCreateOptions::default).unwrap();
        Self { database, rows, next: 0, _home: home }
    }

    fn run(&mut self, batches: usize) -> Duration {
        let begin = Instant::now();
        for _ in 0..batches {
            let mut batch = self.database.batch();
            for _ in 0..BATCH {
                self.next += 1;
                batch.insert(&self.rows, self.next.to_be_bytes(), (self.next as f64).to_be_bytes());
            }
            batch.commit().unwrap();
            self.database.persist(PersistMode::SyncData).unwrap();
        }
        begin.elapsed()
    }
}

struct Driven {
    _weir: Weir,
    runtime: Runtime,
    edges: Vec<Arc<Edge>>,
    next: usize,
}

impl Driven {
    fn start() -> Self {
        let weir = Weir::start();
        let runtime = Runtime::new().unwrap();
        let devices: Vec<String> = (0..DEVICES).map(|number| format!("bench-{number}")).collect();
        let edges = runtime.block_on(async {
            let place = weir.place().await;
            weir_drive::provision::create(&place, &devices, &std::collections::HashMap::new()).await.unwrap();
            let mut edges = Vec::new();
            for device in &devices {
                edges.push(Arc::new(Edge::open(&place, Via::Grpc, device, "").await.unwrap()));
            }
            edges
        });
        Self { _weir: weir, runtime, edges, next: 0 }
    }

    fn run(&mut self, messages: usize) -> Duration {
        let each = messages.div_ceil(DEVICES);
        let first = self.next;
        self.next += each;
        let begin = Instant::now();
        self.runtime.block_on(async {
            let mut sending = Vec::new();
            for edge in &self.edges {
                sending.push(tokio::spawn(send(Arc::clone(edge), first, each)));
            }
            for task in sending {
                task.await.unwrap();
            }
        });
        begin.elapsed()
    }
}

async fn send(edge: Arc<Edge>, first: usize, count: usize) {
    let mut under_way = VecDeque::new();
    for number in first..first + count {
        if under_way.len() == WINDOW {
            assert!(edge::answer(&mut under_way.pop_front().unwrap()).await.unwrap().is_empty());
        }
        under_way.push_back(edge.send(&message(number)).await.unwrap());
    }
    for mut pending in under_way {
        assert!(edge::answer(&mut pending).await.unwrap().is_empty());
    }
}

fn message(number: usize) -> Vec<Reading> {
    let reading = |at: usize| Reading {
        ts: Some(Timestamp::from_micros(1_700_000_000_000_000 + at as i64 * 1_000)),
        values: vec![("m".to_owned(), Value::Double(at as f64))],
    };
    (number * BATCH..(number + 1) * BATCH).map(reading).collect()
}

fn rate(readings: usize, times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    readings as f64 / times[times.len() / 2].as_secs_f64()
}

fn main() {
    let (mut raw, mut weir) = (Raw::open(), Driven::start());
    let (mut raw_times, mut weir_times) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        raw_times.push(raw.run(RAW_BATCHES));
        weir_times.push(weir.run(MESSAGES));
    }
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let mut group = criterion.benchmark_group("durable ingest of 100 readings");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("raw fjall batch + sync", |bench| {
        bench.iter_custom(|count| raw.run(usize::try_from(count).unwrap()));
    });
    group.bench_function("weir over grpc", |bench| {
        bench.iter_custom(|count| {
            // Rounded up to a message for each device, and reported for as many as were asked for.
            let count = usize::try_from(count).unwrap();
            let sent = count.div_ceil(DEVICES) * DEVICES;
            weir.run(sent).mul_f64(count as f64 / sent as f64)
        });
    });
    group.finish();
    criterion.final_summary();
    let raw = rate(RAW_BATCHES * BATCH, &mut raw_times);
    let weir = rate(MESSAGES * BATCH, &mut weir_times);
    println!("raw fjall batch of {BATCH} + sync: {raw:.0} rows/s");
    println!("weir over grpc, durable:       {weir:.0} readings/s");
    println!("ratio: {:.2}", weir / raw);
}
