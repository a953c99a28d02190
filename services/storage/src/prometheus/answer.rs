//! Answers, as the HTTP API of Prometheus has them.

use std::convert::Infallible;

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use futures::stream;
use serde::Serialize;
use weir_core::{Error, ErrorKind, Result};
use weir_promql::Outcome;

/// `{"status":"success","data":…}`
pub(super) fn success<T: Serialize>(data: &T) -> Result<Response<Body>> {
    let data = weir_core::json::to_bytes(data)?;
    let mut text = br#"{"status":"success","data":"#.to_vec();
    text.extend_from_slice(&data);
    text.push(b'}');
    Ok(json(StatusCode::OK, Body::from(text)))
}

/// The result of a query, series by series.
pub(super) fn outcome(outcome: Outcome) -> Response<Body> {
    let begin = std::iter::once(r#"{"status":"success","data":"#.to_owned());
    let pieces = begin.chain(outcome.into_json()).chain(std::iter::once("}".to_owned()));
    json(StatusCode::OK, Body::from_stream(stream::iter(pieces.map(Ok::<_, Infallible>))))
}

/// A part of the API that is not here.
pub(super) fn unsupported(path: &str) -> Error {
    Error::new(ErrorKind::NotFound, "NOT_FOUND", format!("{path} is not supported by Weir"))
}

#[derive(Serialize)]
struct Refusal<'a> {
    status: &'static str,
    #[serde(rename = "errorType")]
    kind: &'static str,
    error: &'a str,
}

/// An error as Prometheus writes it: `{"status":"error","errorType":"bad_data","error":"…"}`.
pub fn refuse(error: &Error) -> Response<Body> {
    let (status, kind) = status(error.kind());
    if matches!(error.kind(), ErrorKind::Internal | ErrorKind::DataLoss) {
        tracing::error!(error = ?error, "a request of the prometheus api failed");
    }
    let refusal = Refusal { status: "error", kind, error: error.message() };
    let text = serde_json::to_vec(&refusal).unwrap_or_default();
    let mut answer = json(status, Body::from(text));
    if status == StatusCode::UNAUTHORIZED {
        let ways = HeaderValue::from_static("Bearer, Basic realm=\"Weir\"");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, ways);
    }
    if let Some(after) = error.retry_after() {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    answer
}

/// Status and type of an error. The types are those of Prometheus, but for what it does not know: callers.
fn status(kind: ErrorKind) -> (StatusCode, &'static str) {
    match kind {
        ErrorKind::InvalidArgument => (StatusCode::BAD_REQUEST, "bad_data"),
        ErrorKind::NotFound | ErrorKind::AlreadyExists => (StatusCode::NOT_FOUND, "not_found"),
        ErrorKind::FailedPrecondition | ErrorKind::Unimplemented => {
            (StatusCode::UNPROCESSABLE_ENTITY, "execution")
        }
        ErrorKind::PermissionDenied => (StatusCode::FORBIDDEN, "forbidden"),
        ErrorKind::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthorized"),
        ErrorKind::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "too_many_requests"),
        ErrorKind::DeadlineExceeded => (StatusCode::SERVICE_UNAVAILABLE, "timeout"),
        ErrorKind::Cancelled => (StatusCode::SERVICE_UNAVAILABLE, "canceled"),
        ErrorKind::Aborted | ErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        ErrorKind::DataLoss | ErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

fn json(status: StatusCode, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
