//! Measures the store on servers that are running: `cargo run --release -p weir-store-scylla --example measure HOST:PORT`.
//!
//! Prints commits and reads of records a second, rows of telemetry a second, and what a partition holds for a device with
//! 256 metrics and 1,000 readings a second of event time. Makes the keyspace `weir_measure` and leaves it.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing, reason = "a tool for a person")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, future::join_all, stream};
use weir_core::{
    Partition, Position, Stream, TenantId, Timestamp, Uid,
    port::{
        BucketId, BucketRow, LatestCell, Records as _, Row, SeriesKey, Table, TelemetryBatch,
        TelemetryStore as _, Width, Write,
    },
};
use weir_store_scylla::{Config, Durability, ScyllaStore, migrate};

const TABLE: Table = Table("measure");
const SPAN: Duration = Duration::from_secs(5);
const T0: i64 = 1_424_044_800_000_000;

#[tokio::main]
async fn main() {
    let host = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9042".to_owned());
    let config = Config {
        hosts: vec![host],
        keyspace: "weir_measure".to_owned(),
        replication_factor: 1,
        ..Config::default()
    };
    migrate::run(&config, |step| println!("schema step {}: {}", step.number, step.name)).await.unwrap();
    let store = ScyllaStore::connect(&config, Durability::Process).await.unwrap();
    println!("{}", store.detail());
    for writers in [1, 64] {
        println!(
            "commits, {writers} at once, a partition each: {:.0}/s",
            commits(&store, writers, false).await
        );
    }
    println!("commits, 64 at once, one partition: {:.0}/s", commits(&store, 64, true).await);
    for readers in [1, 64] {
        println!("reads of a record, {readers} at once: {:.0}/s", reads(&store, readers).await);
    }
    println!("rows of 100 B, a device each, one newest value each: {:.0}/s", rows(&store, 1).await);
    println!("rows of 100 B, ten of a device, one newest value each: {:.0}/s", rows(&store, 10).await);
    dense(&store).await;
}

async fn rate(count: usize, work: impl AsyncFn(usize)) -> f64 {
    let began = Instant::now();
    let work = &work;
    let each = (0..count).map(|index| async move {
        let mut done = 0_u32;
        while began.elapsed() < SPAN {
            work(index).await;
            done += 1;
        }
        f64::from(done)
    });
    let done: f64 = join_all(each).await.into_iter().sum();
    done / began.elapsed().as_secs_f64()
}

async fn commits(store: &Arc<ScyllaStore>, writers: usize, one: bool) -> f64 {
    let base = Uid::random().to_string();
    rate(writers, async |index| {
        let place = if one { base.clone() } else { format!("{base}/{index}") };
        store.commit(TABLE, place.as_bytes(), vec![Write::put("k", vec![7; 100])]).await.unwrap();
    })
    .await
}

async fn reads(store: &Arc<ScyllaStore>, readers: usize) -> f64 {
    store.commit(TABLE, b"read", vec![Write::put("k", vec![7; 100])]).await.unwrap();
    rate(readers, async |_| drop(store.get(TABLE, b"read", b"k").await.unwrap().unwrap())).await
}

fn series(number: u128) -> SeriesKey {
    SeriesKey { tenant: TenantId::new("tenant").unwrap(), uid: Uid::from_u128(number) }
}

fn position(sequence: u64, index: u32) -> Position {
    Position { stream: Stream::Readings, generation: 1, sequence, index, partition: Partition(0) }
}

fn row(series: &SeriesKey, width: Width, ts: i64, position: Position, bytes: usize) -> Row {
    let ts = Timestamp::from_micros(ts);
    // Bytes that do not compress, as measured values hardly do.
    let seed = Uid::hash(&[&position.to_bytes()]).to_bytes();
    let body: Vec<u8> = (0..bytes.div_ceil(16))
        .flat_map(|n| Uid::hash(&[&seed, &n.to_be_bytes()]).to_bytes())
        .take(bytes)
        .collect();
    Row { series: series.clone(), bucket: BucketId::containing(ts, width), ts, position, body: body.into() }
}

/// Four owners write batches of a frame: a thousand rows, `each` of one device, with the newest value of each device.
async fn rows(store: &Arc<ScyllaStore>, each: u32) -> f64 {
    let began = Instant::now();
    let batches = stream::iter(1_u64..)
        .map(|sequence| {
            let mut batch = TelemetryBatch::default();
            for index in 0..1_000_u32 {
                let of = series(u128::from(sequence % 40) * 1_000 + u128::from(index / each));
                let ts = T0 + i64::try_from(sequence).unwrap() * 1_000_000 + i64::from(index % each);
                let row = row(&of, Width::Day, ts, position(sequence, index), 100);
                if index % each == 0 {
                    let LatestParts { ts, position, body } = LatestParts::of(&row);
                    batch.latest.push(LatestCell { series: of, metric: "m".into(), ts, position, body });
                }
                batch.rows.push(row);
            }
            async move { store.write(batch).await.unwrap() }
        })
        .buffer_unordered(4)
        .take_while(|()| std::future::ready(began.elapsed() < SPAN));
    let written = batches.count().await;
    f64::from(u32::try_from(written * 1_000).unwrap()) / began.elapsed().as_secs_f64()
}

struct LatestParts {
    ts: Timestamp,
    position: Position,
    body: bytes::Bytes,
}

impl LatestParts {
    fn of(row: &Row) -> Self {
        Self { ts: row.ts, position: row.position, body: row.body.slice(..16) }
    }
}

/// Two minutes of event time of a device with 256 doubles a reading, in the buckets that a writer opens for it: a second
/// each, once 4 MiB are in the wider ones.
async fn dense(store: &Arc<ScyllaStore>) {
    let of = series(u128::MAX);
    let body = 256 * 10; // a double and what names it
    let (widths, seconds) = ([Width::Day, Width::Hour, Width::FiveMinutes, Width::TenSeconds], 30_i64);
    let mut sequence = 0;
    let mut put = async |width: Width, from: i64, count: i64| {
        let rows: Vec<Row> = (0..count)
            .map(|n| {
                sequence += 1;
                row(&of, width, from + n * 1_000, position(sequence, 0), body)
            })
            .collect();
        let bucket = BucketRow {
            series: of.clone(),
            bucket: rows[0].bucket,
            bytes: (count as u64) * body as u64,
            seal_generation: 0,
            sealed_through: None,
        };
        store.write(TelemetryBatch { buckets: vec![bucket], rows, latest: vec![] }).await.unwrap();
    };
    let full = (4 << 20) / i64::try_from(body).unwrap() + 1;
    for (index, width) in (0..).zip(widths) {
        put(width, T0 + index * 2_000_000, full).await;
    }
    for second in 10..10 + seconds {
        put(Width::Second, T0 + second * 1_000_000, 1_000).await;
    }
    println!(
        "a device with 256 metrics and 1,000 readings/s: {full} rows of {body} B in each wider bucket, 1,000 in each second; \
         now flush, and ask each node for max_partition_size of weir_measure.readings in system_views"
    );
}
