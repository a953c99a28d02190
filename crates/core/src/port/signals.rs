//! Hints between services: doorbells and cache invalidation.

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::{DeviceId, Partition, Stream, TenantId, Uid, command::DeviceKey};

/// What one subscribes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// Devices, profiles, credentials, tokens and tenants changed.
    Registry,
    /// A device has a command waiting.
    Commands,
    /// Rules changed.
    Rules,
    /// Owners got further in the log.
    Progress,
    /// Sessions of devices opened.
    Sessions,
    /// Commands moved.
    CommandChanges,
    /// Alarms changed.
    Alarms,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 7] = [
        Self::Registry,
        Self::Commands,
        Self::Rules,
        Self::Progress,
        Self::Sessions,
        Self::CommandChanges,
        Self::Alarms,
    ];

    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Commands => "commands",
            Self::Rules => "rules",
            Self::Progress => "progress",
            Self::Sessions => "sessions",
            Self::CommandChanges => "command_changes",
            Self::Alarms => "alarms",
        }
    }
}

/// A hint. Whoever relies on one re-reads on connect, after any gap, and every 30 s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// The device was created, changed or deleted.
    DeviceChanged {
        /// Its tenant.
        tenant: TenantId,
        /// Its public id.
        device: DeviceId,
        /// Its internal uid.
        uid: Uid,
    },
    /// A credential was revoked: sessions that used it end.
    CredentialRevoked {
        /// Its tenant.
        tenant: TenantId,
        /// The device's internal uid.
        uid: Uid,
        /// The credential's id.
        credential: String,
    },
    /// A profile was created, changed or deleted.
    ProfileChanged {
        /// Its tenant.
        tenant: TenantId,
        /// Its id.
        profile: String,
    },
    /// An API token was revoked.
    TokenRevoked {
        /// Its id.
        token: String,
    },
    /// A tenant was created, changed or deleted.
    TenantChanged {
        /// Its id.
        tenant: TenantId,
    },
    /// A command waits for the device.
    CommandWaiting {
        /// Its tenant.
        tenant: TenantId,
        /// The device's internal uid.
        uid: Uid,
    },
    /// A rule of the tenant was created, changed or deleted, or one of its alarms was cleared by hand.
    RulesChanged {
        /// Its tenant.
        tenant: TenantId,
    },
    /// The store has everything of a partition up to this frame.
    Written {
        /// `storage` or `commands`.
        reader: String,
        /// Of which stream.
        stream: Stream,
        /// Which partition.
        partition: Partition,
        /// The generation of `sequence`.
        generation: u32,
        /// The frame, or the end of the stream as an idle owner saw it.
        sequence: u64,
    },
    /// A session of a device opened at some replica: older connections of the same client, and those of `evicted` clients,
    /// end wherever they are.
    SessionOpened {
        /// Its tenant.
        tenant: TenantId,
        /// The device's internal uid.
        uid: Uid,
        /// The session.
        session: Uid,
        /// The client that opened it.
        client_id: String,
        /// Clients of the device whose sessions were ended to make room.
        evicted: Vec<String>,
    },
    /// Alarms of the tenant were raised, cleared or changed otherwise.
    AlarmsChanged {
        /// Its tenant.
        tenant: TenantId,
    },
    /// A command was copied, or changed its state.
    CommandChanged {
        /// To whom it goes.
        to: DeviceKey,
        /// The command.
        id: Uid,
    },
}

impl Signal {
    /// The topic under which it travels.
    pub const fn topic(&self) -> Topic {
        match self {
            Self::DeviceChanged { .. }
            | Self::CredentialRevoked { .. }
            | Self::ProfileChanged { .. }
            | Self::TokenRevoked { .. }
            | Self::TenantChanged { .. } => Topic::Registry,
            Self::CommandWaiting { .. } => Topic::Commands,
            Self::RulesChanged { .. } => Topic::Rules,
            Self::Written { .. } => Topic::Progress,
            Self::SessionOpened { .. } => Topic::Sessions,
            Self::CommandChanged { .. } => Topic::CommandChanges,
            Self::AlarmsChanged { .. } => Topic::Alarms,
        }
    }
}

/// Signals as they come; `None` says that some may be missing, so re-read. Ends with the process.
pub type SignalStream = BoxStream<'static, Option<Signal>>;

/// Ephemeral publish and subscribe.
#[async_trait]
pub trait Signals: Send + Sync {
    /// Tells whoever listens now. Never fails: it is a hint.
    async fn publish(&self, signal: Signal);

    /// Everything published to `topic` from now on.
    async fn subscribe(&self, topic: Topic) -> SignalStream;
}
