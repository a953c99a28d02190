//! What the edge counts.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};
use weir_core::{Error, ErrorKind, Result, TenantId};
use weir_metrics::{Registrar, Sampled, Tenants, buckets};

/// What a device speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// MQTT 3.1.1 and 5.
    Mqtt,
    /// The device API over HTTP.
    Http,
    /// gRPC.
    Grpc,
}

impl Protocol {
    /// Every one, in the order of their numbers.
    pub(crate) const ALL: [Self; 3] = [Self::Mqtt, Self::Http, Self::Grpc];

    /// The label of every metric.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

/// What the edge counts. Labels are bounded: protocols, packet types, routes, partitions; reasons are those of our errors.
pub(crate) struct Metrics {
    /// Open connections by protocol.
    pub(crate) connections: IntGaugeVec,
    /// How many may be open, by protocol.
    pub(crate) connections_max: IntGaugeVec,
    /// What the log has of each protocol, in the order of [`Protocol::ALL`].
    pub(crate) accepted: [Accepted; 3],
    refused: IntCounterVec,
    /// Tenants by name, and what each is counted by.
    pub(crate) tenants: PerTenant,
    /// Frames and how they leave.
    pub(crate) frames: Frames,
    /// What waits for the log.
    pub(crate) window: Window,
    /// MQTT packets.
    pub(crate) mqtt: Mqtt,
    /// HTTP requests.
    pub(crate) http: Http,
    /// What connections hold that have not authenticated.
    pub(crate) unauthenticated: Unauthenticated,
    /// Payloads that were kept as dead letters.
    pub(crate) dead_letters: IntCounter,
    /// Devices that are remembered.
    pub(crate) devices_cached: Sampled,
}

/// What the log has of one protocol.
pub(crate) struct Accepted {
    pub(crate) readings: IntCounter,
    /// Messages that were acknowledged, at the durability of this process.
    pub(crate) acks: IntCounter,
    /// From taking a message in to its acknowledgement.
    pub(crate) seconds: Histogram,
}

/// What each tenant's devices send.
pub(crate) struct PerTenant {
    names: Tenants,
    readings: IntCounterVec,
    bytes: IntCounterVec,
    refused: IntCounterVec,
}

/// Frames and how they leave.
pub(crate) struct Frames {
    /// Frames that the log has.
    pub(crate) published: IntCounter,
    /// Their readings.
    pub(crate) readings: IntCounter,
    pub(crate) bytes: Histogram,
    /// Messages in one.
    pub(crate) members: Histogram,
    /// How long the oldest message of a frame waited before it left.
    pub(crate) wait: Histogram,
    /// How long the log takes to make a frame durable.
    pub(crate) publish: Histogram,
    /// Frames that were published again because the log was away.
    pub(crate) retries: IntCounter,
    /// The newest event time that the log has, by partition.
    pub(crate) event_time: GaugeVec,
}

/// What waits for the log.
pub(crate) struct Window {
    /// How full the windows are: what waits for the log, of what may.
    pub(crate) used: Gauge,
    pub(crate) bytes: Sampled,
    pub(crate) capacity: IntGauge,
    /// Messages that found no room and waited for it.
    pub(crate) waits: IntCounter,
}

/// MQTT packets.
pub(crate) struct Mqtt {
    packets: IntCounterVec,
    refused: IntCounterVec,
    pub(crate) connect: Histogram,
    pub(crate) subscribe: Histogram,
    pub(crate) unsubscribe: Histogram,
}

/// HTTP requests.
pub(crate) struct Http {
    requests: IntCounterVec,
    seconds: HistogramVec,
    /// Bytes of bodies that are being received.
    pub(crate) bodies: Sampled,
    pub(crate) bodies_max: IntGauge,
}

/// The requests of one route.
#[derive(Clone)]
pub(crate) struct Route {
    name: &'static str,
    requests: IntCounterVec,
    seconds: Histogram,
}

/// What connections hold that have not authenticated.
pub(crate) struct Unauthenticated {
    pub(crate) bytes: Sampled,
    pub(crate) capacity: IntGauge,
    /// Connections that were closed to make room.
    pub(crate) evicted: Sampled,
}

/// The names of the packets that a client may send, by their type (MQTT 5.0, 2.1.2).
const PACKETS: [(u8, &str); 11] = [
    (1, "connect"),
    (3, "publish"),
    (4, "puback"),
    (5, "pubrec"),
    (6, "pubrel"),
    (7, "pubcomp"),
    (8, "subscribe"),
    (10, "unsubscribe"),
    (12, "pingreq"),
    (14, "disconnect"),
    (15, "auth"),
];

impl Metrics {
    /// Registers them; `durability` is what an acknowledgement of this process survives.
    ///
    /// # Errors
    /// `Internal` where one is registered already.
    pub(crate) fn new(registry: &Registry, durability: &str) -> Result<Self> {
        Self::register(&Registrar::new(registry), durability)
    }

    /// As [`Metrics::new`], through a registrar that remembers them.
    ///
    /// # Errors
    /// As [`Metrics::new`].
    pub(crate) fn register(to: &Registrar<'_>, durability: &str) -> Result<Self> {
        Ok(Self {
            connections: to.gauges("weir_ingest_connections", "open connections", &["protocol"])?,
            connections_max: to.gauges(
                "weir_ingest_connections_max",
                "connections that may be open",
                &["protocol"],
            )?,
            accepted: accepted(to, durability)?,
            refused: to.counters(
                "weir_ingest_refused_total",
                "messages and readings that were refused, by protocol, reason, and whose fault it was: client, weir",
                &["protocol", "reason", "fault"],
            )?,
            tenants: PerTenant::register(to)?,
            frames: Frames::register(to)?,
            window: Window::register(to)?,
            mqtt: Mqtt::register(to)?,
            http: Http::register(to)?,
            unauthenticated: Unauthenticated::register(to)?,
            dead_letters: to.counter(
                "weir_ingest_dead_letters_total",
                "payloads that were refused where the wire has no words for it, and kept",
            )?,
            devices_cached: to
                .sampled("weir_ingest_devices_cached", "devices that are remembered, at most 65536")?,
        })
    }

    /// Counts what was refused.
    pub(crate) fn refused(&self, protocol: Protocol, error: &Error) {
        self.refused.with_label_values(&[protocol.as_str(), error.reason(), fault(error)]).inc();
    }

    /// What the log has of a protocol.
    pub(crate) fn of(&self, protocol: Protocol) -> &Accepted {
        let [mqtt, http, grpc] = &self.accepted;
        match protocol {
            Protocol::Mqtt => mqtt,
            Protocol::Http => http,
            Protocol::Grpc => grpc,
        }
    }
}

/// Whose fault a refusal is: what a client could have known, or a promise of ours that did not hold.
fn fault(error: &Error) -> &'static str {
    match (error.kind(), error.reason()) {
        (_, "INTAKE_FULL" | "LOG_FULL" | "BODIES_FULL") => "weir",
        (ErrorKind::Unavailable | ErrorKind::Internal | ErrorKind::DataLoss | ErrorKind::Aborted, _) => {
            "weir"
        }
        _ => "client",
    }
}

fn accepted(to: &Registrar<'_>, durability: &str) -> Result<[Accepted; 3]> {
    let readings = to.counters("weir_ingest_readings_total", "readings that the log has", &["protocol"])?;
    let acks = to.counters(
        "weir_ingest_acks_total",
        "messages that the log has and that were acknowledged, by what the acknowledgement survives: power-loss, process",
        &["protocol", "durability"],
    )?;
    let seconds = to.histograms(
        "weir_ingest_ack_seconds",
        "from taking a message in until the log has it and it is acknowledged",
        &["protocol"],
        &buckets::LATENCY,
    )?;
    Ok(Protocol::ALL.map(|protocol| {
        let protocol = protocol.as_str();
        Accepted {
            readings: readings.with_label_values(&[protocol]),
            acks: acks.with_label_values(&[protocol, durability]),
            seconds: seconds.with_label_values(&[protocol]),
        }
    }))
}

impl PerTenant {
    fn register(to: &Registrar<'_>) -> Result<Self> {
        let counters = |name: &str, help: &str| to.counters(name, help, &["tenant"]);
        Ok(Self {
            names: Tenants::default(),
            readings: counters(
                "weir_ingest_tenant_readings_total",
                "readings that the log has, by tenant: the first 100 by name, then other",
            )?,
            bytes: counters(
                "weir_ingest_tenant_bytes_total",
                "bytes of payloads that the log has, as they came over the wire, by tenant",
            )?,
            refused: counters(
                "weir_ingest_tenant_refused_total",
                "messages and readings refused, by tenant",
            )?,
        })
    }

    /// The log has `readings` more of a tenant, which came as `bytes`.
    pub(crate) fn accepted(&self, tenant: &TenantId, readings: u64, bytes: u64) {
        let name = [self.names.label(tenant)];
        self.readings.with_label_values(&name).inc_by(readings);
        self.bytes.with_label_values(&name).inc_by(bytes);
    }

    /// Something that a tenant's device sent was refused.
    pub(crate) fn refused(&self, tenant: &TenantId) {
        self.refused.with_label_values(&[self.names.label(tenant)]).inc();
    }
}

impl Frames {
    fn register(to: &Registrar<'_>) -> Result<Self> {
        Ok(Self {
            published: to.counter("weir_ingest_frames_total", "frames that the log has")?,
            readings: to
                .counter("weir_ingest_frame_readings_total", "readings of frames that the log has")?,
            bytes: to.histogram(
                "weir_ingest_frame_bytes",
                "sizes of frames that the log has",
                &buckets::BYTES,
            )?,
            members: to.histogram(
                "weir_ingest_frame_members",
                "messages in one frame that the log has",
                &buckets::COUNT,
            )?,
            wait: to.histogram(
                "weir_ingest_frame_wait_seconds",
                "how long the oldest message of a frame waited before it left for the log",
                &buckets::LATENCY,
            )?,
            publish: to.histogram(
                "weir_ingest_publish_seconds",
                "how long the log takes to make a frame durable, with retries",
                &buckets::LATENCY,
            )?,
            retries: to.counter("weir_ingest_publish_retries_total", "frames published again")?,
            event_time: to.real_gauges(
                "weir_ingest_event_time_seconds",
                "the newest event time that the log has from this replica, as unix time",
                &["partition"],
            )?,
        })
    }
}

impl Window {
    fn register(to: &Registrar<'_>) -> Result<Self> {
        Ok(Self {
            used: to.real_gauge(
                "weir_ingest_window_used_ratio",
                "what waits for the log, as a share of what may wait",
            )?,
            bytes: to.sampled("weir_ingest_window_bytes", "what waits for the log, in memory")?,
            capacity: to
                .gauge("weir_ingest_window_capacity_bytes", "what may wait for the log, in memory")?,
            waits: to.counter(
                "weir_ingest_window_waits_total",
                "messages that found no room in the window and waited for it",
            )?,
        })
    }
}

impl Mqtt {
    fn register(to: &Registrar<'_>) -> Result<Self> {
        let names = PACKETS.map(|(_, name)| name);
        let seconds = to.histograms(
            "weir_ingest_mqtt_packet_seconds",
            "from a packet that asks for an answer until that is written; of PUBLISH see weir_ingest_ack_seconds",
            &["type"],
            &buckets::LATENCY,
        )?;
        Ok(Self {
            packets: to.counters_of(
                "weir_ingest_mqtt_packets_total",
                "packets that clients sent, by type",
                "type",
                &names,
            )?,
            refused: to.counters_of(
                "weir_ingest_mqtt_refused_total",
                "packets that were refused, by type",
                "type",
                &["connect", "publish", "subscribe"],
            )?,
            connect: seconds.with_label_values(&["connect"]),
            subscribe: seconds.with_label_values(&["subscribe"]),
            unsubscribe: seconds.with_label_values(&["unsubscribe"]),
        })
    }

    /// The counters of packets, by their type on the wire; none for a type that no client sends.
    pub(crate) fn by_type(&self) -> [Option<IntCounter>; 16] {
        std::array::from_fn(|number| {
            let known = PACKETS.iter().find(|(known, _)| usize::from(*known) == number);
            known.map(|(_, name)| self.packets.with_label_values(&[name]))
        })
    }

    /// Counts a packet of a type that was refused.
    pub(crate) fn refused(&self, packet: &'static str) {
        self.refused.with_label_values(&[packet]).inc();
    }
}

impl Http {
    fn register(to: &Registrar<'_>) -> Result<Self> {
        Ok(Self {
            requests: to.counters(
                "weir_ingest_http_requests_total",
                "requests of devices, by route and status code",
                &["route", "code"],
            )?,
            seconds: to.histograms(
                "weir_ingest_http_request_seconds",
                "from a request until its answer, by route; a request for a command may wait for one",
                &["route"],
                &buckets::LATENCY,
            )?,
            bodies: to.sampled("weir_ingest_http_bodies_bytes", "bytes of bodies that are being received")?,
            bodies_max: to.gauge(
                "weir_ingest_http_bodies_capacity_bytes",
                "bytes of bodies that may be received at a time",
            )?,
        })
    }

    /// The requests of a route.
    pub(crate) fn route(&self, name: &'static str) -> Route {
        let seconds = self.seconds.with_label_values(&[name]);
        Route { name, requests: self.requests.clone(), seconds }
    }
}

impl Route {
    /// Counts a request that took `seconds` and was answered with `code`.
    pub(crate) fn answered(&self, code: u16, seconds: f64) {
        self.requests.with_label_values(&[self.name, &code.to_string()]).inc();
        self.seconds.observe(seconds);
    }
}

impl Unauthenticated {
    fn register(to: &Registrar<'_>) -> Result<Self> {
        Ok(Self {
            bytes: to.sampled(
                "weir_ingest_unauthenticated_bytes",
                "what connections hold that have not authenticated",
            )?,
            capacity: to.gauge(
                "weir_ingest_unauthenticated_capacity_bytes",
                "what connections may hold that have not authenticated",
            )?,
            evicted: to.sampled_counter(
                "weir_ingest_unauthenticated_evicted_total",
                "connections that were closed before they authenticated, to make room",
            )?,
        })
    }
}
