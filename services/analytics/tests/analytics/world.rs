//! A world of one machine: engines, ports, and a service that can be killed and started again.

use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures::future::LocalBoxFuture;
use tempfile::TempDir;
use tonic::{Request, service::Routes};
use tower::Layer as _;
use weir_analytics::{Config, Service};
use weir_core::{
    Clock, DeviceId, Message, Partition, Reading, Stream, SystemClock, TenantId, Timestamp, Uid, Value,
    port::{KeyRange, Leases, Log, Records, Signal, Signals, Stored},
    progress::{all_progress, beside},
};
use weir_grpc::{AuthLayer, auth::Authenticated};
use weir_log_embedded::{EmbeddedLog, LocalLeases, LocalSignals};
use weir_proto::analytics::v1::{
    self as pb, alarm_service_client::AlarmServiceClient, rule_service_client::RuleServiceClient,
};
use weir_store_embedded::EmbeddedStore;

use crate::ports::{Commands, Devices, Telemetry};

pub(crate) const PARTITIONS: u16 = 4;
/// The tenant of most tests.
pub(crate) const ACME: &str = "acme";
/// When event time begins in tests: 2015-02-04T17:51:00Z.
pub(crate) const START: i64 = 1_423_072_260;

type Wire = Authenticated<Routes>;

pub(crate) struct World {
    pub(crate) log: Arc<EmbeddedLog>,
    pub(crate) store: Arc<EmbeddedStore>,
    pub(crate) signals: Arc<LocalSignals>,
    pub(crate) devices: Arc<Devices>,
    pub(crate) commands: Arc<Commands>,
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    dir: TempDir,
}

/// A clock that a test sets; the others' begins where event time does.
pub(crate) struct SetClock(AtomicI64);

impl SetClock {
    pub(crate) fn at(second: i64) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(second)))
    }
    pub(crate) fn set(&self, second: i64) {
        self.0.store(second, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        at_second(self.0.load(Ordering::SeqCst))
    }
}

/// A running service and its clients.
pub(crate) struct Node {
    pub(crate) service: Arc<Service>,
    wire: Wire,
}

impl World {
    pub(crate) fn new() -> Self {
        // Where no provider is installed there is no TLS; the program installs it, and so does this.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let store = weir_store_embedded::Options {
            durability: weir_store_embedded::Durability::Process,
            ..Default::default()
        };
        let mut config = Config { partitions: PARTITIONS, ..Config::default() };
        config.checkpoint_interval = Duration::from_millis(20);
        config.actions.retry_base = Duration::from_millis(5);
        Self {
            log: Arc::new(open_log(&dir.path().join("log"))),
            store: EmbeddedStore::open(dir.path().join("store"), store).unwrap(),
            signals: Arc::new(LocalSignals::new()),
            devices: Arc::default(),
            commands: Arc::default(),
            config,
            clock: Arc::new(SystemClock),
            dir,
        }
    }

    /// Loses the log: from the next start on there is a new one, without anything.
    pub(crate) fn lose_log(&mut self) {
        self.log = Arc::new(open_log(&self.dir.path().join("another-log")));
    }

    pub(crate) async fn start(&self) -> Node {
        self.start_with(Arc::new(LocalLeases::new())).await
    }

    /// Starts one of several replicas.
    pub(crate) async fn start_with(&self, leases: Arc<dyn Leases>) -> Node {
        let log = Arc::clone(&self.log) as Arc<dyn Log>;
        let service = Service::start(
            self.config.clone(),
            Arc::clone(&log),
            Arc::clone(&self.store) as Arc<dyn Records>,
            Arc::clone(&self.signals) as Arc<dyn Signals>,
            leases,
            Arc::clone(&self.devices) as _,
            Arc::clone(&self.commands) as _,
            Arc::new(Telemetry(log)),
            Arc::clone(&self.clock),
            &prometheus::Registry::new(),
        )
        .await
        .unwrap();
        let mut routes = Routes::builder();
        service.add_routes(&mut routes);
        let wire = AuthLayer::new(Arc::clone(&self.devices) as _).layer(routes.routes());
        Node { service, wire }
    }

    /// Publishes one frame of one device's readings: (seconds after the start, values).
    pub(crate) async fn publish(&self, device: &str, readings: &[(i64, &[(&str, f64)])]) -> u64 {
        self.publish_as(ACME, device, readings).await
    }

    pub(crate) async fn publish_as(
        &self,
        tenant: &str,
        device: &str,
        readings: &[(i64, &[(&str, f64)])],
    ) -> u64 {
        let (tenant, id) = (TenantId::new(tenant).unwrap(), DeviceId::new(device).unwrap());
        let uid = Uid::hash(&[b"device", tenant.as_str().as_bytes(), id.as_str().as_bytes()]);
        let readings = readings.iter().map(|(at, values)| Reading {
            ts: at_second(*at),
            received_at: at_second(*at),
            claimed_ts: None,
            values: values.iter().map(|(name, value)| (Arc::from(*name), Value::Double(*value))).collect(),
        });
        let message = Message { tenant, device: id, uid, readings: readings.collect(), trace_context: None };
        let mut encoder = weir_frame::Encoder::new();
        encoder.push(&message).unwrap();
        let bytes = encoder.finish();
        let partition = Partition::of(uid, PARTITIONS);
        self.log.publish(Stream::Readings, partition, Uid::random(), bytes).await.unwrap()
    }

    /// Waits until it is recorded that a device's partition is done with everything up to `sequence`.
    pub(crate) async fn recorded_through(&self, device: &str, sequence: u64) {
        let partition = Partition::of(uid_of(device), PARTITIONS);
        eventually(&format!("progress of {device} up to {sequence}"), || {
            Box::pin(async move {
                let found =
                    all_progress(&*self.store, Stream::Readings, &["analytics"], PARTITIONS).await.unwrap();
                let at = found.iter().find(|reader| reader.partition == partition).unwrap().progress.sequence;
                if at >= sequence { Ok(()) } else { Err(at) }
            })
        })
        .await;
    }

    /// Waits until the recorded changes of a device's partition are as `wanted` says.
    pub(crate) async fn taken_over(
        &self,
        device: &str,
        wanted: impl Fn(&[serde_json::Value]) -> bool + Sync,
    ) {
        let (partition, wanted) = (Partition::of(uid_of(device), PARTITIONS), &wanted);
        eventually(&format!("change of {device}"), || {
            Box::pin(async move {
                let range = KeyRange::prefix(b"c/");
                let found = beside(&*self.store, "analytics", Stream::Readings, partition, range, 10_000)
                    .await
                    .unwrap();
                let change = |stored: &Stored| {
                    let entry: serde_json::Value = serde_json::from_slice(&stored.value).unwrap();
                    entry["change"].clone()
                };
                let changes: Vec<_> = found.iter().map(change).collect();
                if wanted(&changes) { Ok(()) } else { Err(changes) }
            })
        })
        .await;
    }

    /// Waits until the recorded state of a device is there, or is gone.
    pub(crate) async fn state_kept(&self, device: &str, wanted: bool) {
        let partition = Partition::of(uid_of(device), PARTITIONS);
        let prefix = [b"k/d".as_slice(), &uid_of(device).to_bytes()].concat();
        eventually(&format!("state of {device}: {wanted}"), || {
            let range = KeyRange::prefix(&prefix);
            Box::pin(async move {
                let found =
                    beside(&*self.store, "analytics", Stream::Readings, partition, range, 10).await.unwrap();
                // Of two slots the one of the later checkpoint counts: its number, how many parts there are, its bytes. None
                // say that there is nothing any more.
                let last = found.iter().max_by_key(|stored| stored.value.first_chunk::<8>());
                let kept = last.is_some_and(|stored| stored.value.len() > 10);
                if kept == wanted { Ok(()) } else { Err(found.len()) }
            })
        })
        .await;
    }

    pub(crate) async fn device_changed(&self, device: &str) {
        let (tenant, id) = (TenantId::new(ACME).unwrap(), DeviceId::new(device).unwrap());
        self.signals.publish(Signal::DeviceChanged { tenant, device: id, uid: uid_of(device) }).await;
    }
}

impl Node {
    pub(crate) fn rules(&self) -> RuleServiceClient<Wire> {
        RuleServiceClient::new(self.wire.clone())
    }

    pub(crate) fn alarms(&self) -> AlarmServiceClient<Wire> {
        AlarmServiceClient::new(self.wire.clone())
    }

    pub(crate) async fn create(&self, id: &str, rule: pb::Rule) -> pb::Rule {
        let request = pb::CreateRuleRequest {
            parent: format!("tenants/{ACME}"),
            rule_id: id.to_owned(),
            rule: Some(rule),
            ..Default::default()
        };
        self.rules().create_rule(admin(request)).await.unwrap().into_inner().rule.unwrap()
    }

    /// Waits until a rule was evaluated so often since this service began.
    pub(crate) async fn evaluated(&self, id: &str, times: i64) {
        let request = pb::GetRuleRequest { name: format!("tenants/{ACME}/rules/{id}") };
        eventually(&format!("{times} evaluations of {id}"), || {
            let request = request.clone();
            Box::pin(async move {
                let status =
                    self.rules().get_rule(admin(request)).await.unwrap().into_inner().status.unwrap();
                if status.evaluations >= times { Ok(()) } else { Err(status) }
            })
        })
        .await;
    }

    /// Every alarm, newest first.
    pub(crate) async fn list(&self) -> Vec<pb::Alarm> {
        let request = pb::ListAlarmsRequest {
            parent: format!("tenants/{ACME}"),
            page_size: 1_000,
            ..Default::default()
        };
        self.alarms().list_alarms(admin(request)).await.unwrap().into_inner().alarms
    }

    /// Waits until the alarms are as `wanted` says; gives them.
    pub(crate) async fn alarms_when(
        &self,
        what: &str,
        wanted: impl Fn(&[pb::Alarm]) -> bool,
    ) -> Vec<pb::Alarm> {
        let (found, wanted) = (std::sync::Mutex::new(vec![]), &wanted);
        eventually(what, || {
            let found = &found;
            Box::pin(async move {
                let alarms = self.list().await;
                let done = wanted(&alarms);
                let seen = format!("{alarms:#?}");
                *found.lock().unwrap() = alarms;
                if done { Ok(()) } else { Err(seen) }
            })
        })
        .await;
        found.into_inner().unwrap()
    }

    /// Ends the service as a crash would.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

fn open_log(dir: &std::path::Path) -> EmbeddedLog {
    let durability = weir_log_embedded::Durability::Process;
    EmbeddedLog::open(dir, weir_log_embedded::Options { durability, ..Default::default() }).unwrap()
}

/// The uid of a device of [`ACME`].
pub(crate) fn uid_of(device: &str) -> Uid {
    Uid::hash(&[b"device", ACME.as_bytes(), device.as_bytes()])
}

/// A call by an administrator of [`ACME`].
pub(crate) fn admin<T>(message: T) -> Request<T> {
    by("admin@acme", message)
}

pub(crate) fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

pub(crate) fn rule(condition: &str) -> pb::Rule {
    pb::Rule { condition: condition.to_owned(), ..Default::default() }
}

pub(crate) fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

pub(crate) fn at_second(second: i64) -> Timestamp {
    Timestamp::from_micros((START + second) * 1_000_000)
}

/// The second of an event time, counted from the start.
pub(crate) fn second(ts: Option<prost_types::Timestamp>) -> Option<i64> {
    ts.map(|ts| ts.seconds - START)
}

/// Waits for a condition; on time-out says what was missing and what was there instead.
pub(crate) async fn eventually<'a, E: Debug>(
    what: &str,
    check: impl Fn() -> LocalBoxFuture<'a, Result<(), E>>,
) {
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        match check().await {
            Ok(()) => return,
            Err(instead) if tokio::time::Instant::now() > until => panic!("no {what}; instead {instead:#?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
