//! What frames exist for: readings acknowledged a second over gRPC streams by the real edge on a bus of one node, against a
//! raw asynchronous JetStream publish of the same bytes in the same run; with the bus's own sync interval, and with
//! `sync_interval: always`. `cargo xtask perf frames`.
//!
//! The raw publish sends each reading, encoded as on the stream, as a message of its own, a window of them unanswered, as
//! one would without frames. Both sides run in turns on the same server, and medians are compared. Storage and analytics
//! are down: what is measured is the way to the log, on the one machine that client, edge and bus share.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)] // a benchmark reports by panicking and by printing

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use prost::Message as _;
use weir_drive::edge::as_proto;
use weir_tests::{
    cluster::{self, Cluster},
    streams::{self, Shape, reading},
};

/// Raw publishes that wait for their acknowledgement.
const RAW_WINDOW: usize = 1_024;
/// Devices that send their readings one by one, and two that gather them.
const SHAPES: [Shape; 3] = [
    Shape { readings: 1, window: 1_024 },
    Shape { readings: 10, window: 256 },
    Shape { readings: 100, window: 64 },
];
/// Streams, each of its own device: as many as there are partitions.
const STREAMS: usize = 16;
/// Turns of which the medians are taken, and how long one lasts at least.
const TURNS: usize = 3;
const TURN: Duration = Duration::from_secs(3);
/// Of the log, so that no turn fills it.
const LOG_MAX: &str = "8GiB";

/// Messages a second that are acknowledged.
async fn raw(jetstream: &async_nats::jetstream::Context, payload: &Bytes) -> f64 {
    let (begin, mut count) = (Instant::now(), 0_u64);
    let mut waiting = VecDeque::with_capacity(RAW_WINDOW);
    while begin.elapsed() < TURN {
        if waiting.len() == RAW_WINDOW {
            let oldest: async_nats::jetstream::context::PublishAckFuture = waiting.pop_front().unwrap();
            oldest.await.unwrap();
            count += 1;
        }
        waiting.push_back(jetstream.publish("raw.readings", payload.clone()).await.unwrap());
    }
    for oldest in waiting {
        oldest.await.unwrap();
        count += 1;
    }
    count as f64 / begin.elapsed().as_secs_f64()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Raw messages a second, and readings a second for each shape.
async fn measure(dir: &Path, binary: &Path, sync_always: bool) -> weir_core::Result<(f64, Vec<f64>)> {
    let shape =
        cluster::Shape { nats: 1, cql: 1, replicas: 1, edges: 1, disks: false, clocks: false, sync_always };
    let env = [("WEIR__LOG__MAX_BYTES".to_owned(), LOG_MAX.to_owned())];
    let mut cluster = Cluster::shared(dir, binary, &shape, &env).await?;
    cluster.drain("storage-1").await.unwrap();
    cluster.drain("analytics-1").await.unwrap();
    let place = cluster.places(&"default".parse().unwrap(), cluster.token()).await.unwrap().remove(0);
    let devices: Vec<String> = (0..STREAMS).map(|n| format!("stream-{n}")).collect();
    weir_drive::provision::create(&place, &devices, &Default::default()).await.unwrap();

    let client = async_nats::connect(cluster.bus().unwrap().servers()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let stream = async_nats::jetstream::stream::Config {
        name: "raw".to_owned(),
        subjects: vec!["raw.readings".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(stream).await.unwrap();
    let single = Bytes::from(as_proto(&reading(0)).encode_to_vec());

    let mut raws = vec![];
    let mut streams = vec![vec![]; SHAPES.len()];
    for _ in 0..TURNS {
        raws.push(raw(&jetstream, &single).await);
        for (n, shape) in SHAPES.into_iter().enumerate() {
            let begin = Instant::now();
            let readings = streams::full(&place, &devices, shape, TURN, &mut [0; STREAMS]).await;
            streams[n].push(readings as f64 / begin.elapsed().as_secs_f64());
        }
    }
    Ok((median(raws), streams.into_iter().map(median).collect()))
}

fn main() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let binary = PathBuf::from(std::env::var_os("WEIR_BIN").expect("cargo xtask perf frames sets WEIR_BIN"));
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let measured = |name: &str, sync_always| {
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        runtime.block_on(measure(&dir, &binary, sync_always))
    };
    let ((raw_default, default), (raw_always, always)) =
        match measured("default", false).and_then(|default| Ok((default, measured("always", true)?))) {
            Ok(both) => both,
            Err(error) => {
                println!("SKIPPED: {error}");
                return;
            }
        };
    let size = as_proto(&reading(0)).encoded_len();
    println!("readings of {size} bytes acknowledged a second, one server, medians of {TURNS} turns");
    println!("sync_interval       items of       raw  gRPC stream   stream ÷ raw");
    for (name, raw, streams) in [("default", raw_default, &default), ("always", raw_always, &always)] {
        for (Shape { readings, .. }, stream) in SHAPES.iter().zip(streams) {
            println!("{name:<15} {readings:>3} readings {raw:>9.0} {stream:>12.0} {:>14.1}", stream / raw);
        }
    }
    for (n, Shape { readings, .. }) in SHAPES.iter().enumerate() {
        println!("stream, always ÷ default, items of {readings} readings: {:.2}", always[n] / default[n]);
    }
}
