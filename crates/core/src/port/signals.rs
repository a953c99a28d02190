//! Hints between services: doorbells and cache invalidation.

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::{DeviceId, TenantId, Uid};

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
