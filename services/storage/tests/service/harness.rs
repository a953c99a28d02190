//! A storage service on embedded engines in a directory, and what is asked of it.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    path::Path,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tonic::{Request, Status, transport::Channel};
use weir_core::{
    DeviceId, Error, Message, Partition, Position, Reading, Result, Stream, SystemClock, TenantId, Timestamp,
    Uid, Value,
    device::{Device, Profile},
    port::{Leases, Log, Records, Registry, Signals, TelemetryStore},
    principal::{Principal, Scope},
    selector::Selector,
};
use weir_frame::Encoder;
use weir_log_embedded::{Durability, EmbeddedLog, LocalLeases, LocalSignals};
use weir_proto::storage::v1::{self as pb, telemetry_service_client::TelemetryServiceClient};
use weir_storage::{Config, Service};
use weir_store_embedded::EmbeddedStore;

pub(crate) const PARTITIONS: u16 = 2;
/// Long enough for a machine that builds beside the tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// Devices by id, and one token a tenant: its name.
#[derive(Default)]
pub(crate) struct Devices {
    known: Mutex<BTreeMap<DeviceId, Arc<Device>>>,
}

impl Devices {
    pub(crate) fn add(&self, id: &str, labels: &[(&str, &str)]) {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let device = Device {
            tenant: tenant(),
            id: DeviceId::new(id).unwrap(),
            uid: uid(id),
            profile: Profile::DEFAULT_ID.to_owned(),
            labels,
            attributes: BTreeMap::default(),
            enabled: true,
            gateway: false,
            created_at: Timestamp::from_micros(0),
            updated_at: Timestamp::from_micros(0),
        };
        self.known.lock().insert(device.id.clone(), Arc::new(device));
    }
}

#[async_trait]
impl Registry for Devices {
    async fn authenticate(&self, token: &str) -> Result<Principal> {
        let (tenant, scope) = token.split_once('/').ok_or_else(|| Error::unauthenticated("unknown token"))?;
        let scope = Scope::ALL.into_iter().find(|known| known.as_str() == scope);
        Ok(Principal::Token {
            id: token.to_owned(),
            tenant: Some(TenantId::new(tenant)?),
            scopes: scope.into_iter().collect(),
        })
    }

    async fn device(&self, tenant: &TenantId, device: &DeviceId) -> Result<Arc<Device>> {
        let found = self.known.lock().get(device).filter(|found| found.tenant == *tenant).cloned();
        found.ok_or_else(|| Error::not_found(weir_core::name::device(tenant, device)))
    }

    async fn profile(&self, _: &TenantId, _: &str) -> Result<Arc<Profile>> {
        Ok(Arc::default())
    }

    async fn select(
        &self,
        tenant: &TenantId,
        selector: &Selector,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<Arc<Device>>> {
        let known = self.known.lock();
        let matching = known.values().filter(|device| {
            device.tenant == *tenant
                && selector.matches(&device.labels)
                && after.is_none_or(|after| device.id > *after)
        });
        Ok(matching.take(limit).cloned().collect())
    }
}

/// What a test may put in the place of an engine.
#[derive(Clone)]
pub(crate) struct Engines {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) records: Arc<dyn Records>,
    pub(crate) store: Arc<dyn TelemetryStore>,
    pub(crate) signals: Arc<dyn Signals>,
    pub(crate) leases: Arc<dyn Leases>,
}

impl Engines {
    pub(crate) async fn open(dir: &Path) -> Self {
        // What a sync brings is tested where the engines are; here a crash is a copy of the files.
        let log = weir_log_embedded::Options {
            durability: Durability::Process,
            segment_bytes: 64 << 10, // so that a test can trim
            ..Default::default()
        };
        let store = weir_store_embedded::Options { durability: Durability::Process, ..Default::default() };
        let opened = Mutex::new(None);
        eventually("the engines of the service before are closed", async || {
            let found = EmbeddedStore::open(dir.join("store"), store.clone())
                .and_then(|store| Ok((store, EmbeddedLog::open(&dir.join("log"), log.clone())?)));
            match found {
                Ok(found) => *opened.lock() = Some(found),
                Err(error) => assert_eq!(error.reason(), "DATA_DIR_IN_USE", "{error:?}"),
            }
            opened.lock().is_some()
        })
        .await;
        let (store, log) = opened.into_inner().unwrap();
        Self {
            log: Arc::new(log),
            records: Arc::clone(&store) as _,
            store,
            signals: Arc::new(LocalSignals::new()),
            leases: Arc::new(LocalLeases::new()),
        }
    }
}

/// A running service.
pub(crate) struct World {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) records: Arc<dyn Records>,
    pub(crate) store: Arc<dyn TelemetryStore>,
    pub(crate) devices: Arc<Devices>,
    pub(crate) service: Arc<Service>,
    pub(crate) client: TelemetryServiceClient<Channel>,
    pub(crate) metrics: prometheus::Registry,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(crate) fn config() -> Config {
    let mut config = Config { partitions: PARTITIONS, ..Config::default() };
    config.writer.checkpoint_interval = Duration::from_millis(5);
    config
}

impl World {
    pub(crate) async fn open(dir: &Path, config: Config) -> Self {
        Self::start(Engines::open(dir).await, config).await
    }

    pub(crate) async fn start(engines: Engines, config: Config) -> Self {
        let Engines { log, records, store, signals, leases } = engines;
        let devices = Arc::new(Devices::default());
        let metrics = prometheus::Registry::new();
        let service = Service::start(
            config,
            Arc::clone(&log),
            Arc::clone(&records),
            Arc::clone(&store),
            signals,
            leases,
            Arc::clone(&devices) as _,
            Arc::new(SystemClock),
            &metrics,
        )
        .await
        .unwrap();
        let mut routes = tonic::service::Routes::builder();
        service.add_routes(&mut routes);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder()
            .layer(weir_grpc::AuthLayer::new(Arc::clone(&devices) as _))
            .add_routes(routes.routes())
            .serve_with_incoming(
                tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true)),
            );
        let server = tokio::spawn(async move { server.await.unwrap() });
        let client = TelemetryServiceClient::connect(address).await.unwrap();
        Self { log, records, store, devices, service, client, metrics, server }
    }

    /// Ends it in order.
    pub(crate) async fn end(self) {
        use weir_runtime::Service as _;
        self.service.stop_intake().await;
        self.service.drain().await;
    }

    /// Publishes messages of one partition as one frame, and gives the position of its first reading.
    pub(crate) async fn publish(&self, messages: &[Message]) -> Position {
        publish(&*self.log, PARTITIONS, messages).await
    }

    /// Waits until everything published is written.
    pub(crate) async fn written(&self, positions: &[Position]) {
        let mut last: HashMap<Partition, u64> = HashMap::new();
        for position in positions {
            let known = last.entry(position.partition).or_default();
            *known = position.sequence.max(*known);
        }
        eventually("every published frame is written", async || {
            let lag = self.service.lag().await.unwrap();
            lag.iter().all(|lag| last.get(&lag.partition).is_none_or(|last| lag.written >= *last))
        })
        .await;
    }

    /// All pages of a query.
    pub(crate) async fn query(&self, request: pb::QueryRequest) -> Result<Vec<pb::Point>, Status> {
        let mut pages = self.client.clone().query(as_reader(request)).await?.into_inner();
        let mut points = vec![];
        let mut stats = None;
        while let Some(page) = pages.message().await? {
            assert_eq!(stats, None, "statistics are on the last page");
            points.extend(page.points);
            stats = page.stats;
        }
        assert_eq!(stats.expect("the last page has statistics").points as usize, points.len());
        Ok(points)
    }

    /// Every row, bucket and newest value of a device, as bytes: what a crash must not change.
    pub(crate) async fn dump(&self, id: &str) -> Dump {
        use weir_core::port::{RowScan, ScanOrder, SeriesKey};
        let series = SeriesKey { tenant: tenant(), uid: uid(id) };
        let (from, to) = (Timestamp::MIN, Timestamp::MAX);
        let buckets = self.store.buckets(&series, from, to, None, 100_000).await.unwrap();
        let mut dump = Dump::default();
        for bucket in buckets {
            let scan = RowScan { from, to, after: None, order: ScanOrder::Ascending, limit: 1_000_000 };
            let rows = self.store.rows(&series, bucket.bucket, scan).await.unwrap();
            dump.rows.extend(
                rows.into_iter()
                    .map(|row| format!("{:?} {} {} {:?}", row.bucket, row.ts, row.position, row.body)),
            );
        }
        dump.rows.sort_unstable();
        let cells = self.store.latest(&series).await.unwrap();
        dump.latest = cells
            .into_iter()
            .map(|cell| format!("{} {} {} {:?}", cell.metric, cell.ts, cell.position, cell.body))
            .collect();
        dump.latest.sort_unstable();
        dump
    }
}

/// Publishes messages of one partition as one frame, and gives the position of its first reading.
pub(crate) async fn publish(log: &dyn Log, partitions: u16, messages: &[Message]) -> Position {
    let partition = Partition::of(messages[0].uid, partitions);
    let mut encoder = Encoder::new();
    for message in messages {
        assert_eq!(Partition::of(message.uid, partitions), partition, "a frame is of one partition");
        encoder.push(message).unwrap();
    }
    let sequence = log.publish(Stream::Readings, partition, Uid::random(), encoder.finish()).await.unwrap();
    Position { stream: Stream::Readings, generation: 1, sequence, index: 0, partition }
}

/// What the store holds of a device.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Dump {
    pub(crate) rows: Vec<String>,
    pub(crate) latest: Vec<String>,
}

pub(crate) fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

pub(crate) fn uid(id: &str) -> Uid {
    Uid::hash(&[id.as_bytes()])
}

/// A message of one device with readings (ts in µs, values).
pub(crate) fn message(id: &str, readings: &[(i64, &[(&str, Value)])]) -> Message {
    let reading = |(ts, values): &(i64, &[(&str, Value)])| Reading {
        ts: Timestamp::from_micros(*ts),
        received_at: Timestamp::from_micros(ts + 5),
        claimed_ts: None,
        values: values.iter().map(|(metric, value)| (Arc::from(*metric), value.clone())).collect(),
    };
    Message {
        tenant: tenant(),
        device: DeviceId::new(id).unwrap(),
        uid: uid(id),
        readings: readings.iter().map(reading).collect(),
        trace_context: None,
    }
}

/// A request by a token that may read.
pub(crate) fn as_reader<T>(request: T) -> Request<T> {
    as_token("acme/read", request)
}

pub(crate) fn as_token<T>(token: &str, request: T) -> Request<T> {
    let mut request = Request::new(request);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

pub(crate) fn devices(ids: &[&str]) -> Option<pb::DeviceFilter> {
    Some(pb::DeviceFilter {
        devices: ids.iter().map(|id| (*id).to_owned()).collect(),
        label_selector: String::new(),
    })
}

pub(crate) fn query_of(ids: &[&str]) -> pb::QueryRequest {
    pb::QueryRequest { parent: "tenants/acme".to_owned(), filter: devices(ids), ..Default::default() }
}

pub(crate) fn micros(ts: &Option<prost_types::Timestamp>) -> i64 {
    let ts = ts.as_ref().unwrap();
    ts.seconds * 1_000_000 + i64::from(ts.nanos) / 1_000
}

/// Waits for a condition.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let until = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < until, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits for an answer.
pub(crate) async fn soon<T>(what: &str, answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// Numbers that are the same in every run of a seed (xorshift64*; Vigna 2016).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}
