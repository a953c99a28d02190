//! What every protocol of the edge works with.

use std::sync::Arc;

use weir_core::{Clock, port::CommandQueue};

use crate::{
    access::Access, config::Config, dead_letters::DeadLetters, decode::Decoder, doorbell::Doorbells,
    intake::Intake, metrics::Metrics, sessions::Sessions, unauthenticated::Unauthenticated,
};

/// What every protocol of the edge works with: MQTT, HTTP and gRPC are three ways into it.
pub(crate) struct Edge {
    pub(crate) config: Arc<Config>,
    /// Who a device is.
    pub(crate) access: Access,
    /// Payloads to messages.
    pub(crate) decoder: Decoder,
    /// Messages to the log.
    pub(crate) intake: Intake,
    /// MQTT sessions.
    pub(crate) sessions: Sessions,
    /// Refused payloads.
    pub(crate) dead_letters: DeadLetters,
    /// What connections hold before they have authenticated.
    pub(crate) unauthenticated: Arc<Unauthenticated>,
    /// Commands for devices.
    pub(crate) commands: Arc<dyn CommandQueue>,
    /// Tells that a device has a command waiting.
    pub(crate) doorbells: Arc<Doorbells>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
}
