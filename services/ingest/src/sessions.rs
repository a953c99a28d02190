//! MQTT sessions: what outlives a connection, and who is connected.

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;
use weir_core::{Error, Result, command::DeviceKey, port::Session};

/// A client that connects.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    pub(crate) device: DeviceKey,
    /// At most 128 bytes; scoped to the device.
    pub(crate) client_id: String,
    /// `mqtt/3.1.1` or `mqtt/5`.
    pub(crate) protocol: &'static str,
    /// Address and port.
    pub(crate) remote: String,
    /// Whether the session starts anew.
    pub(crate) clean_start: bool,
    /// How long the session outlives its connection; already cut to the configured maximum.
    pub(crate) expiry: Duration,
}

/// Why a connection must end though its client did nothing wrong now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The same client connected again (MQTT 5: 0x8E).
    TakenOver,
    /// The device opened more sessions than it may have, and this was the oldest (0x8E).
    TooMany,
}

/// An open session. Dropped without [`Sessions::close`], it counts as disconnected now.
pub(crate) struct OpenSession {
    /// New at each connect; what the command queue knows it by.
    pub(crate) id: Session,
    /// Whether there was one to resume.
    pub(crate) present: bool,
    /// The filters of the resumed session.
    pub(crate) subscriptions: Vec<Subscription>,
    /// Resolves when the connection must end.
    pub(crate) ended: oneshot::Receiver<Ended>,
    live: Arc<()>,
}

/// A topic filter that a session subscribed to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Subscription {
    /// The topic filter.
    pub(crate) filter: String,
    /// The granted QoS, 0 or 1.
    pub(crate) qos: u8,
}

/// The sessions.
pub(crate) struct Sessions {}

impl Sessions {
    /// Opens or resumes a session; an older connection of the same client ends.
    pub(crate) async fn open(&self, _connect: Connect) -> Result<OpenSession> {
        Err(Error::internal("skeleton"))
    }

    /// Records what the session is subscribed to now, all of it; durable when it returns.
    pub(crate) async fn subscribed(&self, _session: &OpenSession, _to: Vec<Subscription>) -> Result<()> {
        Err(Error::internal("skeleton"))
    }

    /// It was heard of. Costs nothing: call it for each packet.
    pub(crate) fn seen(&self, session: &OpenSession) {
        let _ = &session.live;
    }

    /// The connection ended; `expiry` overrides what the connect asked for (MQTT 5 DISCONNECT); zero forgets it.
    pub(crate) async fn close(&self, _session: OpenSession, _expiry: Option<Duration>) -> Result<()> {
        Err(Error::internal("skeleton"))
    }
}
