//! Devices and their profiles, as other services see them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{DeviceId, TenantId, Timestamp, Uid, ValueType, selector::Labels};

/// A device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its public id.
    pub id: DeviceId,
    /// Its internal uid, new at each creation.
    pub uid: Uid,
    /// The id of its profile; `default` accepts all.
    pub profile: String,
    /// What selectors match.
    pub labels: Labels,
    /// Facts about it, seen by rules as `device.attributes`.
    pub attributes: BTreeMap<String, String>,
    /// A disabled device cannot connect or publish.
    pub enabled: bool,
    /// Whether it may speak for children under `v1/children/`.
    pub gateway: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// What the devices of a profile may send. The parts that this release does not enforce cannot be set (the registry
/// refuses them by name), so they are not here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Its id within the tenant.
    pub id: String,
    /// The declared metrics by name.
    pub metrics: BTreeMap<Arc<str>, Metric>,
    /// Whether its devices are gateways.
    #[serde(default)]
    pub gateway: bool,
    /// How far behind now an event time may be; without it the year 2000 is the limit.
    #[serde(default)]
    pub past: Option<Duration>,
    /// How far ahead of now an event time may be.
    pub future: Duration,
    /// What happens to a reading outside these.
    #[serde(default)]
    pub on_bad_time: OnBadTime,
}

/// One declared metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// The type on the wire; decides whether a JSON number is a double or an integer.
    pub value_type: ValueType,
    /// UCUM unit, for display.
    #[serde(default)]
    pub unit: String,
    /// For people.
    #[serde(default)]
    pub description: String,
}

/// What happens to a reading whose time is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBadTime {
    /// It is refused with `TIMESTAMP_OUT_OF_RANGE`.
    #[default]
    Refuse,
    /// It is stamped on arrival; the claimed value is kept.
    Arrival,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            id: Self::DEFAULT_ID.to_owned(),
            metrics: BTreeMap::new(),
            gateway: false,
            past: None,
            future: Self::DEFAULT_FUTURE,
            on_bad_time: OnBadTime::Refuse,
        }
    }
}

impl Profile {
    /// The profile that every tenant has, and that accepts all.
    pub const DEFAULT_ID: &'static str = "default";
    /// A clock that is further ahead than ten minutes is wrong, not skewed.
    pub const DEFAULT_FUTURE: Duration = Duration::from_secs(600);
    /// 2000-01-01T00:00:00Z: an event time before it is a unit mistaken or a clock never set.
    pub const EARLIEST: Timestamp = Timestamp::from_micros(946_684_800_000_000);
}
