//! Ten times as many clients as saturate five processes over NATS and CQL: what of the capacity is left, whether memory
//! grows, whether anything acknowledged is lost, and how long the way back to no lag is. `cargo xtask perf overload`.
//!
//! Capacity is what clients whose windows are always full get acknowledged; the overload is ten times those clients. Client,
//! servers and services share this machine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)] // a benchmark reports by panicking and by printing

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use weir_core::Timestamp;
use weir_drive::Place;
use weir_grpc::convert::from_timestamp;
use weir_proto::{
    common::v1::value::Kind,
    storage::v1::{AggregateRequest, DeviceFilter, Function},
};
use weir_tests::{
    cluster::{self, Cluster},
    streams::{self, EPOCH, Shape},
};

/// Streams that saturate the edge.
const STREAMS: usize = 16;
const TIMES: usize = 10;
const SHAPE: Shape = Shape { readings: 100, window: 8 };
/// Lengths of the two phases, and how often memory is looked at meanwhile.
const CAPACITY: Duration = Duration::from_secs(30);
const OVERLOAD: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_secs(2);
/// Lag that is still there after this is no delay.
const LAG_MAX: Duration = Duration::from_secs(1_200);
/// Event time of one query when everything is counted: 60,000 readings.
const SLICE: Duration = Duration::from_secs(60);

/// The values of a metric by process, summed over its labels.
async fn scraped(cluster: &Cluster, metric: &str) -> BTreeMap<String, f64> {
    let mut values = BTreeMap::new();
    for member in cluster.members.iter().filter(|member| !member.address.is_empty()) {
        let page = reqwest::get(format!("http://{}:8082/metrics", member.address)).await.unwrap();
        let page = page.text().await.unwrap();
        let lines = page.lines().filter(|line| line.starts_with(metric));
        let sum = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        values.insert(member.name.clone(), sum);
    }
    values
}

const RESIDENT: &str = "process_resident_memory_bytes";

async fn resident_mib(cluster: &Cluster) -> BTreeMap<String, f64> {
    scraped(cluster, RESIDENT).await.into_iter().map(|(name, bytes)| (name, bytes / 1_048_576.0)).collect()
}

/// Until storage has nothing unread twice in a row.
async fn wait_for_no_lag(cluster: &Cluster) -> Duration {
    let (begin, mut quiet) = (Instant::now(), 0);
    while quiet < 2 {
        assert!(
            begin.elapsed() < LAG_MAX,
            "there is lag still: {:?}",
            scraped(cluster, "weir_storage_lag_frames").await
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
        let lag: f64 = scraped(cluster, "weir_storage_lag_frames").await.values().sum();
        quiet = if lag == 0.0 { quiet + 1 } else { 0 };
    }
    begin.elapsed()
}

/// Readings of a device that queries find.
async fn stored(place: &Place, device: &str, readings: usize) -> usize {
    let mut found = 0;
    let end = EPOCH.as_micros() + readings as i64 * 1_000;
    let slice = SLICE.as_micros() as i64;
    for start in (EPOCH.as_micros()..end).step_by(slice as usize) {
        let request = AggregateRequest {
            parent: weir_core::name::tenant(&place.tenant),
            filter: Some(DeviceFilter { devices: vec![device.to_owned()], ..Default::default() }),
            metrics: vec!["temperature".to_owned()],
            start_time: Some(from_timestamp(Timestamp::from_micros(start))),
            end_time: Some(from_timestamp(Timestamp::from_micros(start + slice))),
            functions: vec![Function::Count.into()],
            ..Default::default()
        };
        let mut answer = place.connection.telemetry().aggregate(request).await.unwrap().into_inner();
        while let Some(part) = answer.message().await.unwrap() {
            for value in part.rows.into_iter().flat_map(|row| row.values) {
                match value.kind {
                    Some(Kind::Int64Value(count)) => found += count as usize,
                    Some(Kind::DoubleValue(count)) => found += count as usize,
                    other => panic!("a count is a number, not {other:?}"),
                }
            }
        }
    }
    found
}

async fn measure(cluster: &Cluster) {
    let place = cluster.places(&"default".parse().unwrap(), cluster.token()).await.unwrap().remove(0);
    let devices: Vec<String> = (0..STREAMS * TIMES).map(|n| format!("stream-{n}")).collect();
    weir_drive::provision::create(&place, &devices, &Default::default()).await.unwrap();
    let mut next = vec![0; devices.len()];

    let begin = Instant::now();
    let few = streams::full(&place, &devices[..STREAMS], SHAPE, CAPACITY, &mut next[..STREAMS]).await;
    let capacity = few as f64 / begin.elapsed().as_secs_f64();
    let drained = wait_for_no_lag(cluster).await;
    println!(
        "capacity: {capacity:.0} readings/s with {STREAMS} streams; no lag {:.1} s later",
        drained.as_secs_f64()
    );

    let before = resident_mib(cluster).await;
    let begin = Instant::now();
    let load = streams::full(&place, &devices, SHAPE, OVERLOAD, &mut next);
    let watch = async {
        let (mut early, mut late) = (BTreeMap::<String, f64>::new(), BTreeMap::<String, f64>::new());
        loop {
            tokio::time::sleep(LOOK).await;
            let half = if begin.elapsed() < OVERLOAD / 2 { &mut early } else { &mut late };
            for (name, mib) in resident_mib(cluster).await {
                let peak = half.entry(name).or_default();
                *peak = peak.max(mib);
            }
            if begin.elapsed() + LOOK * 2 > OVERLOAD {
                return (early, late);
            }
        }
    };
    let (many, (early, late)) = tokio::join!(load, watch);
    let goodput = many as f64 / begin.elapsed().as_secs_f64();
    let drained = wait_for_no_lag(cluster).await;
    println!(
        "overload: {goodput:.0} readings/s with {} streams for {} s, {:.0} % of capacity; no lag {:.1} s later",
        devices.len(),
        OVERLOAD.as_secs(),
        goodput / capacity * 100.0,
        drained.as_secs_f64()
    );
    println!("resident MiB     before  peak of first half  of second half");
    for (name, before) in before {
        println!("{name:<14} {before:>8.0} {:>19.0} {:>15.0}", early[&name], late[&name]);
    }
    let mut lost = 0;
    for (device, items) in devices.iter().zip(&next) {
        lost += items * SHAPE.readings - stored(&place, device, items * SHAPE.readings).await;
    }
    println!("acknowledged {}, of these not found by queries: {lost}", few + many);
}

fn main() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let binary =
        PathBuf::from(std::env::var_os("WEIR_BIN").expect("cargo xtask perf overload sets WEIR_BIN"));
    let dir = tempfile::tempdir().unwrap();
    let shape = cluster::Shape {
        nats: 1,
        cql: 1,
        replicas: 1,
        edges: 1,
        disks: false,
        clocks: false,
        sync_always: false,
    };
    let env = [("WEIR__LOG__MAX_BYTES".to_owned(), "4GiB".to_owned())];
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        match Cluster::shared(dir.path(), &binary, &shape, &env).await {
            Ok(cluster) => measure(&cluster).await,
            Err(error) => println!("SKIPPED: {error}"),
        }
    });
}
