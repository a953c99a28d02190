//! Alarms as records: what they are, where they are, and how they change.

pub(crate) mod key;
mod read;
mod transaction;
mod watch;

use std::{collections::BTreeMap, sync::Arc};

use futures::StreamExt as _;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use weir_core::{
    Clock, Partition, Position, TenantId, Timestamp, Uid,
    command::DeviceKey,
    id::ResourceId,
    port::{Records, Signal, SignalStream, Signals, Table},
    selector::Labels,
};
use weir_rules::{ClearReason, Severity, TransitionKind};

pub(crate) use read::{Filter, States};
pub(crate) use transaction::{Effect, Op, Person, PersonKind, boundary, text};
pub(crate) use watch::{Changed, Watch};

/// Alarms, their indexes and the outbox, one record partition for each (partition of the log, tenant): so that an alarm
/// and what it sets off are one commit, and each owner writes where no other does.
pub(crate) const ALARMS: Table = Table("alarms");

/// Changes that a watcher in this process may be behind with before it looks everywhere.
const HINTS: usize = 256;

/// Whether an alarm is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum State {
    Raised,
    Acknowledged,
    Cleared,
}

/// What became of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum ActionState {
    Pending,
    Done,
    Failed,
    Suppressed,
}

/// Something that happened to an alarm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// The transition's id, or that of a person's request: written once.
    pub(crate) id: Uid,
    pub(crate) kind: TransitionKind,
    #[serde(default)]
    pub(crate) event_time: Option<Timestamp>,
    pub(crate) record_time: Timestamp,
    pub(crate) actor: String,
    #[serde(default)]
    pub(crate) comment: String,
    pub(crate) severity: Severity,
    #[serde(default)]
    pub(crate) position: String,
}

/// What an action did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ActionResult {
    /// hash(transition, action): the key of its outbox row.
    pub(crate) key: Uid,
    pub(crate) action: String,
    pub(crate) on: TransitionKind,
    pub(crate) state: ActionState,
    #[serde(default)]
    pub(crate) command: Option<Uid>,
    #[serde(default)]
    pub(crate) attempts: u32,
    #[serde(default)]
    pub(crate) error: String,
}

/// An alarm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Alarm {
    /// The id of the transition that raised it.
    pub(crate) uid: Uid,
    pub(crate) rule: ResourceId,
    pub(crate) rule_uid: Uid,
    pub(crate) revision: u64,
    pub(crate) device: DeviceKey,
    pub(crate) severity: Severity,
    pub(crate) state: State,
    pub(crate) raised_at: Timestamp,
    #[serde(default)]
    pub(crate) acknowledged_at: Option<Timestamp>,
    #[serde(default)]
    pub(crate) cleared_at: Option<Timestamp>,
    #[serde(default)]
    pub(crate) clear_reason: Option<ClearReason>,
    pub(crate) labels: Labels,
    pub(crate) values: BTreeMap<String, String>,
    pub(crate) history: Vec<Event>,
    #[serde(default)]
    pub(crate) actions: Vec<ActionResult>,
    /// When it was recorded, by the wall clock: the order of lists.
    pub(crate) recorded_at: Timestamp,
    /// Which change of its record partition was its last.
    pub(crate) change: u64,
}

impl Alarm {
    pub(crate) fn is_open(&self) -> bool {
        self.state != State::Cleared
    }
}

/// What a record partition of [`ALARMS`] counts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Counter {
    /// Changes so far: a watcher goes on after one.
    pub(crate) change: u64,
    /// The highest position from which something was recorded here: an owner that reads again up to it does so under the
    /// rules of then.
    #[serde(default, with = "position_text")]
    pub(crate) through: Option<Position>,
    /// The claim of the newest owner that has come here: what an older one makes of readings is not taken any more.
    #[serde(default)]
    pub(crate) epoch: u64,
}

/// The alarms of every partition and tenant.
pub(crate) struct Alarms {
    pub(crate) records: Arc<dyn Records>,
    signals: Arc<dyn Signals>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) partitions: u16,
    pub(crate) waiting_per_rule: u32,
    /// One writer of a record partition at a time: losing a race costs a commit.
    locks: Mutex<std::collections::HashMap<String, std::sync::Weak<tokio::sync::Mutex<()>>>>,
    /// Whose alarms have changed, here or on another replica; everybody's may have, without a tenant.
    hints: broadcast::Sender<Option<TenantId>>,
    /// Webhooks that wait, of each rule.
    pub(crate) waiting: crate::outbox::Waiting,
}

impl Alarms {
    pub(crate) fn new(
        records: Arc<dyn Records>,
        signals: Arc<dyn Signals>,
        clock: Arc<dyn Clock>,
        partitions: u16,
        waiting_per_rule: u32,
    ) -> Self {
        Self {
            records,
            signals,
            clock,
            partitions,
            waiting_per_rule,
            locks: Mutex::default(),
            hints: broadcast::Sender::new(HINTS),
            waiting: crate::outbox::Waiting::default(),
        }
    }

    /// Tells those who watch here what any replica has changed, until the signals end.
    pub(crate) async fn listen(&self, mut signals: SignalStream) {
        while let Some(signal) = signals.next().await {
            let hint = match signal {
                Some(Signal::AlarmsChanged { tenant }) => Some(tenant),
                Some(_) => continue,
                None => None,
            };
            let _ = self.hints.send(hint); // nobody watches
        }
    }

    pub(crate) fn every_partition(&self) -> impl Iterator<Item = Partition> + use<> {
        (0..self.partitions).map(Partition)
    }

    /// The lock of a record partition; those that nobody holds are forgotten when they are many.
    fn lock(&self, place: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock();
        if let Some(lock) = locks.get(place).and_then(std::sync::Weak::upgrade) {
            return lock;
        }
        if locks.len() >= 1_024 {
            locks.retain(|_, lock| lock.strong_count() > 0);
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        locks.insert(place.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

pub(crate) mod position_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
    use weir_core::Position;

    pub(crate) fn serialize<S: Serializer>(
        position: &Option<Position>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        position.map(|position| position.to_string()).serialize(serializer)
    }
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Position>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}
