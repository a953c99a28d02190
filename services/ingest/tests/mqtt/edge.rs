//! A running edge.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, sleep},
};
use weir_core::{
    Message, Partition, SystemClock,
    command::DeviceKey,
    port::{CommandQueue, Log, Records, Registry, Signal, Signals},
};
use weir_frame::Frame;
use weir_ingest::{Config, Service};
use weir_log_embedded::{
    Durability as LogDurability, EmbeddedLog, LocalLeases, LocalSignals, Options as LogOptions,
};
use weir_runtime::Service as _;
use weir_store_embedded::{EmbeddedStore, Options as StoreOptions};

use crate::{
    client::{Client, Hello},
    ports::{Gate, GatedLog, People, Queue, read_all},
};

/// Above every wait here: long enough for a busy machine, and a test that reaches it says what was missing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const PARTITIONS: u16 = 2;

/// An edge on its own directory and port.
pub(crate) struct Edge {
    pub(crate) address: SocketAddr,
    pub(crate) people: Arc<People>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) gate: watch::Sender<Gate>,
    pub(crate) service: Arc<Service>,
    pub(crate) signals: Arc<LocalSignals>,
    pub(crate) metrics: prometheus::Registry,
    log: Arc<dyn Log>,
    _dir: TempDir,
}

impl Edge {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(configure: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { durability: LogDurability::Process, ..LogOptions::default() };
        let embedded: Arc<dyn Log> = Arc::new(EmbeddedLog::open(&dir.path().join("log"), options).unwrap());
        let records: Arc<dyn Records> =
            EmbeddedStore::open(dir.path().join("store"), StoreOptions::default()).unwrap();
        let gate = watch::Sender::new(Gate::Open);
        let log = Arc::new(GatedLog { log: Arc::clone(&embedded), gate: gate.clone() });
        let (people, queue) = (Arc::<People>::default(), Arc::<Queue>::default());
        let signals = Arc::new(LocalSignals::new());
        let metrics = prometheus::Registry::new();
        let mut config = Config { partitions: PARTITIONS, ..Config::default() };
        configure(&mut config);
        let service = Service::start(
            config,
            log,
            records,
            Arc::clone(&signals) as Arc<dyn Signals>,
            Arc::new(LocalLeases::new()),
            Arc::clone(&people) as Arc<dyn Registry>,
            Arc::clone(&queue) as Arc<dyn CommandQueue>,
            Arc::new(SystemClock),
            &metrics,
        )
        .await
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        service.serve_mqtt(listener);
        Self { address, people, queue, gate, service, signals, metrics, log: embedded, _dir: dir }
    }

    /// A client that has not said anything yet.
    pub(crate) async fn dial(&self, version: u8) -> Client {
        Client::dial(self.address, version).await
    }

    /// A client of device `id` that was welcomed.
    pub(crate) async fn connect(&self, version: u8, id: &str) -> Client {
        self.connect_as(version, Hello::of(id)).await
    }

    pub(crate) async fn connect_as(&self, version: u8, hello: Hello<'_>) -> Client {
        let mut client = self.dial(version).await;
        let welcome = client.hello(hello).await;
        assert_eq!(welcome.code, 0, "the client should have been welcome");
        client
    }

    /// Every message that the log has.
    pub(crate) async fn messages(&self) -> Vec<Message> {
        let mut messages = Vec::new();
        for partition in 0..PARTITIONS {
            for bytes in read_all(&*self.log, Partition(partition)).await {
                let frame = Frame::decode(bytes).unwrap();
                messages.extend(frame.messages().map(|message| message.to_message()));
            }
        }
        messages
    }

    /// A command for `to`, with its doorbell.
    pub(crate) async fn command(&self, to: &DeviceKey, name: &str) -> weir_core::Uid {
        let id = self.queue.send(to, name, r#"{"level":3}"#);
        self.signals.publish(Signal::CommandWaiting { tenant: to.tenant.clone(), uid: to.uid }).await;
        id
    }

    pub(crate) async fn tell_changed(&self, key: &DeviceKey) {
        let (tenant, device, uid) = (key.tenant.clone(), key.device.clone(), key.uid);
        self.signals.publish(Signal::DeviceChanged { tenant, device, uid }).await;
    }

    /// Ends the process's part in order.
    pub(crate) async fn stop(&self) {
        self.service.stop_intake().await;
        self.service.drain().await;
    }

    /// The value of a metric, summed over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == name);
        let sum = |family: &prometheus::proto::MetricFamily| {
            let value = |metric: &prometheus::proto::Metric| {
                metric.get_counter().get_value() + metric.get_gauge().get_value()
            };
            family.get_metric().iter().map(value).sum()
        };
        family.map_or(0.0, sum)
    }
}

/// Waits until `condition` holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let until = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < until, "this never came true: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
