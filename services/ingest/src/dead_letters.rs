//! Payloads that were refused where the wire could not say so: a bounded ring for each tenant.

use bytes::Bytes;
use weir_core::{DeviceId, Error, Result, TenantId};

/// A payload that was refused.
#[derive(Debug, Clone)]
pub(crate) struct Refused<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) device: &'a DeviceId,
    pub(crate) topic: &'a str,
    pub(crate) payload: Bytes,
    pub(crate) error: &'a Error,
}

/// The rings.
pub(crate) struct DeadLetters {}

impl DeadLetters {
    /// Keeps a payload; durable when it returns. The oldest make room.
    pub(crate) async fn keep(&self, _refused: Refused<'_>) -> Result<()> {
        Err(Error::internal("skeleton"))
    }
}
