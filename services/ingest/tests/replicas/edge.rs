//! What the replicas share, and a replica that can be killed.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::watch,
    time::{Instant, sleep},
};
use tonic::{service::RoutesBuilder, transport::Server};
use weir_core::{
    DeviceId, Result, SystemClock, TenantId, Uid,
    command::{DeviceKey, Order},
    device::{Device, Profile},
    port::{
        CommandQueue, CommandSender as _, Leases, Log, Member, Membership, Records, Registry, SendCommand,
        View,
    },
    principal::{Principal, Scope},
    selector::Selector,
};
use weir_grpc::AuthLayer;
use weir_ingest::{Config, Service};
use weir_log_embedded::{
    Durability as LogDurability, EmbeddedLog, LocalLeases, LocalSignals, Options as LogOptions,
};
use weir_proto::{
    commands::v1::{CommandState, GetCommandRequest, command_service_client::CommandServiceClient},
    ingest::v1::{GetPresenceRequest, GetPresenceResponse, session_service_client::SessionServiceClient},
};
use weir_store_embedded::{EmbeddedStore, Options as StoreOptions};

use crate::{
    client::{Client, Hello},
    ports::People,
};

/// Above every wait here: long enough for a busy machine, and a test that reaches it says what was missing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const PARTITIONS: u16 = 2;

/// Processes that see each other, until one is struck off.
#[derive(Clone, Default)]
pub(crate) struct Group {
    members: Arc<watch::Sender<Vec<Member>>>,
}

struct Joined {
    me: Member,
    members: watch::Receiver<Vec<Member>>,
    group: Group,
    told: Option<View>,
}

impl Group {
    fn strike_off(&self, id: Uid) {
        self.members.send_modify(|members| members.retain(|member| member.id != id));
    }
}

#[async_trait]
impl Leases for Group {
    async fn join(&self, _: &str) -> Result<Box<dyn Membership>> {
        let me = Member { id: Uid::random(), name: "replica".to_owned() };
        self.members.send_modify(|members| members.push(me.clone()));
        Ok(Box::new(Joined { me, members: self.members.subscribe(), group: self.clone(), told: None }))
    }
}

#[async_trait]
impl Membership for Joined {
    fn me(&self) -> &Member {
        &self.me
    }

    async fn changed(&mut self) -> View {
        loop {
            let view = View { members: self.members.borrow_and_update().clone() };
            if self.told.as_ref() != Some(&view) {
                self.told = Some(view.clone());
                return view;
            }
            self.members.changed().await.unwrap();
        }
    }

    async fn leave(self: Box<Self>) {
        self.group.strike_off(self.me.id);
    }
}

/// The devices of [`People`], and `reader`: who may read everything of `acme`.
struct Tokens(Arc<People>);

#[async_trait]
impl Registry for Tokens {
    async fn authenticate(&self, token: &str) -> Result<Principal> {
        if token == "reader" {
            let tenant = Some(TenantId::new("acme").unwrap());
            return Ok(Principal::Token { id: "reader".to_owned(), tenant, scopes: vec![Scope::Read] });
        }
        self.0.authenticate(token).await
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

/// What the replicas share.
pub(crate) struct Cluster {
    pub(crate) people: Arc<People>,
    pub(crate) commands: Arc<weir_commands::Service>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) group: Group,
    records: Arc<dyn Records>,
    signals: Arc<LocalSignals>,
    registry: Arc<dyn Registry>,
    grpc: SocketAddr,
    _dir: TempDir,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { durability: LogDurability::Process, ..LogOptions::default() };
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(&dir.path().join("log"), options).unwrap());
        let records: Arc<dyn Records> =
            EmbeddedStore::open(dir.path().join("store"), StoreOptions::default()).unwrap();
        let (people, signals) = (Arc::<People>::default(), Arc::new(LocalSignals::new()));
        let registry: Arc<dyn Registry> = Arc::new(Tokens(Arc::clone(&people)));
        let commands = weir_commands::Service::start(
            weir_commands::Config { partitions: PARTITIONS, ..Default::default() },
            Arc::clone(&log),
            Arc::clone(&records),
            Arc::clone(&signals) as _,
            Arc::new(LocalLeases::new()),
            Arc::clone(&registry),
            Arc::new(SystemClock),
            &prometheus::Registry::new(),
        )
        .await
        .unwrap();
        let (grpc, listener) = listen().await;
        let mut routes = RoutesBuilder::default();
        commands.add_routes(&mut routes);
        serve_grpc(listener, routes, Arc::clone(&registry));
        let group = Group::default();
        Self { people, commands, log, group, records, signals, registry, grpc, _dir: dir }
    }

    /// Another replica of the edge, in a runtime of its own.
    pub(crate) async fn replica(&self) -> Replica {
        self.replica_over(Arc::clone(&self.log), Arc::new(self.group.clone())).await
    }

    pub(crate) async fn replica_over(&self, log: Arc<dyn Log>, leases: Arc<dyn Leases>) -> Replica {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let before: Vec<Uid> = self.group.members.borrow().iter().map(|member| member.id).collect();
        let (records, signals) = (Arc::clone(&self.records), Arc::clone(&self.signals));
        let (registry, commands) = (Arc::clone(&self.registry), Arc::clone(&self.commands));
        let started = runtime.spawn(async move {
            let service = Service::start(
                Config { partitions: PARTITIONS, ..Config::default() },
                log,
                records,
                signals,
                leases,
                Arc::clone(&registry),
                commands as Arc<dyn CommandQueue>,
                Arc::new(SystemClock),
                &prometheus::Registry::new(),
            )
            .await
            .unwrap();
            let (mqtt, listener) = listen().await;
            service.serve_mqtt(listener);
            let (http, listener) = listen().await;
            service.serve_http(listener);
            let (grpc, listener) = listen().await;
            let mut routes = RoutesBuilder::default();
            service.add_routes(&mut routes);
            serve_grpc(listener, routes, registry);
            (mqtt, http, grpc)
        });
        let (mqtt, http, grpc) = started.await.unwrap();
        let me = self.group.members.borrow().iter().find(|member| !before.contains(&member.id)).unwrap().id;
        Replica { mqtt, http, grpc, me, group: self.group.clone(), runtime: Some(runtime) }
    }

    pub(crate) async fn send(&self, to: &DeviceKey, name: &str) -> Uid {
        let send = SendCommand {
            to: to.clone(),
            name: name.to_owned(),
            payload: Bytes::from_static(b"{}"),
            ttl: Duration::from_secs(600),
            order: Order::OnDelivery,
            request_id: Uid::random().to_string(),
            actor: "token:test".to_owned(),
        };
        self.commands.send(send).await.unwrap().0
    }

    /// Waits until the device has acknowledged a command, as far as anybody knows.
    pub(crate) async fn delivered(&self, id: Uid) {
        self.reaches(id, CommandState::Delivered, PATIENCE).await;
    }

    /// Waits until a command is in this state.
    pub(crate) async fn reaches(&self, id: Uid, state: CommandState, patience: Duration) {
        let commands = CommandServiceClient::connect(format!("http://{}", self.grpc)).await.unwrap();
        eventually_within(patience, &format!("the command is {}", state.as_str_name()), || async {
            let name = format!("tenants/acme/commands/{id}");
            let mut request = tonic::Request::new(GetCommandRequest { name });
            request.metadata_mut().insert("authorization", "Bearer reader".parse().unwrap());
            let answer = commands.clone().get_command(request).await.unwrap().into_inner();
            answer.command.unwrap().state() == state
        })
        .await;
    }
}

/// One replica.
pub(crate) struct Replica {
    mqtt: SocketAddr,
    http: SocketAddr,
    grpc: SocketAddr,
    me: Uid,
    group: Group,
    runtime: Option<Runtime>,
}

impl Replica {
    /// A client of device `device`, welcomed, with a session that outlives its connection.
    pub(crate) async fn connect(&self, device: &str, client_id: &str) -> Client {
        let mut client = Client::dial(self.mqtt, 5).await;
        let hello = Hello { client_id: client_id.to_owned(), clean: false, ..Hello::of(device) };
        assert_eq!(client.hello(hello).await.code, 0, "the client should have been welcome");
        client
    }

    /// The ids of the commands that a poll of the device gives.
    pub(crate) async fn poll(&self, device: &str, wait: &str) -> Vec<String> {
        let path = format!("/v1/commands{wait}");
        let answer = request(self.http, "GET", &path, device).await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let ids = body["commands"].as_array().unwrap().iter();
        ids.map(|command| command["id"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn post(&self, device: &str, path: &str) {
        let answer = request(self.http, "POST", path, device).await;
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    }

    /// The device's presence as this replica tells it.
    pub(crate) async fn presence(&self, device: &str) -> GetPresenceResponse {
        let mut sessions = SessionServiceClient::connect(format!("http://{}", self.grpc)).await.unwrap();
        let device = format!("tenants/acme/devices/{device}");
        let mut request = tonic::Request::new(GetPresenceRequest { device });
        request.metadata_mut().insert("authorization", "Bearer reader".parse().unwrap());
        sessions.get_presence(request).await.unwrap().into_inner()
    }

    /// Those of its clients that are connected.
    pub(crate) async fn online(&self, device: &str) -> Vec<String> {
        let sessions = self.presence(device).await.sessions.into_iter();
        sessions.filter(|session| session.connected).map(|session| session.client_id).collect()
    }

    /// Ends as by a kill: nothing is said to anybody, and the others see it go.
    pub(crate) fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
        self.group.strike_off(self.me);
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn serve_grpc(listener: TcpListener, routes: RoutesBuilder, registry: Arc<dyn Registry>) {
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = Server::builder().layer(AuthLayer::new(registry)).add_routes(routes.routes());
    tokio::spawn(server.serve_with_incoming(incoming));
}

async fn request(to: SocketAddr, method: &str, path: &str, device: &str) -> String {
    let asked = async {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer token-of-{device}\r\n\
             Content-Length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{method} {path} was not answered"))
}

async fn listen() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), listener)
}

/// Waits until `condition` holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl FnMut() -> F) {
    eventually_within(PATIENCE, what, condition).await;
}

async fn eventually_within<F: Future<Output = bool>>(
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    let until = Instant::now() + patience;
    while !condition().await {
        assert!(Instant::now() < until, "this never came true: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
