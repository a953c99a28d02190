//! What comes out of the engine.

use serde::{Deserialize, Serialize};
use weir_core::{Position, Timestamp, Uid, Value, command::DeviceKey};

use crate::Severity;

/// What happens with an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransitionKind {
    /// It was raised.
    Raised,
    /// It became worse.
    Escalated,
    /// Somebody took it on.
    Acknowledged,
    /// It was cleared.
    Cleared,
}

impl TransitionKind {
    /// `raised`, `escalated`, `acknowledged` or `cleared`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Escalated => "escalated",
            Self::Acknowledged => "acknowledged",
            Self::Cleared => "cleared",
        }
    }
}

/// Why an alarm was cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClearReason {
    /// Its condition, or `clear_when`.
    Condition,
    /// A person.
    Manual,
    /// The rule was removed, or does not select the device any more.
    RuleRemoved,
    /// The device was removed.
    DeviceRemoved,
}

impl ClearReason {
    /// `CONDITION`, `MANUAL`, `RULE_REMOVED` or `DEVICE_REMOVED`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Condition => "CONDITION",
            Self::Manual => "MANUAL",
            Self::RuleRemoved => "RULE_REMOVED",
            Self::DeviceRemoved => "DEVICE_REMOVED",
        }
    }
}

/// An action that a transition sets off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Due {
    /// hash(transition, action): the key of its outbox row, and the id of its command or webhook.
    pub key: Uid,
    /// The action's id within the rule's current revision.
    pub action: String,
    /// A command's payload, filled in; none for other kinds.
    pub payload: Option<serde_json::Value>,
    /// A command that came sooner after the last one than its `min_interval` on the device's clock: record it, do not
    /// send it.
    pub suppressed: bool,
}

/// Something that happened with an alarm. The same input gives the same transition, id and all, however often it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// hash(rule, revision, device uid, kind, position); a person's: with the request id in place of the position. The
    /// severity of an escalation and the reason of a removal count as part of the kind.
    pub id: Uid,
    /// The alarm: the id of the transition that raised it.
    pub alarm: Uid,
    /// What happened.
    pub kind: TransitionKind,
    /// Why, where it was cleared.
    pub reason: Option<ClearReason>,
    /// The rule's uid.
    pub rule: Uid,
    /// The rule's revision that raised the alarm; a later edit does not change it.
    pub revision: u64,
    /// How bad it is from here on, or was at the end.
    pub severity: Severity,
    /// Of which device.
    pub device: DeviceKey,
    /// The reading that made it, or the last one before what made it.
    #[serde(with = "position_text")]
    pub position: Position,
    /// Event time on the device's clock; for `absent` the clock is carried on by arrival time.
    pub ts: Timestamp,
    /// The metrics and windows of the rule by name (`temp`, `avg(temp, "5m")`), as far as they are known.
    pub values: Vec<(String, Value)>,
    /// Whether the rule depends on arrival, so that another run may differ.
    pub approximate: bool,
    /// What it sets off, in the rule's order.
    pub actions: Vec<Due>,
}

mod position_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};
    use weir_core::Position;

    pub(super) fn serialize<S: Serializer>(position: &Position, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(position)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Position, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
