//! What frames exist for: readings acknowledged a second over gRPC streams by the real edge on a bus of one node, against a
//! raw asynchronous JetStream publish of the same bytes in the same run; with the bus's own sync interval, and with
//! `sync_interval: always`. `cargo xtask perf frames`.
//!
//! The raw publish sends each reading, encoded as on the stream, as a message of its own, a window of them unanswered, as
//! one would without frames. Both sides run in turns on the same server, and medians are compared. Storage and analytics
//! are down: what is measured is the way to the log, on the one machine that client, edge and bus share.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, missing_docs)] // a benchmark reports by panicking and by printing

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::join_all;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use weir_core::{Timestamp, Value, name};
use weir_drive::{Place, Reading, edge::as_proto};
use weir_proto::ingest::v1::PublishStreamRequest;
use weir_tests::cluster::{Cluster, Shape};

/// Raw publishes that wait for their acknowledgement.
const RAW_WINDOW: usize = 1_024;
/// Readings in an item of a stream, and how many items of each stream wait for their acknowledgement.
const SHAPES: [(usize, usize); 3] = [(1, 1_024), (10, 256), (100, 64)];
/// Streams, each of its own device: as many as there are partitions.
const STREAMS: usize = 16;
/// Different items of a stream, each sent again and again.
const ITEMS: usize = 64;
/// Turns of which the medians are taken, and how long one lasts at least.
const TURNS: usize = 3;
const TURN: Duration = Duration::from_secs(3);
/// Of the log, so that no turn fills it.
const LOG_MAX: &str = "8GiB";

/// The reading with this number: two numbers and a short text.
fn reading(n: usize) -> Reading {
    Reading {
        ts: Some(Timestamp::from_micros((1_424_044_800_000 + n as i64) * 1_000)),
        values: vec![
            ("temperature".to_owned(), Value::Double(20.125 + (n % 10) as f64)),
            ("humidity".to_owned(), Value::Double(40.25)),
            ("state".to_owned(), Value::String("running at nominal speed".into())),
        ],
    }
}

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

/// Readings a second that are acknowledged over gRPC streams.
async fn streamed(place: &Place, devices: &[String], readings: usize, window: usize) -> f64 {
    let begin = Instant::now();
    let streams = devices.iter().map(|device| stream(place.clone(), device, readings, window, begin));
    let items: usize =
        join_all(streams.map(tokio::spawn)).await.into_iter().map(|items| items.unwrap()).sum();
    (items * readings) as f64 / begin.elapsed().as_secs_f64()
}

/// Keeps the window of one stream full until the turn is over; the items that were acknowledged.
fn stream(
    place: Place,
    device: &str,
    readings: usize,
    window: usize,
    begin: Instant,
) -> impl Future<Output = usize> + Send + 'static {
    let device = name::child(&place.tenant, "devices", device);
    let items: Vec<_> = (0..ITEMS)
        .map(|n| PublishStreamRequest {
            device: device.clone(),
            readings: (n * readings..(n + 1) * readings).map(|n| as_proto(&reading(n))).collect(),
            ..Default::default()
        })
        .collect();
    async move {
        let (sender, receiver) = mpsc::channel(window);
        let answers = place.connection.ingest().publish_stream(ReceiverStream::new(receiver)).await;
        let mut answers = answers.unwrap().into_inner();
        let (mut sent, mut answered) = (0, 0);
        let mut sender = Some(sender);
        while sender.is_some() || answered < sent {
            if let Some(open) = &sender {
                while sent - answered < window {
                    let item = items[sent % ITEMS].clone();
                    open.send(PublishStreamRequest { item: sent as u64, ..item }).await.unwrap();
                    sent += 1;
                }
            }
            let answer = answers.message().await.unwrap().expect("each item is answered");
            assert!(answer.status.is_some_and(|status| status.code == 0) && answer.statuses.is_empty());
            answered += 1;
            if begin.elapsed() >= TURN {
                sender = None;
            }
        }
        answered
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Raw messages a second, and readings a second for each shape.
async fn measure(dir: &Path, binary: &Path, sync_always: bool) -> weir_core::Result<(f64, Vec<f64>)> {
    let shape = Shape { nats: 1, cql: 1, replicas: 1, disks: false, clocks: false, sync_always };
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
        for (n, (readings, window)) in SHAPES.iter().enumerate() {
            streams[n].push(streamed(&place, &devices, *readings, *window).await);
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
        for ((readings, _), stream) in SHAPES.iter().zip(streams) {
            println!("{name:<15} {readings:>3} readings {raw:>9.0} {stream:>12.0} {:>14.1}", stream / raw);
        }
    }
    for (n, (readings, _)) in SHAPES.iter().enumerate() {
        println!("stream, always ÷ default, items of {readings} readings: {:.2}", always[n] / default[n]);
    }
}
