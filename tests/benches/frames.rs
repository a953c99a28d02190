//! What frames exist for: readings acknowledged a second through the frame path (decoding, intake, log) over a bus of one
//! node, against a raw asynchronous JetStream publish of the same bytes in the same run; with the bus's own sync interval,
//! and with `sync_interval: always`. `cargo xtask perf frames`.
//!
//! The raw publish sends each reading as a message of its own, a window of them unanswered, as one would without frames.
//! Both sides run in turns on the same server, and medians are compared.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, missing_docs)] // a benchmark reports by panicking and by printing

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use weir_config::{ByteSize, Durability};
use weir_ingest::bench::{Bench, Path};
use weir_log_nats::{Bus, Config, Options};
use weir_store_embedded::EmbeddedStore;
use weir_test_servers::nats;

/// The size of one reading as a device sends it.
const READING: usize = 128;
/// Raw publishes that wait for their acknowledgement.
const RAW_WINDOW: usize = 1_024;
/// Readings in a message of a device that sends them one by one, and of one that gathers them; and how many messages of
/// each task wait for their acknowledgement.
const SHAPES: [(usize, usize); 2] = [(1, 4_096), (100, 512)];
/// As many as a table of partitions serves, each with its own frame in flight.
const PARTITIONS: u16 = 16;
const DEVICES: usize = 1_000;
/// Tasks that decode and publish: one core is the server's.
const TASKS: usize = 2;
/// Turns of which the medians are taken, and how long one lasts at least.
const TURNS: usize = 3;
const TURN: Duration = Duration::from_secs(3);

/// One reading of exactly [`READING`] bytes.
fn reading(n: usize) -> String {
    let head = format!(
        r#"{{"ts":{},"values":{{"temperature":{}.125,"humidity":40.25,"note":""#,
        1_424_044_800_000 + n,
        20 + n % 10
    );
    let tail = r#""}}"#;
    let note = "x".repeat(READING - head.len() - tail.len());
    format!("{head}{note}{tail}")
}

fn message(readings: usize) -> Vec<u8> {
    match readings {
        1 => reading(0).into_bytes(),
        _ => format!("[{}]", (0..readings).map(reading).collect::<Vec<_>>().join(",")).into_bytes(),
    }
}

/// Messages a second that are acknowledged, each under an id of its own as the log's records are.
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

/// Readings a second that are acknowledged through the frame path.
async fn framed(bench: &Arc<Bench>, path: &Arc<Path>, payload: &Arc<Vec<u8>>, window: usize) -> f64 {
    let begin = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (bench, path, payload) = (Arc::clone(bench), Arc::clone(path), Arc::clone(payload));
            tokio::spawn(async move {
                let mut done = 0;
                while begin.elapsed() < TURN {
                    done += bench.publish(&path, &payload, window * 4, window).await.unwrap();
                }
                done
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += task.await.unwrap();
    }
    done as f64 / begin.elapsed().as_secs_f64()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Raw messages a second, and readings a second for each shape.
async fn measure(sync: nats::Sync) -> (f64, Vec<f64>) {
    let server = nats::Bus::start(&nats::Options { sync, ..nats::Options::default() }).unwrap();
    let config =
        Config { servers: server.servers(), sync_always: sync == nats::Sync::Always, ..Config::default() };
    let durability = match sync {
        nats::Sync::Always => Durability::PowerLoss,
        nats::Sync::Default => Durability::Process,
    };
    let options = Options {
        partitions: PARTITIONS,
        durability,
        max_bytes: ByteSize::gib(8),
        client: "perf frames".to_owned(),
    };
    let bus = Bus::connect(&config, options).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let records = EmbeddedStore::open(home.path(), weir_store_embedded::Options::default()).unwrap();
    let path = Arc::new(Path::start(bus.log(), records, PARTITIONS).await.unwrap());
    let bench = Arc::new(Bench::new(DEVICES).unwrap());

    let jetstream = async_nats::jetstream::new(async_nats::connect(server.servers()).await.unwrap());
    let stream = async_nats::jetstream::stream::Config {
        name: "raw".to_owned(),
        subjects: vec!["raw.readings".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(stream).await.unwrap();
    let single = Bytes::from(message(1));
    let messages: Vec<_> = SHAPES.iter().map(|(readings, _)| Arc::new(message(*readings))).collect();

    let mut raws = vec![];
    let mut framed_all = vec![vec![]; SHAPES.len()];
    for _ in 0..TURNS {
        raws.push(raw(&jetstream, &single).await);
        for (n, (_, window)) in SHAPES.iter().enumerate() {
            framed_all[n].push(framed(&bench, &path, &messages[n], *window).await);
        }
    }
    (median(raws), framed_all.into_iter().map(median).collect())
}

fn main() {
    assert_eq!(message(1).len(), READING);
    if let Err(why) = nats::binary() {
        println!("SKIPPED: nats-server cannot be had: {why}");
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (raw_default, default) = runtime.block_on(measure(nats::Sync::Default));
    let (raw_always, always) = runtime.block_on(measure(nats::Sync::Always));
    println!("readings of {READING} bytes acknowledged a second, one server, medians of {TURNS} turns");
    println!("sync_interval   messages of        raw      frames   frames ÷ raw");
    for (name, raw, framed) in [("default", raw_default, &default), ("always", raw_always, &always)] {
        for ((readings, _), framed) in SHAPES.iter().zip(framed) {
            println!("{name:<15} {readings:>4} readings {raw:>9.0} {framed:>11.0} {:>14.1}", framed / raw);
        }
    }
    for (n, (readings, _)) in SHAPES.iter().enumerate() {
        println!("frames, always ÷ default, messages of {readings} readings: {:.2}", always[n] / default[n]);
    }
}
