//! The edge as a running service.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::StreamExt as _;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_core::{
    Clock, Result,
    port::{CommandQueue, Log, Records, Registry, Signal, SignalStream, Signals, Topic},
};

use crate::{
    access::Access, config::Config, dead_letters::DeadLetters, decode::Decoder, doorbell::Doorbells,
    edge::Edge, http, intake::Intake, metrics::Metrics, mqtt, sessions::Sessions,
    unauthenticated::Unauthenticated,
};

/// Expired sessions cost only their bytes: once an hour is soon enough.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);

/// MQTT, HTTP and gRPC for devices.
pub struct Service {
    pub(crate) edge: Arc<Edge>,
    log: Arc<dyn Log>,
    /// No new connections and requests; those under way go on.
    pub(crate) stop: CancellationToken,
    /// Listeners, connections and streams.
    pub(crate) tasks: TaskTracker,
    /// What runs until the end of the service.
    end: CancellationToken,
    background: TaskTracker,
}

impl Service {
    /// Starts the edge; it takes connections once its listeners are given to [`Service::serve_mqtt`] and
    /// [`Service::serve_http`].
    ///
    /// # Errors
    /// `CONFIG_INVALID`; `FailedPrecondition` (`PARTITIONS_CHANGED`); `Unavailable` of log or store.
    #[allow(clippy::too_many_arguments)] // its ports, each once, as every service's
    pub async fn start(
        config: Config,
        log: Arc<dyn Log>,
        records: Arc<dyn Records>,
        signals: Arc<dyn Signals>,
        registry: Arc<dyn Registry>,
        commands: Arc<dyn CommandQueue>,
        clock: Arc<dyn Clock>,
        metrics: &prometheus::Registry,
    ) -> Result<Arc<Self>> {
        config.check()?;
        let metrics = Arc::new(Metrics::new(metrics)?);
        let (changes, bells) =
            (signals.subscribe(Topic::Registry).await, signals.subscribe(Topic::Commands).await);
        let intake = Intake::start(
            &config.intake,
            Arc::clone(&log),
            Arc::clone(&records),
            config.partitions,
            Arc::clone(&metrics),
        );
        let edge = Arc::new(Edge {
            access: Access::new(registry),
            decoder: Decoder::new(config.limits.clone(), Arc::clone(&clock)),
            intake: intake.await?,
            sessions: Sessions::new(
                Arc::clone(&records),
                Arc::clone(&clock),
                config.mqtt.sessions_per_device,
            ),
            dead_letters: DeadLetters::new(records, Arc::clone(&clock), config.dead_letters.clone()),
            unauthenticated: Unauthenticated::new(config.limits.unauthenticated_buffers.as_usize()),
            config: Arc::new(config),
            commands,
            doorbells: Arc::default(),
            clock,
            metrics,
        });
        let service = Arc::new(Self {
            edge,
            log,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            end: CancellationToken::new(),
            background: TaskTracker::new(),
        });
        service.spawn_background(changes, bells);
        Ok(service)
    }

    fn spawn_background(&self, changes: SignalStream, bells: SignalStream) {
        let (edge, end) = (Arc::clone(&self.edge), self.end.clone());
        self.background.spawn(async move { edge.access.follow(changes, end).await });
        let (doorbells, end) = (Arc::clone(&self.edge.doorbells), self.end.clone());
        self.background.spawn(ring(doorbells, bells, end));
        let (edge, end) = (Arc::clone(&self.edge), self.end.clone());
        self.background.spawn(async move {
            while tokio::time::timeout(SWEEP_EVERY, end.cancelled()).await.is_err() {
                if let Err(error) = edge.sessions.sweep().await {
                    tracing::warn!(%error, "cannot remove expired sessions");
                }
            }
        });
    }

    /// Takes MQTT connections from `listener` until intake stops.
    pub fn serve_mqtt(&self, listener: TcpListener) {
        self.tasks.spawn(mqtt::serve(listener, Arc::clone(&self.edge), self.stop.clone()));
    }

    /// Takes HTTP connections from `listener` until intake stops.
    pub fn serve_http(&self, listener: TcpListener) {
        let connections = self.tasks.clone();
        self.tasks.spawn(http::serve(Arc::clone(&self.edge), listener, self.stop.clone(), connections));
    }
}

/// Rings at the devices that have a command waiting.
async fn ring(doorbells: Arc<Doorbells>, mut signals: SignalStream, end: CancellationToken) {
    loop {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            () = end.cancelled() => return,
        };
        match signal {
            Some(Some(Signal::CommandWaiting { uid, .. })) => doorbells.ring(uid),
            Some(Some(_)) => {}
            Some(None) => doorbells.ring_all(),
            None => return,
        }
    }
}

#[async_trait]
impl weir_runtime::Service for Service {
    fn name(&self) -> &'static str {
        "ingest"
    }

    async fn ready(&self) -> std::result::Result<(), String> {
        if self.stop.is_cancelled() {
            return Err("stopping".to_owned());
        }
        self.log.writable().await.map_err(|error| format!("the log cannot be written: {error}"))
    }

    async fn stop_intake(&self) {
        self.stop.cancel();
    }

    async fn drain(&self) {
        self.stop.cancel();
        self.edge.intake.hurry();
        self.tasks.close();
        self.tasks.wait().await;
        self.edge.intake.drain().await;
        self.end.cancel();
        self.background.close();
        self.background.wait().await;
    }
}
