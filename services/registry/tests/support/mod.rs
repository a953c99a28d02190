//! A registry over the embedded store, and its API on a loopback port.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Status,
    service::{Interceptor, RoutesBuilder, interceptor::InterceptedService},
    transport::{Channel, ClientTlsConfig, Server},
};
use weir_clients::{Identity, RegistryClient};
use weir_conformance::calls::Loopback;
use weir_core::{
    Clock, Result, TenantId, Timestamp,
    port::{KeyRange, Records, Registry, Signal, SignalStream, Signals, Stored, Table, Topic, Write},
    principal::Scope,
};
use weir_grpc::AuthLayer;
use weir_log_embedded::LocalSignals;
use weir_proto::registry::v1::{
    credential_service_client::CredentialServiceClient, device_service_client::DeviceServiceClient,
    directory_service_client::DirectoryServiceClient, profile_service_client::ProfileServiceClient,
    tenant_service_client::TenantServiceClient, token_service_client::TokenServiceClient,
};
use weir_registry::{Config, Peppers, Service};
use weir_store_embedded::{Durability, EmbeddedStore, Options};

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

/// Counts reads.
pub struct Counting {
    inner: Arc<dyn Records>,
    pub reads: AtomicUsize,
}

#[async_trait]
impl Records for Counting {
    async fn get(&self, table: Table, partition: &[u8], key: &[u8]) -> Result<Option<Stored>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.get(table, partition, key).await
    }
    async fn scan(
        &self,
        table: Table,
        partition: &[u8],
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<Stored>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.scan(table, partition, range, limit).await
    }
    async fn commit(&self, table: Table, partition: &[u8], writes: Vec<Write>) -> Result<Vec<u64>> {
        self.inner.commit(table, partition, writes).await
    }
    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        self.inner.partitions(table, after, limit).await
    }
}

/// Signals that lose everything and do not say so.
pub struct Deaf;

#[async_trait]
impl Signals for Deaf {
    async fn publish(&self, _: Signal) {}
    async fn subscribe(&self, _: Topic) -> SignalStream {
        Box::pin(futures::stream::pending())
    }
}

/// Shows its token on every call; nothing where it is empty.
#[derive(Clone)]
pub struct Bearer(String);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if !self.0.is_empty() {
            request.metadata_mut().insert("authorization", format!("Bearer {}", self.0).parse().unwrap());
        }
        Ok(request)
    }
}

type As = InterceptedService<Channel, Bearer>;

/// Every client of `weir.registry.v1` as one caller.
pub struct Client {
    pub tenants: TenantServiceClient<As>,
    pub tokens: TokenServiceClient<As>,
    pub profiles: ProfileServiceClient<As>,
    pub devices: DeviceServiceClient<As>,
    pub credentials: CredentialServiceClient<As>,
}

pub struct Fixture {
    pub service: Arc<Service>,
    /// Another process over the same store.
    pub other: Arc<Service>,
    pub records: Arc<Counting>,
    pub clock: Arc<HandClock>,
    pub signals: Arc<LocalSignals>,
    /// Its API as other services have it.
    pub loopback: Loopback,
    address: SocketAddr,
    other_address: SocketAddr,
    _dir: TempDir,
}

impl Fixture {
    /// With tenants `acme` and `other`.
    pub async fn start() -> Self {
        let signals = Arc::new(LocalSignals::new());
        Self::over(Arc::clone(&signals) as _, Arc::clone(&signals) as _, signals).await
    }

    /// Whose two processes have signals of their own.
    pub async fn over(first: Arc<dyn Signals>, second: Arc<dyn Signals>, signals: Arc<LocalSignals>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { durability: Durability::Process, ..Options::default() };
        let inner = EmbeddedStore::open(dir.path().join("store"), options).unwrap();
        let records = Arc::new(Counting { inner, reads: AtomicUsize::new(0) });
        let clock = Arc::new(HandClock(AtomicI64::new(1_800_000_000_000_000)));
        let peppers = Peppers::parse(&Peppers::generate().unwrap()).unwrap();
        let start = async |signals: Arc<dyn Signals>| {
            Service::start(
                Config::default(),
                Arc::clone(&records) as _,
                signals,
                Arc::clone(&clock) as _,
                peppers.clone(),
                &prometheus::Registry::new(),
            )
            .await
            .unwrap()
        };
        let service = start(first).await;
        let other = start(second).await;
        for tenant in ["acme", "other"] {
            service.ensure_tenant(&TenantId::new(tenant).unwrap()).await.unwrap();
        }
        let mut routes = RoutesBuilder::default();
        service.add_routes(&mut routes);
        let routes = routes.routes();
        let loopback = Loopback::serve("registry", routes, Arc::clone(&service) as _).await;
        let address = serve(&service).await;
        let other_address = serve(&other).await;
        Self { service, other, records, clock, signals, loopback, address, other_address, _dir: dir }
    }

    /// The call port: in process, and over gRPC as each kind of service has it.
    pub fn ports(&self) -> Vec<(&'static str, Arc<dyn Registry>)> {
        let mut ports = vec![("in process", Arc::clone(&self.service) as Arc<dyn Registry>)];
        for (how, peer) in self.loopback.peers() {
            ports.push((how, Arc::new(RegistryClient::new(peer))));
        }
        ports
    }

    /// The internal API as a service.
    pub async fn as_service(&self) -> DirectoryServiceClient<As> {
        self.as_bearer(self.loopback.key().reveal()).await
    }

    /// The internal API as the holder of `token`; without a credential where it is empty.
    pub async fn as_bearer(&self, token: &str) -> DirectoryServiceClient<As> {
        let channel = Channel::from_shared(self.loopback.plain()).unwrap().connect().await.unwrap();
        DirectoryServiceClient::with_interceptor(channel, Bearer(token.to_owned()))
    }

    /// Over a connection of a service, as the holder of `token`, or as the service itself.
    pub async fn over_mutual_tls(&self, token: Option<&str>) -> TenantServiceClient<As> {
        let Identity::Certificate { files, .. } = self.loopback.by_certificate() else {
            panic!("a certificate")
        };
        let pems = files.read().unwrap();
        let tls = ClientTlsConfig::new().ca_certificate(pems.authority()).identity(pems.identity());
        let endpoint = Channel::from_shared(self.loopback.secure()).unwrap().tls_config(tls).unwrap();
        let bearer = Bearer(token.unwrap_or_default().to_owned());
        TenantServiceClient::with_interceptor(endpoint.connect().await.unwrap(), bearer)
    }

    pub async fn token(&self, tenant: Option<&str>, scopes: &[Scope]) -> String {
        let tenant = tenant.map(|tenant| TenantId::new(tenant).unwrap());
        self.service.create_token(tenant.as_ref(), scopes, "test").await.unwrap()
    }

    pub async fn client(&self, token: &str) -> Client {
        Self::client_at(self.address, token).await
    }

    async fn client_at(address: SocketAddr, token: &str) -> Client {
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let bearer = Bearer(token.to_owned());
        Client {
            tenants: TenantServiceClient::with_interceptor(channel.clone(), bearer.clone()),
            tokens: TokenServiceClient::with_interceptor(channel.clone(), bearer.clone()),
            profiles: ProfileServiceClient::with_interceptor(channel.clone(), bearer.clone()),
            devices: DeviceServiceClient::with_interceptor(channel.clone(), bearer.clone()),
            credentials: CredentialServiceClient::with_interceptor(channel, bearer),
        }
    }

    pub async fn admin(&self) -> Client {
        self.client(&self.token(Some("acme"), &[Scope::Admin]).await).await
    }

    /// At the other process.
    pub async fn other_admin(&self) -> Client {
        Self::client_at(self.other_address, &self.token(Some("acme"), &[Scope::Admin]).await).await
    }
}

async fn serve(service: &Arc<Service>) -> SocketAddr {
    let mut routes = RoutesBuilder::default();
    service.add_routes(&mut routes);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server =
        Server::builder().layer(AuthLayer::new(Arc::clone(service) as _)).add_routes(routes.routes());
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}
