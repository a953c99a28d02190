//! Servers that a test can stop, hold up and start again, and who is known to them.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{Request, Response, Status, service::Routes, transport::Server};
use weir_core::{
    DeviceId, Error, Result, TenantId,
    device::{Device, Profile},
    port::Registry,
    principal::{Principal, Scope},
    selector::Selector,
};
use weir_grpc::{
    AuthLayer, ServiceKey,
    connection::{self, Seats},
    tls::{self, Files},
};
use weir_proto::registry::v1::{
    AuthenticateRequest, AuthenticateResponse, FindDeviceRequest, FindDeviceResponse, FindProfileRequest,
    FindProfileResponse, SelectDevicesRequest, SelectDevicesResponse, TokenHolder, authenticate_response,
    directory_service_server::{DirectoryService, DirectoryServiceServer},
};

/// Long enough for a machine that builds beside the tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Knows the token `wa_user`, and nothing else.
pub(crate) struct Known;

#[async_trait]
impl Registry for Known {
    async fn authenticate(&self, token: &str) -> Result<Principal> {
        if token != "wa_user" {
            return Err(Error::unauthenticated("the credential is not valid"));
        }
        Ok(Principal::Token {
            id: "user".to_owned(),
            tenant: Some(TenantId::new("acme")?),
            scopes: vec![Scope::Write],
        })
    }
    async fn device(&self, _: &TenantId, device: &DeviceId) -> Result<Arc<Device>> {
        Err(Error::not_found(device))
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

/// What a directory does with the next calls.
#[derive(Debug, Clone, Default)]
pub(crate) enum Mood {
    /// Answers.
    #[default]
    Well,
    /// Fails so many calls, then answers.
    Fails(usize, Error),
    /// Takes calls and says nothing.
    Silent,
}

/// The directory of a registry, as moody as a test wants.
#[derive(Default)]
pub(crate) struct Directory {
    pub(crate) calls: AtomicUsize,
    pub(crate) mood: Mutex<Mood>,
    /// `grpc-timeout` of the last call.
    pub(crate) timeout: Mutex<Option<String>>,
}

impl Directory {
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn failure(&self) -> Option<Error> {
        match &mut *self.mood.lock().unwrap() {
            Mood::Fails(left @ 1.., error) => {
                *left -= 1;
                Some(error.clone())
            }
            _ => None,
        }
    }
}

pub(crate) struct Served(pub(crate) Arc<Directory>);

#[tonic::async_trait]
impl DirectoryService for Served {
    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        let directory = &self.0;
        directory.calls.fetch_add(1, Ordering::SeqCst);
        let timeout = request.metadata().get("grpc-timeout").map(|value| value.to_str().unwrap().to_owned());
        *directory.timeout.lock().unwrap() = timeout;
        if matches!(*directory.mood.lock().unwrap(), Mood::Silent) {
            std::future::pending::<()>().await;
        }
        if let Some(error) = directory.failure() {
            return Err(weir_grpc::to_status(error));
        }
        let holder = TokenHolder { token_id: request.into_inner().token, ..Default::default() };
        let result = Some(authenticate_response::Result::Token(holder));
        Ok(Response::new(AuthenticateResponse { result }))
    }
    async fn find_device(
        &self,
        _: Request<FindDeviceRequest>,
    ) -> Result<Response<FindDeviceResponse>, Status> {
        Ok(Response::new(FindDeviceResponse { device: None })) // what no registry says
    }
    async fn find_profile(
        &self,
        _: Request<FindProfileRequest>,
    ) -> Result<Response<FindProfileResponse>, Status> {
        Ok(Response::new(FindProfileResponse { profile: None }))
    }
    async fn select_devices(
        &self,
        _: Request<SelectDevicesRequest>,
    ) -> Result<Response<SelectDevicesResponse>, Status> {
        Ok(Response::new(SelectDevicesResponse { devices: Vec::new(), more: true }))
    }
}

/// A running process with a directory.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Process {
    /// Listens at `address`, with TLS where there are certificates.
    pub(crate) async fn start(
        address: SocketAddr,
        key: &ServiceKey,
        tls: Option<&Files>,
        directory: &Arc<Directory>,
    ) -> Self {
        let listener = bound(address).await;
        let address = listener.local_addr().unwrap();
        let tls = tls.map(|files| tls::Listener::new(files.clone()).unwrap());
        let routes = Routes::new(DirectoryServiceServer::new(Served(Arc::clone(directory))));
        let layer = AuthLayer::new(Arc::new(Known)).with_service_key(Some(key.clone()));
        let server = Server::builder().layer(layer).add_routes(routes);
        let incoming = connection::incoming(listener, Seats::new(64, PATIENCE), tls);
        let serving = tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
        Self { address, serving }
    }

    /// Ends it as a kill does: its listener and connections go.
    pub(crate) async fn kill(self) {
        self.serving.abort();
        drop(self.serving.await);
    }
}

/// A port that was just given back is free within a moment.
async fn bound(address: SocketAddr) -> TcpListener {
    let listener = Mutex::new(None);
    eventually("the port is free", async || {
        *listener.lock().unwrap() = TcpListener::bind(address).await.ok();
        listener.lock().unwrap().is_some()
    })
    .await;
    listener.into_inner().unwrap().unwrap()
}

pub(crate) fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) fn key() -> ServiceKey {
    ServiceKey::parse(&ServiceKey::generate().unwrap()).unwrap()
}

/// Waits for a condition.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("it never came true that {what}"));
}
