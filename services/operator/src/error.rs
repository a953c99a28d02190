//! What the API server says, as an error of Weir.

use weir_core::{Error, ErrorKind};

/// An error of the API server, about `what`.
pub(crate) fn of_kube(what: &str, error: kube::Error) -> Error {
    let (kind, reason, said) = match &error {
        kube::Error::Api(status) => {
            let (kind, reason) = match status.code {
                404 => (ErrorKind::NotFound, "NOT_FOUND"),
                403 => (ErrorKind::PermissionDenied, "PERMISSION_DENIED"),
                409 => (ErrorKind::Aborted, "CONFLICT"),
                400 | 422 => (ErrorKind::InvalidArgument, "REFUSED"),
                429 | 502 | 503 | 504 => (ErrorKind::Unavailable, "API_SERVER"),
                // Also what cannot be converted to the kind: a quantity that is none.
                _ => (ErrorKind::Internal, "API_SERVER"),
            };
            (kind, reason, status.message.clone())
        }
        other => (ErrorKind::Unavailable, "API_SERVER", other.to_string()),
    };
    Error::new(kind, reason, format!("{what}: {said}")).with_source(error)
}
