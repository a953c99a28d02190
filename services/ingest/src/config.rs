//! The section `ingest` of the configuration.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weir_config::{ByteSize, Durability};
use weir_core::{Error, Result};

/// The device edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `log.partitions`, filled in by whoever starts the service.
    #[serde(skip)]
    pub partitions: u16,
    /// `log.durability`, filled in by whoever starts the service: what an acknowledgement is counted as.
    #[serde(skip)]
    pub durability: Durability,
    /// What one message, reading or connection may be.
    pub limits: Limits,
    /// How messages wait for the log.
    pub intake: IntakeConfig,
    /// MQTT sessions and connections.
    pub mqtt: MqttConfig,
    /// HTTP device API.
    pub http: HttpConfig,
    /// Payloads that were refused over MQTT 3.1.1.
    pub dead_letters: DeadLettersConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            partitions: 16, // as `log.partitions`
            durability: Durability::default(),
            limits: Limits::default(),
            intake: IntakeConfig::default(),
            mqtt: MqttConfig::default(),
            http: HttpConfig::default(),
            dead_letters: DeadLettersConfig::default(),
        }
    }
}

impl Config {
    /// Checks what no type can say.
    ///
    /// # Errors
    /// `CONFIG_INVALID` that names the key and its bounds.
    pub(crate) fn check(&self) -> Result<()> {
        let limits = &self.limits;
        let bounds = [
            ("ingest.limits.packet", limits.packet.0, 1, PACKET_MAX),
            ("ingest.limits.readings_per_message", limits.readings_per_message as u64, 1, 100_000),
            ("ingest.limits.metrics_per_reading", limits.metrics_per_reading as u64, 1, 10_000),
            ("ingest.limits.nesting", limits.nesting as u64, 2, NESTING_MAX),
            ("ingest.limits.metric_name", limits.metric_name.0, 1, 128),
            ("ingest.limits.command_payload", limits.command_payload.0, 1, PACKET_MAX),
            ("ingest.limits.connections", limits.connections as u64, 1, 1 << 20),
            ("ingest.intake.window", self.intake.window.0, 1 << 20, 1 << 30),
            ("ingest.intake.retry_for", self.intake.retry_for.as_secs(), 1, RETRY_MAX.as_secs()),
            ("ingest.mqtt.sessions_per_device", self.mqtt.sessions_per_device as u64, 1, 32),
            ("ingest.mqtt.receive_max", u64::from(self.mqtt.receive_max), 1, u64::from(u16::MAX)),
            ("ingest.dead_letters.count", self.dead_letters.count as u64, 1, 1 << 20),
        ];
        for (key, value, min, max) in bounds {
            if !(min..=max).contains(&value) {
                let text = format!("{key} is {value}; it must be from {min} to {max}");
                return Err(Error::invalid(key, "CONFIG_INVALID", text).with_limit(max));
            }
        }
        Ok(())
    }
}

/// MQTT's own limit on a packet (256 MiB) is more than any frame; a message that encodes above 512 KiB is refused anyway.
const PACKET_MAX: u64 = 4 << 20;
/// The decoders recurse once a level; `serde_json` itself stops at 128.
const NESTING_MAX: u64 = 64;
/// Half of the log's duplicate window of 10 min, after which the same id could be stored twice.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// What one message, reading or connection may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// An MQTT packet or an HTTP body.
    pub packet: ByteSize,
    /// Readings in one message.
    pub readings_per_message: usize,
    /// Metrics in one reading.
    pub metrics_per_reading: usize,
    /// Levels of objects and arrays in a payload.
    pub nesting: usize,
    /// Length of a metric's name.
    pub metric_name: ByteSize,
    /// The payload of a device's answer to a command.
    pub command_payload: ByteSize,
    /// How long a connection may take to authenticate.
    #[serde(with = "weir_config::duration")]
    #[schemars(with = "String")]
    pub auth_timeout: Duration,
    /// Buffers of all connections that have not authenticated; past it the oldest of these is closed.
    pub unauthenticated_buffers: ByteSize,
    /// Open connections, MQTT and HTTP each.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet: ByteSize::kib(256),            // a day of one metric a minute, in JSON, fits
            readings_per_message: 1_000,           // above it batching gains nothing
            metrics_per_reading: 256,              // the widest industrial gateways send about 200
            nesting: 16,                           // deeper payloads are accidents or attacks
            metric_name: ByteSize(128),            // as Prometheus and OPC UA names in practice
            command_payload: ByteSize::kib(128),   // half of a packet, so that an answer fits with its topic
            auth_timeout: Duration::from_secs(10), // a radio link's worst handshake, with margin
            unauthenticated_buffers: ByteSize::mib(16),
            connections: 20_000, // about 16 KiB each: 320 MiB at the bound
        }
    }
}

/// How messages wait for the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IntakeConfig {
    /// Messages that wait for the log, for each partition; tenants share it.
    pub window: ByteSize,
    /// How long one publish to the log may take before it is tried again.
    #[serde(with = "weir_config::duration")]
    #[schemars(with = "String")]
    pub publish_timeout: Duration,
    /// How long one frame is tried; at most half of the log's duplicate window.
    #[serde(with = "weir_config::duration")]
    #[schemars(with = "String")]
    pub retry_for: Duration,
}

impl Default for IntakeConfig {
    fn default() -> Self {
        Self {
            window: ByteSize::mib(8), // some 16,000 small messages; more only makes the wait longer
            publish_timeout: Duration::from_secs(10), // ten times a slow disk's worst sync
            retry_for: Duration::from_secs(300), // half of the duplicate window of 10 min
        }
    }
}

/// MQTT sessions and connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MqttConfig {
    /// Messages that a client may have unacknowledged: MQTT 5's Receive Maximum; for 3.1.1 reading stops there.
    pub receive_max: u16,
    /// The longest session expiry; a longer one is cut and the client told.
    #[serde(with = "weir_config::duration")]
    #[schemars(with = "String")]
    pub session_expiry_max: Duration,
    /// The longest keep-alive; also how long a silent connection without one stays.
    #[serde(with = "weir_config::duration")]
    #[schemars(with = "String")]
    pub keep_alive_max: Duration,
    /// Sessions of one device; the oldest is closed for a new one.
    pub sessions_per_device: usize,
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            receive_max: 1_024, // at 1 ms a frame a client can do a million a second before it is the limit
            session_expiry_max: Duration::from_secs(7 * 86_400),
            keep_alive_max: Duration::from_secs(20 * 60),
            sessions_per_device: 4,
        }
    }
}

/// HTTP device API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// How long a request's header may take; also how long an idle connection stays.
    #[serde(with = "weir_config::duration")]
    #[schemars(with = "String")]
    pub header_timeout: Duration,
    /// How long a request's body may take.
    #[serde(with = "weir_config::duration")]
    #[schemars(with = "String")]
    pub body_timeout: Duration,
    /// Bodies of all requests that are being received; past it requests are refused.
    pub bodies: ByteSize,
    /// The longest `?wait=` of the command long poll.
    #[serde(with = "weir_config::duration")]
    #[schemars(with = "String")]
    pub wait_max: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10), // as the time to authenticate
            body_timeout: Duration::from_secs(30),   // 256 KiB at 70 kbit/s
            bodies: ByteSize::mib(64),               // 256 of the largest at once
            wait_max: Duration::from_secs(60),       // below the idle time-out of common proxies
        }
    }
}

/// Payloads that were refused over MQTT 3.1.1, where the wire cannot say so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLettersConfig {
    /// How many are kept for each tenant.
    pub count: usize,
    /// How many bytes of payloads are kept for each tenant.
    pub bytes: ByteSize,
}

impl Default for DeadLettersConfig {
    fn default() -> Self {
        Self { count: 1_000, bytes: ByteSize::mib(16) } // enough to see what is wrong, not an archive
    }
}
