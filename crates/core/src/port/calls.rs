//! What services ask of each other.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::{
    DeviceId, Position, Result, TenantId, Timestamp, Uid, Value,
    command::{Answer, Command, DeviceKey, Order},
    device::{Device, Profile},
    principal::Principal,
    selector::Selector,
};

/// Who is who: asked by every service, answered by registry.
#[async_trait]
pub trait Registry: Send + Sync {
    /// The holder of `token` (`wa_<id>_<secret>` or `wd_<id>_<secret>`).
    ///
    /// # Errors
    /// `Unauthenticated` for a token that is unknown, revoked, expired or of a disabled device: one text for all, so that
    /// nothing is told to a guesser.
    async fn authenticate(&self, token: &str) -> Result<Principal>;

    /// A device by its public id.
    ///
    /// # Errors
    /// `NotFound`.
    async fn device(&self, tenant: &TenantId, device: &DeviceId) -> Result<Arc<Device>>;

    /// A profile.
    ///
    /// # Errors
    /// `NotFound`.
    async fn profile(&self, tenant: &TenantId, profile: &str) -> Result<Arc<Profile>>;

    /// Devices that match, in id order, after `after`, at most `limit`. Fewer than `limit` means that no more follow.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn select(
        &self,
        tenant: &TenantId,
        selector: &Selector,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<Arc<Device>>>;
}

/// A request to send a command.
#[derive(Debug, Clone, PartialEq)]
pub struct SendCommand {
    /// To whom.
    pub to: DeviceKey,
    /// What.
    pub name: String,
    /// With what: a JSON document.
    pub payload: Bytes,
    /// How long it may wait for its answer, at most 30 d.
    pub ttl: Duration,
    /// When the next may leave.
    pub order: Order,
    /// Makes it idempotent for the time to live.
    pub request_id: String,
    /// Who sends.
    pub actor: String,
}

/// Sends commands: asked by analytics, answered by commands.
#[async_trait]
pub trait CommandSender: Send + Sync {
    /// Returns the command's id and position when the `commands` stream has it.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad name, payload or time to live; `ResourceExhausted`, `Unavailable` of the log.
    async fn send(&self, send: SendCommand) -> Result<(Uid, Position)>;
}

/// A session of a device at the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Session(pub Uid);

/// Which attach of a session may move a device's commands; rises with each attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionEpoch(pub u64);

/// A command to put on the wire now.
#[derive(Debug, Clone, PartialEq)]
pub struct Queued {
    /// The command.
    pub command: Command,
    /// Whether it was sent before and may have arrived: MQTT's DUP.
    pub again: bool,
}

/// The reason of `Aborted` to an older session: the newer one is gone, and it may attach again.
pub const SESSION_ENDED: &str = "SESSION_ENDED";
/// The reason of `Aborted` to an older session: the newer one has said when it ends, and has the commands until then.
pub const SESSION_ENDING: &str = "SESSION_ENDING";

/// A device's pending commands: asked by ingest, answered by commands.
#[async_trait]
pub trait CommandQueue: Send + Sync {
    /// Makes this session the one that gets the device's commands.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn attach(&self, device: &DeviceKey, session: Session) -> Result<SessionEpoch>;

    /// This session wants no more commands: `after` so long, an older session that asks is told `SESSION_ENDED` and may attach
    /// again; before that it is told `SESSION_ENDING`. Until then this one may still take commands and say what it delivered. Changes nothing where a newer session attached; of two calls the
    /// one that ends earlier counts.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn detach(&self, device: &DeviceKey, epoch: SessionEpoch, after: Duration) -> Result<()>;

    /// The oldest command that may leave now; none if nothing waits or one is in flight.
    ///
    /// # Errors
    /// `Aborted` where a newer session attached.
    async fn next(&self, device: &DeviceKey, epoch: SessionEpoch) -> Result<Option<Queued>>;

    /// As [`CommandQueue::next`], for a session that cannot acknowledge (an MQTT subscription at QoS 0): what was sent in this
    /// epoch holds the next command back until its answer or for 30 s, and is not offered again in it. `next` itself never
    /// lets another command pass one that is not delivered, and offers that one again after 30 s.
    ///
    /// # Errors
    /// `Aborted` where a newer session attached.
    async fn next_unacknowledged(&self, device: &DeviceKey, epoch: SessionEpoch) -> Result<Option<Queued>> {
        self.next(device, epoch).await
    }

    /// It is about to be put on the wire: QUEUED → SENT.
    ///
    /// # Errors
    /// `Aborted` where a newer session attached; `FailedPrecondition` where the command has ended meanwhile.
    async fn sent(&self, device: &DeviceKey, epoch: SessionEpoch, command: Uid) -> Result<()>;

    /// The device acknowledged it: SENT → DELIVERED. Idempotent.
    ///
    /// # Errors
    /// `Aborted` where a newer session attached.
    async fn delivered(&self, device: &DeviceKey, epoch: SessionEpoch, command: Uid) -> Result<()>;

    /// The device answered, over whatever session; implies delivery. An answer to a command that has ended changes
    /// nothing.
    ///
    /// # Errors
    /// `NotFound` where the device has no such command.
    async fn answered(&self, device: &DeviceKey, command: Uid, answer: Answer) -> Result<()>;
}

/// Which rows a rule sees again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleScan {
    /// The tenant.
    pub tenant: TenantId,
    /// The device's internal uid.
    pub uid: Uid,
    /// Only rows above this position.
    pub after: Option<Position>,
    /// Only rows up to this position.
    pub through: Option<Position>,
    /// Only event times from this.
    pub from: Timestamp,
    /// Only event times before this.
    pub to: Timestamp,
}

/// What of one reading rules see: its values that were not late.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleRow {
    /// Where it stands in the log.
    pub position: Position,
    /// Event time.
    pub ts: Timestamp,
    /// Arrival.
    pub received_at: Timestamp,
    /// The values that were not late.
    pub values: Vec<(Arc<str>, Value)>,
}

/// Rows in position order.
pub type RuleRows = BoxStream<'static, Result<RuleRow>>;

/// Stored telemetry: asked by analytics, answered by storage.
#[async_trait]
pub trait TelemetryReader: Send + Sync {
    /// Unmerged rows in position order, without late values.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn scan_for_rules(&self, scan: RuleScan) -> Result<RuleRows>;
}
