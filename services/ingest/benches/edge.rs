//! The decoders, and the frame path over the embedded log: `cargo bench -p weir-ingest`.
#![allow(missing_docs, clippy::unwrap_used)] // criterion's macros; a bench that fails is a report

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use weir_config::Durability;
use weir_ingest::bench::{Bench, Path};

const SMALL: &[u8] = br#"{"temp":21.5}"#;
const TIMED: &[u8] = br#"{"ts":1424044800000,"values":{"temp":21.5,"co2":812,"humidity":40.25}}"#;

fn batch() -> Vec<u8> {
    let one = |n: u64| format!(r#"{{"ts":{},"values":{{"temp":{n}.5,"co2":812}}}}"#, 1_424_044_800_000 + n);
    format!("[{}]", (0..100).map(one).collect::<Vec<_>>().join(",")).into_bytes()
}

fn decode(c: &mut Criterion) {
    let bench = Bench::new(1).unwrap();
    let mut group = c.benchmark_group("decode");
    for (name, payload) in [("small", SMALL.to_vec()), ("timed", TIMED.to_vec()), ("batch of 100", batch())] {
        group.throughput(Throughput::Elements(bench.decode(&payload).unwrap() as u64));
        group.bench_function(name, |b| b.iter(|| bench.decode(&payload).unwrap()));
    }
    group.finish();
}

fn publish(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = c.benchmark_group("publish");
    group.sample_size(10);
    for (name, durability) in [("process", Durability::Process), ("power-loss", Durability::PowerLoss)] {
        let dir = tempfile::tempdir().unwrap();
        let options = weir_log_embedded::Options { durability, ..Default::default() };
        let log = Arc::new(weir_log_embedded::EmbeddedLog::open(&dir.path().join("log"), options).unwrap());
        let records =
            weir_store_embedded::EmbeddedStore::open(dir.path().join("store"), Default::default()).unwrap();
        let path = runtime.block_on(Path::start(log, records, 16)).unwrap();
        let bench = Bench::new(1_000).unwrap();
        for (shape, payload, count) in [("single", TIMED.to_vec(), 20_000), ("batch of 100", batch(), 2_000)]
        {
            let each = bench.decode(&payload).unwrap();
            group.throughput(Throughput::Elements((each * count) as u64));
            group.bench_function(format!("{name}, {shape}"), |b| {
                b.iter(|| runtime.block_on(bench.publish(&path, &payload, count, 4_096)).unwrap());
            });
        }
        runtime.block_on(async { drop(path) });
    }
    group.finish();
}

criterion_group!(benches, decode, publish);
criterion_main!(benches);
