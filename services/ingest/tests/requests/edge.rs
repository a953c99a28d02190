//! A running edge, and a client that speaks HTTP/1.1.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use tonic::{
    metadata::MetadataValue,
    service::{Interceptor, RoutesBuilder, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Server},
};
use weir_core::{
    DeviceId, Message, Partition, Result, SystemClock, TenantId,
    command::DeviceKey,
    device::{Device, Profile},
    port::{CommandQueue, Log, Records, Registry, Signal, Signals},
    principal::{Principal, Scope},
    selector::Selector,
};
use weir_frame::Frame;
use weir_grpc::AuthLayer;
use weir_ingest::{Config, Service};
use weir_log_embedded::{EmbeddedLog, LocalLeases, LocalSignals};
use weir_proto::ingest::v1::{
    dead_letter_service_client::DeadLetterServiceClient, ingest_service_client::IngestServiceClient,
    session_service_client::SessionServiceClient,
};
use weir_store_embedded::EmbeddedStore;

use crate::ports::{Gate, GatedLog, People, Queue, read_all};

/// Above every wait here: long enough for a busy machine, and a test that reaches it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const PARTITIONS: u16 = 2;

/// The registry of these tests: `wa_<tenant>_<scope>` is an API token, `token-of-<id>` a device's.
struct Tokens(Arc<People>);

#[async_trait]
impl Registry for Tokens {
    async fn authenticate(&self, token: &str) -> Result<Principal> {
        match token.split('_').collect::<Vec<_>>().as_slice() {
            ["wa", tenant, scope] => Ok(Principal::Token {
                id: token.to_owned(),
                tenant: Some(TenantId::new(tenant).unwrap()),
                scopes: Scope::ALL.into_iter().filter(|known| known.as_str() == *scope).collect(),
            }),
            _ => self.0.authenticate(token).await,
        }
    }
    async fn device(&self, tenant: &TenantId, device: &DeviceId) -> Result<Arc<Device>> {
        self.0.device(tenant, device).await
    }
    async fn profile(&self, tenant: &TenantId, profile: &str) -> Result<Arc<Profile>> {
        self.0.profile(tenant, profile).await
    }
    async fn select(
        &self,
        tenant: &TenantId,
        selector: &Selector,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<Arc<Device>>> {
        self.0.select(tenant, selector, after, limit).await
    }
}

/// An edge on its own directory and ports.
pub(crate) struct Edge {
    pub(crate) http: SocketAddr,
    pub(crate) mqtt: SocketAddr,
    grpc: SocketAddr,
    pub(crate) people: Arc<People>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) gate: watch::Sender<Gate>,
    pub(crate) service: Arc<Service>,
    pub(crate) signals: Arc<LocalSignals>,
    log: Arc<dyn Log>,
    _dir: TempDir,
}

impl Edge {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(configure: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options =
            weir_log_embedded::Options { durability: weir_config::Durability::Process, ..Default::default() };
        let embedded: Arc<dyn Log> = Arc::new(EmbeddedLog::open(&dir.path().join("log"), options).unwrap());
        let records: Arc<dyn Records> =
            EmbeddedStore::open(dir.path().join("store"), Default::default()).unwrap();
        let gate = watch::Sender::new(Gate::Open);
        let log = Arc::new(GatedLog { log: Arc::clone(&embedded), gate: gate.clone() });
        let (people, queue) = (Arc::<People>::default(), Arc::<Queue>::default());
        let (signals, metrics) = (Arc::new(LocalSignals::new()), prometheus::Registry::new());
        let mut config = Config { partitions: PARTITIONS, ..Config::default() };
        configure(&mut config);
        let registry: Arc<dyn Registry> = Arc::new(Tokens(Arc::clone(&people)));
        let service = Service::start(
            config,
            log,
            records,
            Arc::clone(&signals) as Arc<dyn Signals>,
            Arc::new(LocalLeases::new()),
            Arc::clone(&registry),
            Arc::clone(&queue) as Arc<dyn CommandQueue>,
            Arc::new(SystemClock),
            &metrics,
        );
        let service = service.await.unwrap();
        let (http, listener) = listen().await;
        service.serve_http(listener);
        let (mqtt, listener) = listen().await;
        service.serve_mqtt(listener);
        let (grpc, listener) = listen().await;
        let mut routes = RoutesBuilder::default();
        service.add_routes(&mut routes);
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = Server::builder().layer(AuthLayer::new(registry)).add_routes(routes.routes());
        tokio::spawn(server.serve_with_incoming(incoming));
        Self { http, mqtt, grpc, people, queue, gate, service, signals, log: embedded, _dir: dir }
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

    /// Sends one request and reads the answer.
    pub(crate) async fn send(&self, request: Request<'_>) -> Answer {
        within("an answer", async {
            let mut stream = TcpStream::connect(self.http).await.unwrap();
            let mut raw =
                format!("{} {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", request.method, request.path);
            if !request.token.is_empty() {
                raw.push_str(&format!("Authorization: Bearer {}\r\n", request.token));
            }
            for (name, value) in request.headers {
                raw.push_str(&format!("{name}: {value}\r\n"));
            }
            raw.push_str(&format!("Content-Length: {}\r\n\r\n", request.body.len()));
            stream.write_all(raw.as_bytes()).await.unwrap();
            stream.write_all(request.body).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            Answer::parse(&answer)
        })
        .await
    }

    /// A command for `to`, with its doorbell.
    pub(crate) async fn command(&self, to: &DeviceKey, name: &str) -> weir_core::Uid {
        let id = self.queue.send(to, name, "{}");
        self.ring(to).await;
        id
    }

    pub(crate) async fn ring(&self, to: &DeviceKey) {
        self.signals.publish(Signal::CommandWaiting { tenant: to.tenant.clone(), uid: to.uid }).await;
    }

    /// Waits until sessions of the device attached so many times.
    pub(crate) async fn eventually_attached(&self, to: &DeviceKey, times: u64) {
        let attached = async {
            while self.queue.epoch(to) < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within("a session that attaches", attached).await;
    }

    /// Posts JSON as the device `id`.
    pub(crate) async fn post(&self, id: &str, path: &str, body: &str) -> Answer {
        let token = format!("token-of-{id}");
        let headers = &[("Content-Type", "application/json")];
        self.send(Request { method: "POST", path, token: &token, headers, body: body.as_bytes() }).await
    }

    async fn channel(&self, token: &str) -> InterceptedService<Channel, Bearer> {
        let channel =
            Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap().connect().await.unwrap();
        InterceptedService::new(channel, Bearer(token.to_owned()))
    }

    pub(crate) async fn ingest(
        &self,
        token: &str,
    ) -> IngestServiceClient<InterceptedService<Channel, Bearer>> {
        IngestServiceClient::new(self.channel(token).await)
    }

    pub(crate) async fn sessions(
        &self,
        token: &str,
    ) -> SessionServiceClient<InterceptedService<Channel, Bearer>> {
        SessionServiceClient::new(self.channel(token).await)
    }

    pub(crate) async fn dead_letters(
        &self,
        token: &str,
    ) -> DeadLetterServiceClient<InterceptedService<Channel, Bearer>> {
        DeadLetterServiceClient::new(self.channel(token).await)
    }
}

async fn listen() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), listener)
}

/// Puts the token into every call.
#[derive(Clone)]
pub(crate) struct Bearer(String);

impl Interceptor for Bearer {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> std::result::Result<tonic::Request<()>, tonic::Status> {
        let value = MetadataValue::try_from(format!("Bearer {}", self.0)).unwrap();
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

/// A request.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) token: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn parse(raw: &[u8]) -> Self {
        let text = String::from_utf8_lossy(raw);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that it is a problem document of this status, and gives its reason, field and limit.
    pub(crate) fn problem(&self, status: u16) -> (String, String, String) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], status);
        assert!(body["type"].as_str().unwrap().starts_with("urn:weir:problem:"));
        assert!(!body["detail"].as_str().unwrap().is_empty());
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        (text("title"), text("field"), text("limit"))
    }
}

/// Waits for `future`.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not come in {PATIENCE:?}"))
}
