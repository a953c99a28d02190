//! How fast frames become rows: `cargo bench -p weir-storage` fills a log, starts storage on it and waits until all of it
//! is written, then asks for all of it.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing)] // a program that measures

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::TryStreamExt as _;
use weir_core::{
    DeviceId, Error, Message, Partition, Reading, Result, Stream, SystemClock, TenantId, Timestamp, Uid,
    Value,
    device::{Device, Profile},
    port::{Log as _, Registry, RuleScan, TelemetryReader as _},
    principal::Principal,
    selector::Selector,
};
use weir_frame::Encoder;
use weir_log_embedded::{EmbeddedLog, LocalLeases, LocalSignals};
use weir_storage::{Config, Service};
use weir_store_embedded::EmbeddedStore;

const DEVICES: u128 = 1_000;
const MESSAGES: i64 = 200;
const READINGS_PER_MESSAGE: i64 = 5;
const METRICS: [&str; 3] = ["co2", "humidity", "temperature"];

/// The bench asks by uid.
struct Nobody;

#[async_trait]
impl Registry for Nobody {
    async fn authenticate(&self, _: &str) -> Result<Principal> {
        Err(Error::unauthenticated("nobody"))
    }
    async fn device(&self, _: &TenantId, device: &DeviceId) -> Result<Arc<Device>> {
        Err(Error::not_found(device))
    }
    async fn profile(&self, _: &TenantId, profile: &str) -> Result<Arc<Profile>> {
        Err(Error::not_found(profile))
    }
    async fn select(
        &self,
        _: &TenantId,
        _: &Selector,
        _: Option<&DeviceId>,
        _: usize,
    ) -> Result<Vec<Arc<Device>>> {
        Ok(vec![])
    }
}

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn uid(device: u128) -> Uid {
    Uid::hash(&[&device.to_be_bytes()])
}

fn message(device: u128, number: i64, names: &[Arc<str>]) -> Message {
    let reading = |n: i64| {
        let ts =
            Timestamp::from_micros(1_700_000_000_000_000 + (number * READINGS_PER_MESSAGE + n) * 1_000_000);
        let values = names.iter().map(|name| (Arc::clone(name), Value::Double(n as f64))).collect();
        Reading { ts, received_at: ts, claimed_ts: None, values }
    };
    let id = DeviceId::new(format!("device-{device}")).unwrap();
    let readings = (0..READINGS_PER_MESSAGE).map(reading).collect();
    Message { tenant: tenant(), device: id, uid: uid(device), readings, trace_context: None }
}

async fn fill(log: &EmbeddedLog, partitions: u16) {
    let names: Vec<Arc<str>> = METRICS.iter().map(|name| Arc::from(*name)).collect();
    let mut encoders: Vec<Encoder> = (0..partitions).map(|_| Encoder::new()).collect();
    for number in 0..MESSAGES {
        for device in 0..DEVICES {
            let partition = Partition::of(uid(device), partitions);
            let encoder = &mut encoders[usize::from(partition.0)];
            if encoder.is_full() {
                let frame = std::mem::take(encoder).finish();
                log.publish(Stream::Readings, partition, Uid::random(), frame).await.unwrap();
            }
            encoder.push(&message(device, number, &names)).unwrap();
        }
    }
    for (partition, encoder) in (0..).map(Partition).zip(encoders).filter(|(_, encoder)| !encoder.is_empty())
    {
        log.publish(Stream::Readings, partition, Uid::random(), encoder.finish()).await.unwrap();
    }
}

async fn run(partitions: u16) {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(EmbeddedLog::open(&dir.path().join("log"), Default::default()).unwrap());
    fill(&log, partitions).await;
    let store = EmbeddedStore::open(dir.path().join("store"), Default::default()).unwrap();
    let readings = DEVICES as f64 * (MESSAGES * READINGS_PER_MESSAGE) as f64;
    let metrics = prometheus::Registry::new();
    let begin = Instant::now();
    let service = Service::start(
        Config { partitions, ..Config::default() },
        log,
        Arc::clone(&store) as _,
        store,
        Arc::new(LocalSignals::new()),
        Arc::new(LocalLeases::new()),
        Arc::new(Nobody),
        Arc::new(SystemClock),
        &metrics,
    )
    .await
    .unwrap();
    while rows_written(&metrics) < readings {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let written = begin.elapsed().as_secs_f64();
    println!(
        "{partitions:>2} partitions: {readings} readings written in {written:.2} s, {:.0}/s",
        readings / written
    );

    let (begin, mut rows) = (Instant::now(), 0);
    for device in 0..DEVICES {
        let scan = RuleScan {
            tenant: tenant(),
            uid: uid(device),
            after: None,
            through: None,
            from: Timestamp::MIN,
            to: Timestamp::MAX,
        };
        let found = service.scan_for_rules(scan).await.unwrap();
        rows += found.try_fold(0, |count, _| async move { Ok(count + 1) }).await.unwrap();
    }
    assert_eq!(rows as f64, readings, "everything is there");
    let read = begin.elapsed().as_secs_f64();
    println!("{partitions:>2} partitions: {rows} rows read in {read:.2} s, {:.0}/s", readings / read);
    weir_runtime::Service::drain(&*service).await;
}

fn rows_written(metrics: &prometheus::Registry) -> f64 {
    let families = metrics.gather();
    let found = families.iter().find(|family| family.name() == "weir_storage_rows_written_total");
    found.map_or(0.0, |family| family.get_metric()[0].get_counter().get_value())
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for partitions in [1, 16] {
        runtime.block_on(run(partitions));
    }
}
