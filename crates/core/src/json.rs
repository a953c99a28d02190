//! Records as JSON: readable in an incident, and a release can add fields.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result, port::Stored};

/// Encodes a record.
///
/// # Errors
/// `Internal` where the value cannot be JSON.
pub fn to_bytes(value: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|source| Error::internal("cannot encode a record").with_source(source))
}

/// Decodes a record.
///
/// # Errors
/// `DataLoss` where the value is not what this release writes.
pub fn from_stored<T: DeserializeOwned>(stored: &Stored) -> Result<T> {
    serde_json::from_slice(&stored.value).map_err(|source| {
        let key = String::from_utf8_lossy(&stored.key).into_owned();
        Error::data_loss(format!("cannot read the record with key {key:?}")).with_source(source)
    })
}
