//! Commands to devices and their states.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{DeviceId, Position, TenantId, Timestamp, Uid};

/// `QUEUED → SENT → DELIVERED → SUCCEEDED | FAILED`, or `EXPIRED | CANCELED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Accepted by the log; not yet offered to a session.
    Queued,
    /// Offered to a session that has not acknowledged it.
    Sent,
    /// Acknowledged by the device.
    Delivered,
    /// Answered: done.
    Succeeded,
    /// Answered: not done, or the answer made no sense.
    Failed,
    /// Its time ran out.
    Expired,
    /// Taken back.
    Canceled,
}

impl State {
    /// Whether nothing can follow.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Expired | Self::Canceled)
    }
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Sent => "SENT",
            Self::Delivered => "DELIVERED",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Expired => "EXPIRED",
            Self::Canceled => "CANCELED",
        }
    }
}

/// A device as the key of its commands and telemetry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeviceKey {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its public id.
    pub device: DeviceId,
    /// Its internal uid.
    pub uid: Uid,
}

/// When the next command of a device may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// After this one was delivered.
    #[default]
    OnDelivery,
    /// After this one was answered.
    OnResponse,
}

/// A request to send a command: what the `commands` stream holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// hash(tenant, device uid, request id).
    pub id: Uid,
    /// To whom.
    pub to: DeviceKey,
    /// What: 1 to 64 of `[A-Za-z0-9_.-]`, a level of an MQTT topic.
    pub name: String,
    /// With what: a JSON document, at most 128 KiB.
    #[serde(with = "json_bytes")]
    pub payload: Bytes,
    /// When the next may leave.
    #[serde(default)]
    pub order: Order,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it ends as EXPIRED if it has not been answered.
    pub expires_at: Timestamp,
    /// The caller's idempotency key.
    pub request_id: String,
    /// Who sent it: `token:<id>` or `rule:<id>`.
    pub actor: String,
}

/// A device's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether the device did it.
    pub ok: bool,
    /// Its own words, a JSON document, at most 128 KiB; empty where it made no sense.
    #[serde(with = "json_bytes")]
    pub payload: Bytes,
    /// Why not, where it did not.
    #[serde(default)]
    pub error: String,
    /// When the edge received it.
    pub received_at: Timestamp,
}

/// A command and its life so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// What was asked.
    pub request: Request,
    /// Where it stands in the `commands` stream: the device's order.
    #[serde(with = "position_text")]
    pub position: Position,
    /// Where it is now.
    pub state: State,
    /// When it was first offered to a session.
    #[serde(default)]
    pub sent_at: Option<Timestamp>,
    /// When the device acknowledged it.
    #[serde(default)]
    pub delivered_at: Option<Timestamp>,
    /// When it reached its final state.
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
    /// What the device answered.
    #[serde(default)]
    pub answer: Option<Answer>,
    /// EXPIRED or CANCELED from SENT: whether the device got it is not known.
    #[serde(default)]
    pub delivery_unknown: bool,
}

mod json_bytes {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _, ser::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(bytes).map_err(S::Error::custom)?)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        String::deserialize(deserializer).map(Bytes::from).map_err(D::Error::custom)
    }
}

mod position_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use crate::Position;

    pub(super) fn serialize<S: Serializer>(position: &Position, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(position)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Position, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
