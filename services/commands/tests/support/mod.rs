//! A service over the embedded engines that can be killed and started again, and what its tests ask of it.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod serve;

use std::{
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tempfile::TempDir;
use tonic::{service::RoutesBuilder, transport::Channel};
use weir_clients::CommandsClient;
use weir_commands::{Config, Service};
use weir_conformance::calls::Loopback;
use weir_core::{
    Clock, DeviceId, Error, Result, TenantId, Timestamp, Uid,
    command::{Answer, DeviceKey, Order},
    device::{Device, Profile},
    port::{
        CommandQueue, CommandSender, KeyRange, Leases, Log, Records, Registry, SendCommand, Session, Signals,
        Stored, Table, Write,
    },
    principal::{Principal, Scope},
    selector::Selector,
};
use weir_log_embedded::{EmbeddedLog, LocalLeases, LocalSignals};
use weir_proto::commands::v1::queue_service_client::QueueServiceClient;
use weir_store_embedded::EmbeddedStore;

pub const START: i64 = 1_800_000_000;

/// A clock that a test moves.
pub struct HandClock(AtomicI64);

impl HandClock {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// Records that fail for good after a number of commits: what a kill looks like from the store.
pub struct Mortal {
    inner: Arc<dyn Records>,
    commits_left: AtomicI64,
}

impl Mortal {
    fn alive(&self) -> Result<()> {
        if self.commits_left.load(Ordering::SeqCst) > 0 { Ok(()) } else { Err(Error::unavailable("killed")) }
    }
}

#[async_trait]
impl Records for Mortal {
    async fn get(&self, table: Table, partition: &[u8], key: &[u8]) -> Result<Option<Stored>> {
        self.alive()?;
        self.inner.get(table, partition, key).await
    }
    async fn scan(
        &self,
        table: Table,
        partition: &[u8],
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<Stored>> {
        self.alive()?;
        self.inner.scan(table, partition, range, limit).await
    }
    async fn commit(&self, table: Table, partition: &[u8], writes: Vec<Write>) -> Result<Vec<u64>> {
        if self.commits_left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(Error::unavailable("killed"));
        }
        self.inner.commit(table, partition, writes).await
    }
    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        self.inner.partitions(table, after, limit).await
    }
}

/// Everybody's tenant has the same devices: those whose ids begin with `device`.
pub struct AllDevices;

#[async_trait]
impl Registry for AllDevices {
    async fn authenticate(&self, token: &str) -> Result<Principal> {
        let (tenant, scope) = token.split_once(':').ok_or_else(|| Error::unauthenticated("no"))?;
        let scope = Scope::ALL.into_iter().find(|known| known.as_str() == scope);
        let scopes = vec![scope.ok_or_else(|| Error::unauthenticated("no"))?];
        Ok(Principal::Token { id: "test".to_owned(), tenant: Some(TenantId::new(tenant)?), scopes })
    }
    async fn device(&self, tenant: &TenantId, device: &DeviceId) -> Result<Arc<Device>> {
        if !device.as_str().starts_with("device") {
            return Err(Error::not_found(device));
        }
        Ok(Arc::new(Device {
            tenant: tenant.clone(),
            id: device.clone(),
            uid: uid_of(tenant, device),
            profile: Profile::DEFAULT_ID.to_owned(),
            labels: Default::default(),
            attributes: Default::default(),
            enabled: true,
            gateway: false,
            created_at: Timestamp::from_micros(0),
            updated_at: Timestamp::from_micros(0),
        }))
    }
    async fn profile(&self, _: &TenantId, _: &str) -> Result<Arc<Profile>> {
        Ok(Arc::default())
    }
    async fn select(
        &self,
        _: &TenantId,
        _: &Selector,
        _: Option<&DeviceId>,
        _: usize,
    ) -> Result<Vec<Arc<Device>>> {
        Ok(Vec::new())
    }
}

fn uid_of(tenant: &TenantId, device: &DeviceId) -> Uid {
    Uid::hash(&[tenant.as_str().as_bytes(), device.as_str().as_bytes()])
}

pub fn device(id: &str) -> DeviceKey {
    device_of("acme", id)
}

pub fn device_of(tenant: &str, id: &str) -> DeviceKey {
    let (tenant, device) = (TenantId::new(tenant).unwrap(), DeviceId::new(id).unwrap());
    let uid = uid_of(&tenant, &device);
    DeviceKey { tenant, device, uid }
}

/// What services ask of commands.
pub trait Port: CommandQueue + CommandSender {}
impl<T: CommandQueue + CommandSender> Port for T {}

/// How a test has the port.
#[derive(Debug, Clone, Copy)]
pub enum How {
    InProcess,
    ServiceKey,
    MutualTls,
}

/// A running service and all that outlives it.
pub struct Fixture {
    pub service: Arc<Service>,
    /// Its call ports, in the way that the test wants.
    pub port: Arc<dyn Port>,
    how: How,
    loopback: Option<Loopback>,
    pub clock: Arc<HandClock>,
    pub signals: Arc<LocalSignals>,
    pub log: Arc<dyn Log>,
    pub records: Arc<Mortal>,
    config: Config,
    dir: Option<TempDir>,
}

impl Fixture {
    pub async fn start() -> Self {
        Self::start_with(Config { partitions: 4, ..Config::default() }).await
    }

    pub async fn start_with(config: Config) -> Self {
        Self::start_as(How::InProcess, config).await
    }

    pub async fn start_as(how: How, config: Config) -> Self {
        let clock = Arc::new(HandClock(AtomicI64::new(START * 1_000_000)));
        Self::open(how, tempfile::tempdir().unwrap(), config, clock).await
    }

    async fn open(how: How, dir: TempDir, config: Config, clock: Arc<HandClock>) -> Self {
        // A call that a connection still had holds the engines of the service before for a moment.
        let (log, store) = eventually("nobody has the engines", async || {
            match engines(dir.path(), Arc::clone(&clock) as _) {
                Err(error) if error.reason() == "DATA_DIR_IN_USE" => None,
                engines => Some(engines.unwrap()),
            }
        })
        .await;
        let log: Arc<dyn Log> = Arc::new(log);
        let signals = Arc::new(LocalSignals::new());
        let records = Arc::new(Mortal { inner: store, commits_left: AtomicI64::new(i64::MAX) });
        let service = Service::start(
            config.clone(),
            Arc::clone(&log),
            Arc::clone(&records) as _,
            Arc::clone(&signals) as _,
            Arc::new(LocalLeases::new()),
            Arc::new(AllDevices),
            Arc::clone(&clock) as _,
            &prometheus::Registry::new(),
        )
        .await
        .unwrap();
        let (port, loopback) = port(how, &service).await;
        Self { service, port, how, loopback, clock, signals, log, records, config, dir: Some(dir) }
    }

    /// The service on loopback, where the test has it over gRPC.
    pub fn loopback(&self) -> &Loopback {
        self.loopback.as_ref().unwrap()
    }

    /// The internal API as the holder of `token`.
    pub async fn as_bearer(&self, token: &str) -> serve::QueueClient {
        let channel = Channel::from_shared(self.loopback().plain()).unwrap().connect().await.unwrap();
        QueueServiceClient::with_interceptor(channel, serve::As(token.to_owned()))
    }

    /// Another replica over the same engines.
    pub async fn replica(&self, leases: Arc<dyn Leases>) -> Arc<Service> {
        self.replica_with(leases, Arc::clone(&self.signals) as _).await
    }

    /// Another replica over the same engines, whose signals are these.
    pub async fn replica_with(&self, leases: Arc<dyn Leases>, signals: Arc<dyn Signals>) -> Arc<Service> {
        Service::start(
            self.config.clone(),
            Arc::clone(&self.log),
            Arc::clone(&self.records) as _,
            signals,
            leases,
            Arc::new(AllDevices),
            Arc::clone(&self.clock) as _,
            &prometheus::Registry::new(),
        )
        .await
        .unwrap()
    }

    /// The store takes so many more commits, then none.
    pub fn kill_after(&self, commits: i64) {
        self.records.commits_left.store(commits, Ordering::SeqCst);
    }

    /// Ends what runs, and starts again on what the engines kept.
    pub async fn restart(mut self) -> Self {
        weir_runtime::Service::drain(&*self.service).await;
        let dir = self.dir.take().unwrap();
        let (how, config, clock) = (self.how, self.config.clone(), Arc::clone(&self.clock));
        if let Some(loopback) = self.loopback.take() {
            loopback.end().await;
        }
        drop(self);
        Self::open(how, dir, config, clock).await
    }

    pub async fn send(&self, to: &DeviceKey, request_id: &str) -> Result<Uid> {
        self.send_with(to, request_id, Order::OnDelivery, Duration::from_secs(600)).await
    }

    pub async fn send_with(
        &self,
        to: &DeviceKey,
        request_id: &str,
        order: Order,
        ttl: Duration,
    ) -> Result<Uid> {
        let send = SendCommand {
            to: to.clone(),
            name: "open".to_owned(),
            payload: Bytes::from_static(b"{\"valve\": 1}"),
            ttl,
            order,
            request_id: request_id.to_owned(),
            actor: "token:test".to_owned(),
        };
        Ok(self.port.send(send).await?.0)
    }

    pub async fn attach(&self, to: &DeviceKey) -> weir_core::port::SessionEpoch {
        self.port.attach(to, Session(Uid::random())).await.unwrap()
    }

    /// Waits until a command may leave to the session, and tells its id and whether it may have arrived before.
    pub async fn next(&self, to: &DeviceKey, epoch: weir_core::port::SessionEpoch) -> (Uid, bool) {
        eventually("a command may leave", async || {
            let queued = self.port.next(to, epoch).await.unwrap()?;
            Some((queued.command.request.id, queued.again))
        })
        .await
    }
}

async fn port(how: How, service: &Arc<Service>) -> (Arc<dyn Port>, Option<Loopback>) {
    if matches!(how, How::InProcess) {
        return (Arc::clone(service) as _, None);
    }
    let mut routes = RoutesBuilder::default();
    service.add_routes(&mut routes);
    let loopback = Loopback::serve("commands", routes.routes(), Arc::new(AllDevices)).await;
    let [(_, by_key), (_, by_certificate)] = loopback.peers();
    let peer = if matches!(how, How::ServiceKey) { by_key } else { by_certificate };
    (Arc::new(CommandsClient::new(peer)), Some(loopback))
}

fn engines(dir: &Path, clock: Arc<dyn Clock>) -> Result<(EmbeddedLog, Arc<EmbeddedStore>)> {
    let log = weir_log_embedded::Options {
        durability: weir_log_embedded::Durability::Process,
        clock,
        ..Default::default()
    };
    let store = weir_store_embedded::Options {
        durability: weir_store_embedded::Durability::Process,
        ..Default::default()
    };
    Ok((EmbeddedLog::open(&dir.join("log"), log)?, EmbeddedStore::open(dir.join("store"), store)?))
}

pub fn answer(ok: bool) -> Answer {
    Answer {
        ok,
        payload: Bytes::from_static(b"{\"done\": true}"),
        error: if ok { String::new() } else { "jammed".to_owned() },
        received_at: Timestamp::from_micros(START * 1_000_000),
    }
}

/// Waits until `look` finds something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .unwrap_or_else(|_| panic!("it never came true that {what}"))
}
