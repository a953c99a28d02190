//! Payloads to readings.

use weir_core::{Error, Message, Result};

use crate::access::DeviceAccess;

/// How a payload is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// RFC 8259.
    Json,
    /// RFC 8949.
    Cbor,
}

impl Format {
    /// By a content type (MQTT 5 property, HTTP header); an empty one is told by the payload's first byte.
    ///
    /// # Errors
    /// `CONTENT_TYPE_UNKNOWN` that names those that are known.
    pub(crate) fn of(content_type: &str, payload: &[u8]) -> Result<Self> {
        let _ = content_type;
        Ok(Self::sniff(payload))
    }

    /// By the first byte: a CBOR map or array (0x80 to 0xbf) is never the start of JSON.
    pub(crate) fn sniff(payload: &[u8]) -> Self {
        match payload.first() {
            Some(0x80..=0xbf) => Self::Cbor,
            _ => Self::Json,
        }
    }
}

/// Decodes payloads by the limits and the profile of the device, and stamps what carries no time.
pub(crate) struct Decoder {}

impl Decoder {
    /// The message in `payload`, whole or not at all: the error's field says which part is wrong.
    pub(crate) fn decode(&self, _from: &DeviceAccess, _format: Format, _payload: &[u8]) -> Result<Message> {
        Err(Error::internal("skeleton"))
    }
}
