//! Errors as problem documents (RFC 9457): the one mapping from our kinds to HTTP statuses.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use serde::Serialize;
use weir_core::{Error, ErrorKind};

/// A body over the limit.
pub(super) const TOO_LARGE: &str = "PACKET_TOO_LARGE";
/// A body that took too long.
pub(super) const TIMEOUT: &str = "REQUEST_TIMEOUT";
/// A path that is there, with another method.
pub(super) const METHOD: &str = "METHOD_NOT_ALLOWED";

#[derive(Serialize)]
struct Problem<'a> {
    /// Names the reason; not to be followed.
    r#type: String,
    /// The stable upper-case reason.
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'a str>,
}

/// The status of an error. Where HTTP has a finer status than our kind, the reason decides.
fn status(error: &Error) -> StatusCode {
    match (error.kind(), error.reason()) {
        (ErrorKind::InvalidArgument, "CONTENT_TYPE_UNKNOWN") => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        (ErrorKind::InvalidArgument, TOO_LARGE | "MESSAGE_TOO_LARGE" | "ANSWER_TOO_LARGE") => {
            StatusCode::PAYLOAD_TOO_LARGE
        }
        (ErrorKind::InvalidArgument, METHOD) => StatusCode::METHOD_NOT_ALLOWED,
        (ErrorKind::DeadlineExceeded, TIMEOUT) => StatusCode::REQUEST_TIMEOUT,
        (ErrorKind::InvalidArgument, _) => StatusCode::BAD_REQUEST,
        (ErrorKind::NotFound, _) => StatusCode::NOT_FOUND,
        (ErrorKind::FailedPrecondition, "DEVICE_DISABLED") => StatusCode::FORBIDDEN,
        (ErrorKind::AlreadyExists | ErrorKind::FailedPrecondition | ErrorKind::Aborted, _) => {
            StatusCode::CONFLICT
        }
        (ErrorKind::PermissionDenied, _) => StatusCode::FORBIDDEN,
        (ErrorKind::Unauthenticated, _) => StatusCode::UNAUTHORIZED,
        (ErrorKind::ResourceExhausted, _) => StatusCode::TOO_MANY_REQUESTS,
        (ErrorKind::Unavailable | ErrorKind::Cancelled, _) => StatusCode::SERVICE_UNAVAILABLE,
        (ErrorKind::DeadlineExceeded, _) => StatusCode::GATEWAY_TIMEOUT,
        (ErrorKind::Unimplemented, _) => StatusCode::NOT_IMPLEMENTED,
        (ErrorKind::DataLoss | ErrorKind::Internal, _) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The answer to a request that failed.
pub(super) fn response(error: &Error) -> Response<Body> {
    if matches!(error.kind(), ErrorKind::Internal | ErrorKind::DataLoss) {
        tracing::error!(?error, "a device's request failed");
    }
    let status = status(error);
    let problem = Problem {
        r#type: format!("urn:weir:problem:{}", error.reason().to_ascii_lowercase().replace('_', "-")),
        title: error.reason(),
        status: status.as_u16(),
        detail: error.message(),
        field: error.field(),
        limit: error.limit(),
    };
    let mut response = Response::new(Body::from(serde_json::to_vec(&problem).unwrap_or_default()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"weir\""));
    }
    if let Some(after) = error.retry_after() {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bound_is_429_and_says_when_to_come_back() {
        let error = Error::new(ErrorKind::ResourceExhausted, "INTAKE_FULL", "full at 8")
            .with_limit(8)
            .with_retry_after(Duration::from_millis(1_200));
        let response = response(&error);
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
}
