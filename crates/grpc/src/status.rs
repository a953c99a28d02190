//! Domain errors as gRPC statuses with details, and back: one exhaustive mapping.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};
use weir_core::{Error, ErrorKind};
use weir_proto::common::v1 as pb;

const DOMAIN: &str = "weir.dev";
const LIMIT: &str = "limit";

/// The gRPC code of a kind.
pub const fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::Aborted => Code::Aborted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Unimplemented => Code::Unimplemented,
        ErrorKind::DataLoss => Code::DataLoss,
        ErrorKind::Internal => Code::Internal,
    }
}

const fn kind(code: Code) -> ErrorKind {
    match code {
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::InvalidArgument,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::FailedPrecondition => ErrorKind::FailedPrecondition,
        Code::PermissionDenied => ErrorKind::PermissionDenied,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::ResourceExhausted => ErrorKind::ResourceExhausted,
        Code::Aborted => ErrorKind::Aborted,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        Code::Cancelled => ErrorKind::Cancelled,
        Code::Unimplemented => ErrorKind::Unimplemented,
        Code::DataLoss => ErrorKind::DataLoss,
        // No service of Weir answers UNKNOWN: it is how tonic tells that a connection broke under a call.
        Code::Unknown => ErrorKind::Unavailable,
        Code::Ok | Code::Internal => ErrorKind::Internal,
    }
}

/// The status of an error: `ErrorInfo` with the stable reason, `BadRequest` where a field is wrong, `RetryInfo` where a
/// retry makes sense. The one place where an internal error is logged, since its caller must not see inside.
#[allow(clippy::needless_pass_by_value)] // so that `map_err(to_status)` reads well
pub fn to_status(error: Error) -> Status {
    if matches!(error.kind(), ErrorKind::Internal | ErrorKind::DataLoss) {
        tracing::error!(error = ?error, "a call failed");
    }
    let mut details = ErrorDetails::new();
    let mut metadata = HashMap::new();
    if let Some(limit) = error.limit() {
        metadata.insert(LIMIT.to_owned(), limit.to_owned());
    }
    details.set_error_info(error.reason(), DOMAIN, metadata);
    if let Some(field) = error.field() {
        details.set_bad_request(vec![FieldViolation::new(field, error.message())]);
    }
    if let Some(after) = error.retry_after() {
        details.set_retry_info(Some(after));
    }
    Status::with_error_details(code(error.kind()), error.message(), details)
}

/// The error that a server meant by its status.
#[allow(clippy::needless_pass_by_value)] // so that `map_err(from_status)` reads well
pub fn from_status(status: Status) -> Error {
    let details = status.get_error_details();
    let info = details.error_info();
    // Weir's own refusals carry an ErrorInfo: without one these are how the transport tells that a connection broke.
    let broke = info.is_none() && matches!(status.code(), Code::Unknown | Code::Cancelled);
    let reason = match info {
        Some(info) => info.reason.clone(),
        None if broke => "CONNECTION_CLOSED".to_owned(),
        None => format!("{:?}", status.code()).to_uppercase(),
    };
    let kind = if broke { ErrorKind::Unavailable } else { kind(status.code()) };
    let mut error = Error::new(kind, reason, status.message());
    if let Some(limit) = info.and_then(|info| info.metadata.get(LIMIT)) {
        error = error.with_limit(limit);
    }
    if let Some(violation) = details.bad_request().and_then(|bad| bad.field_violations.first()) {
        error = error.with_field(&violation.field);
    }
    if let Some(after) = details.retry_info().and_then(|retry| retry.retry_delay) {
        error = error.with_retry_after(after.max(Duration::from_millis(1)));
    }
    error
}

/// The status of one item of a batch.
pub fn to_item(result: Result<(), &Error>) -> pb::Status {
    match result {
        Ok(()) => pb::Status::default(),
        Err(error) => pb::Status {
            code: code(error.kind()) as i32,
            reason: error.reason().to_owned(),
            message: error.message().to_owned(),
            field: error.field().unwrap_or_default().to_owned(),
            limit: error.limit().unwrap_or_default().to_owned(),
        },
    }
}

/// The error of one item of a batch; `Ok` where it was accepted.
///
/// # Errors
/// What the item was refused with.
pub fn from_item(status: &pb::Status) -> Result<(), Error> {
    if status.code == 0 {
        return Ok(());
    }
    let mut error = Error::new(kind(Code::from(status.code)), status.reason.clone(), &status.message);
    if !status.field.is_empty() {
        error = error.with_field(&status.field);
    }
    if !status.limit.is_empty() {
        error = error.with_limit(&status.limit);
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_wire() {
        let error = Error::invalid("device", "ID_INVALID", "too long, at most 128")
            .with_limit(128)
            .with_retry_after(Duration::from_secs(2));
        let back = from_status(to_status(error.clone()));
        assert_eq!(back.kind(), error.kind());
        assert_eq!(back.reason(), error.reason());
        assert_eq!(back.message(), error.message());
        assert_eq!((back.field(), back.limit()), (Some("device"), Some("128")));
        assert_eq!(back.retry_after(), Some(Duration::from_secs(2)));
        let item = from_item(&to_item(Err(&error))).unwrap_err();
        assert_eq!((item.reason(), item.field(), item.limit()), ("ID_INVALID", Some("device"), Some("128")));
    }
}
