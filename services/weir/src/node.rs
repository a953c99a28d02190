//! One running process: engines, targets, listeners, and its orderly end.

use std::{sync::Arc, time::Duration};

use prometheus::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::{Routes, RoutesBuilder},
    transport::Server,
};
use weir_core::{Error, Result};
use weir_grpc::{
    AuthLayer, MetricsLayer,
    connection::{self, Seats},
    tls,
};
use weir_metrics::Registrar;
use weir_registry::Peppers;
use weir_runtime::{Admin, drain};

use crate::{
    config::Config,
    engines, limits,
    listeners::{Addresses, Listeners},
    measure::Measures,
    peers,
    targets::{EDGE, Running, Target},
};

/// How long a gRPC connection may stay without a call that is let through: as long as a device has to authenticate.
const UNKNOWN_MAX: Duration = Duration::from_secs(10);
/// Of a message to health and reflection, which need no token: the name of a service or a file.
const OPEN_MESSAGE_MAX: usize = 16 << 10;
/// A peer that does not answer a ping is gone.
const PING: Duration = Duration::from_secs(20);

/// A node that accepts.
pub(crate) struct Node {
    /// Where it listens.
    pub(crate) addresses: Addresses,
    /// Its services.
    pub(crate) running: Running,
    config: Config,
    admin: Admin,
    stop_grpc: CancellationToken,
    stop_admin: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Node {
    /// Binds, opens, starts, accepts: in this order, so that nothing is touched where a port is in use.
    ///
    /// # Errors
    /// One clear line for each thing that can be wrong: a port in use, a directory in use or of another release, a damaged
    /// log, a changed partition count.
    pub(crate) async fn start(config: Config, peppers: Option<Peppers>, targets: &[&Target]) -> Result<Self> {
        let mut config = config;
        let files = limits::raise_open_files();
        config.listen.share(files);
        let has_edge = targets.iter().any(|target| target.name == EDGE);
        let tls = peers::tls_files(&config)?.map(tls::Listener::new).transpose()?;
        let listeners = Listeners::bind(&config.listen, has_edge, tls.is_some()).await?;
        let addresses = listeners.addresses()?;
        let engines = engines::open(&config).await?;
        #[cfg(feature = "sabotage")]
        let engines = crate::sabotage::apply(engines).await?;
        let metrics = Registry::new();
        let measures = Arc::new(Measures::register(&Registrar::new(&metrics))?);
        let engines = measures.over(engines, &config);
        let (detail, watched) = (engines.detail.clone(), engines.clone());
        let mut running = Running::start(config.clone(), engines, peppers, metrics, targets).await?;
        let admin = Admin::new(running.services(), running.metrics.clone(), detail);
        let (stop_grpc, stop_admin) = (CancellationToken::new(), CancellationToken::new());
        let mut tasks = Vec::new();
        let serving = admin.clone().serve(listeners.admin, stop_admin.clone());
        tasks.push(tokio::spawn(async move { report("admin", serving.await) }));
        tasks.push(tokio::spawn(Arc::clone(&measures).watch(watched, stop_admin.clone())));
        if let (Some(ingest), Some(edge)) = (&running.ingest, listeners.edge) {
            ingest.serve_mqtt(edge.mqtt);
            ingest.serve_http(edge.http);
        }
        let registry = running.registry_port().await?;
        let auth = AuthLayer::new(registry).with_service_key(peers::service_key(&config.auth)?);
        let routes = running.gateway()?.behind(routes(&running)?);
        let server =
            Server::builder().http2_keepalive_interval(Some(PING)).http2_keepalive_timeout(Some(PING));
        let server =
            server.layer(MetricsLayer::new(Arc::clone(&measures.server))).layer(auth).add_routes(routes);
        let seats = Seats::measured(config.listen.grpc_connections, UNKNOWN_MAX, &measures.server);
        if let Some(tls) = tls.clone() {
            measures.server.certificate_expiry.by_label(move || tls.expiry());
        }
        let incoming = connection::incoming(listeners.grpc, seats, tls);
        let serving = server.serve_with_incoming_shutdown(incoming, stop_grpc.clone().cancelled_owned());
        let serving = async move {
            serving.await.map_err(|source| Error::unavailable("the grpc listener broke").with_source(source))
        };
        tasks.push(tokio::spawn(async move { report("grpc", serving.await) }));
        Ok(Self { addresses, running, config, admin, stop_grpc, stop_admin, tasks })
    }

    /// Tenants, tokens, profiles, devices.
    ///
    /// # Errors
    /// `Internal` where this process is not the registry.
    pub(crate) fn registry(&self) -> Result<Arc<weir_registry::Service>> {
        self.running.registry.clone().ok_or_else(|| Error::internal("registry has not started"))
    }

    /// Says that this node is ready: its caller has done what must come before.
    pub(crate) fn accept(&self) {
        self.admin.accepting(true);
    }

    /// Whether anybody can do anything here; where the registry is elsewhere, that is its to know.
    ///
    /// # Errors
    /// `Unavailable` of the store.
    pub(crate) async fn has_token(&self) -> Result<bool> {
        match &self.running.registry {
            Some(registry) => registry.any_token().await,
            None => Ok(true),
        }
    }

    /// Not ready → endpoint delay → stop intake → drain with a deadline → close.
    pub(crate) async fn stop(self) {
        self.admin.accepting(false);
        tokio::time::sleep(self.config.drain.endpoint_delay).await;
        self.stop_grpc.cancel();
        drain(&self.running.services(), self.config.drain.deadline).await;
        self.stop_admin.cancel();
        for task in self.tasks {
            let closed = tokio::time::timeout(Duration::from_secs(1), task).await;
            drop(closed); // a client that holds its connection open must not hold the process
        }
    }
}

fn report(what: &str, result: Result<()>) {
    if let Err(error) = result {
        tracing::error!(listener = what, error = ?error, "a listener ended");
    }
}

/// What this process answers over gRPC itself.
fn routes(running: &Running) -> Result<Routes> {
    let mut routes = RoutesBuilder::default();
    running.registry.iter().for_each(|service| service.add_routes(&mut routes));
    running.commands.iter().for_each(|service| service.add_routes(&mut routes));
    running.storage.iter().for_each(|service| service.add_routes(&mut routes));
    running.analytics.iter().for_each(|service| service.add_routes(&mut routes));
    running.ingest.iter().for_each(|service| service.add_routes(&mut routes));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(weir_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken = |source| Error::internal("the descriptors cannot be read").with_source(source);
    // Anybody may ask these: what they send before they are known is small.
    routes.add_service(reflection().build_v1().map_err(broken)?.max_decoding_message_size(OPEN_MESSAGE_MAX));
    routes.add_service(
        reflection().build_v1alpha().map_err(broken)?.max_decoding_message_size(OPEN_MESSAGE_MAX),
    );
    let (health, health_service) = tonic_health::server::health_reporter();
    drop(health); // the empty service name is SERVING from the start; readiness in detail is the admin listener's
    routes.add_service(health_service.max_decoding_message_size(OPEN_MESSAGE_MAX));
    Ok(routes.routes())
}
