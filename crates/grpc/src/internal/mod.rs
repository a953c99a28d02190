//! What services ask of each other, as it is written on the wire: both directions of every message, for the service that
//! answers and the client that asks.
//!
//! Whatever a message holds, reading it gives the domain or `InvalidArgument` with the field's name.

pub mod commands;
pub mod registry;
pub mod storage;

use bytes::Bytes;
use tonic::{Request, Status};
use weir_core::{Error, Position, Result, Uid};

use crate::{principal, to_status};

/// Whether `path` (`/package.Service/Method`) is a method that only services may call.
pub fn is_internal(path: &str) -> bool {
    let service = path.strip_prefix('/').and_then(|path| path.split('/').next());
    service.is_some_and(|service| weir_proto::INTERNAL.contains(&service))
}

/// What a service asks: the first move of every internal handler.
///
/// # Errors
/// `PERMISSION_DENIED` where the caller is no service; `UNAUTHENTICATED` where no layer has run.
#[allow(clippy::result_large_err)] // tonic's own error type
pub fn open<T>(request: Request<T>) -> Result<T, Status> {
    principal(request.extensions())?.require_service().map_err(to_status)?;
    Ok(request.into_inner())
}

/// The message that another cannot do without.
///
/// # Errors
/// `FIELD_MISSING` with its name.
pub fn required<T>(field: &str, part: Option<T>) -> Result<T> {
    part.ok_or_else(|| Error::invalid(field, "FIELD_MISSING", format!("{field} is missing")))
}

/// A uid on the wire: 16 bytes, big-endian.
pub fn from_uid(uid: Uid) -> Vec<u8> {
    uid.to_bytes().to_vec()
}

/// A uid from the wire.
///
/// # Errors
/// `UID_INVALID` for another length.
pub fn to_uid(field: &str, bytes: &[u8]) -> Result<Uid> {
    bytes.try_into().map(Uid::from_bytes).map_err(|_| {
        let what = format!("{field} has {} bytes, a uid has 16", bytes.len());
        Error::invalid(field, "UID_INVALID", what)
    })
}

/// A position on the wire.
pub fn from_position(position: Position) -> Vec<u8> {
    position.to_bytes().to_vec()
}

/// A position from the wire.
///
/// # Errors
/// `POSITION_INVALID`.
pub fn to_position(field: &str, bytes: &[u8]) -> Result<Position> {
    Position::from_bytes(bytes).map_err(|error| error.with_field(field))
}

/// A position that may be absent, which is empty on the wire.
///
/// # Errors
/// `POSITION_INVALID`.
pub fn to_position_opt(field: &str, bytes: &[u8]) -> Result<Option<Position>> {
    if bytes.is_empty() { Ok(None) } else { to_position(field, bytes).map(Some) }
}

/// A JSON document that the domain keeps as text.
fn to_text(field: &str, bytes: Bytes) -> Result<Bytes> {
    match std::str::from_utf8(&bytes) {
        Ok(_) => Ok(bytes),
        Err(source) => {
            let what = format!("{field} is not UTF-8: {source}");
            Err(Error::invalid(field, "TEXT_INVALID", what))
        }
    }
}

fn unknown(field: &str, number: i32) -> Error {
    Error::invalid(field, "ENUM_INVALID", format!("{field} has the number {number}, which is not known"))
}
