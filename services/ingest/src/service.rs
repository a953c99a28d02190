//! The edge as a running service.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use tokio::{net::TcpListener, sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_core::{
    Clock, ErrorKind, Result,
    port::{
        CommandQueue, Leases, Log, Membership, Records, Registry, Signal, SignalStream, Signals, Topic, View,
    },
};

use crate::{
    access::Access,
    config::Config,
    dead_letters::DeadLetters,
    decode::Decoder,
    doorbell::Doorbells,
    edge::Edge,
    http,
    intake::Intake,
    metrics::{Metrics, Protocol},
    mqtt,
    sessions::{Replicas, Sessions},
    unauthenticated::Unauthenticated,
};

/// Expired sessions cost only their bytes: once an hour is soon enough.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);
/// The group whose members are the replicas of the edge.
const GROUP: &str = "ingest";
/// How long a start waits for a bus or store that is away, before it fails and whoever supervises the process starts it
/// again: a bus or store that is started with it is there by then.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pauses between its attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Devices whose sessions are looked at, at a time, because one opened elsewhere; the next wait.
const CHECKS_MAX: usize = 32;

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

/// Signals of others, from before the start.
struct Heard {
    changes: SignalStream,
    bells: SignalStream,
    opened: SignalStream,
}

impl Service {
    /// Starts the edge; it takes connections once its listeners are given to [`Service::serve_mqtt`] and
    /// [`Service::serve_http`].
    ///
    /// # Errors
    /// `CONFIG_INVALID`; `FailedPrecondition` (`PARTITIONS_CHANGED`); `Unavailable` where log, store or bus stay away for
    /// [`PATIENCE`].
    #[allow(clippy::too_many_arguments)] // its ports, each once, as every service's
    pub async fn start(
        config: Config,
        log: Arc<dyn Log>,
        records: Arc<dyn Records>,
        signals: Arc<dyn Signals>,
        leases: Arc<dyn Leases>,
        registry: Arc<dyn Registry>,
        commands: Arc<dyn CommandQueue>,
        clock: Arc<dyn Clock>,
        metrics: &prometheus::Registry,
    ) -> Result<Arc<Self>> {
        config.check()?;
        let metrics = Arc::new(Metrics::new(metrics, config.durability.as_str())?);
        let heard = Heard {
            changes: signals.subscribe(Topic::Registry).await,
            bells: signals.subscribe(Topic::Commands).await,
            opened: signals.subscribe(Topic::Sessions).await,
        };
        let intake = patiently("the log and the store", || {
            let (log, records, metrics) = (Arc::clone(&log), Arc::clone(&records), Arc::clone(&metrics));
            Intake::start(&config.intake, log, records, config.partitions, metrics).boxed()
        })
        .await?;
        let mut membership = patiently("the bus", || leases.join(GROUP)).await?;
        let replicas = Arc::new(Replicas::new(membership.me().id));
        replicas.see(&membership.changed().await, clock.now());
        let edge = Arc::new(Edge {
            access: Access::new(registry),
            decoder: Decoder::new(config.limits.clone(), Arc::clone(&clock)),
            intake,
            sessions: Sessions::new(
                Arc::clone(&records),
                signals,
                Arc::clone(&clock),
                Arc::clone(&replicas),
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
        service.tell_use();
        service.spawn_background(heard, replicas, membership);
        Ok(service)
    }

    /// How full what is bounded here may be, and how full it is.
    fn tell_use(&self) {
        let Edge { metrics, config, unauthenticated, .. } = &*self.edge;
        for protocol in [Protocol::Mqtt, Protocol::Http] {
            let max = i64::try_from(config.limits.connections).unwrap_or(i64::MAX);
            metrics.connections_max.with_label_values(&[protocol.as_str()]).set(max);
        }
        let capacity = i64::try_from(config.limits.unauthenticated_buffers.0).unwrap_or(i64::MAX);
        metrics.unauthenticated.capacity.set(capacity);
        let seats = Arc::clone(unauthenticated);
        metrics.unauthenticated.bytes.by(move || seats.bytes() as f64);
        let seats = Arc::clone(unauthenticated);
        metrics.unauthenticated.evicted.by(move || seats.evicted() as f64);
        let edge = Arc::downgrade(&self.edge);
        metrics.devices_cached.by(move || edge.upgrade().map_or(0, |edge| edge.access.cached()) as f64);
    }

    fn spawn_background(&self, heard: Heard, replicas: Arc<Replicas>, membership: Box<dyn Membership>) {
        let Heard { changes, bells, opened } = heard;
        let (edge, end) = (Arc::clone(&self.edge), self.end.clone());
        self.background.spawn(async move { edge.access.follow(changes, end).await });
        let (doorbells, end) = (Arc::clone(&self.edge.doorbells), self.end.clone());
        self.background.spawn(ring(doorbells, bells, end));
        let (edge, end) = (Arc::clone(&self.edge), self.end.clone());
        self.background.spawn(take_over(edge, opened, end));
        let (clock, end) = (Arc::clone(&self.edge.clock), self.end.clone());
        self.background.spawn(follow(membership, replicas, clock, end));
        let (edge, end) = (Arc::clone(&self.edge), self.end.clone());
        self.background.spawn(async move { edge.sessions.keep(&end).await });
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

/// Ends the connections whose sessions opened at other replicas.
async fn take_over(edge: Arc<Edge>, mut opened: SignalStream, end: CancellationToken) {
    let (places, checks) = (Arc::new(Semaphore::new(CHECKS_MAX)), TaskTracker::new());
    loop {
        let signal = tokio::select! {
            signal = opened.next() => signal,
            () = end.cancelled() => break,
        };
        let uid = match signal {
            Some(Some(signal)) => edge.sessions.concerns(&signal),
            Some(None) => {
                edge.sessions.hurry();
                None
            }
            None => break,
        };
        if let Some(uid) = uid
            && let Ok(place) = Arc::clone(&places).acquire_owned().await
        {
            let edge = Arc::clone(&edge);
            checks.spawn(async move {
                if let Err(error) = edge.sessions.check_device(uid).await {
                    tracing::warn!(%error, "the sessions of a device cannot be checked");
                }
                drop(place);
            });
        }
    }
    checks.close();
    checks.wait().await;
}

/// Follows who is there, and leaves at the end.
async fn follow(
    mut membership: Box<dyn Membership>,
    replicas: Arc<Replicas>,
    clock: Arc<dyn Clock>,
    end: CancellationToken,
) {
    loop {
        let view: View = tokio::select! {
            view = membership.changed() => view,
            () = end.cancelled() => break,
        };
        replicas.see(&view, clock.now());
    }
    membership.leave().await;
}

/// Tries again while something is away, for [`PATIENCE`].
async fn patiently<'a, T>(what: &str, attempt: impl Fn() -> BoxFuture<'a, Result<T>>) -> Result<T> {
    let (until, mut pause) = (Instant::now() + PATIENCE, PAUSE.0);
    loop {
        match attempt().await {
            Err(error) if is_away(error.kind()) && Instant::now() + pause < until => {
                tracing::warn!(%error, "waiting for {what}");
            }
            done => return done,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

const fn is_away(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::DeadlineExceeded | ErrorKind::Aborted)
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
