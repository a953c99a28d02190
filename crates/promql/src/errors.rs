//! The errors of a query: the kinds that the HTTP API of Prometheus tells apart.

use weir_core::{Error, ErrorKind};

/// The query cannot be read: `bad_data`.
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::invalid("query", "QUERY_INVALID", message)
}

/// The query is one that Prometheus answers and this crate does not: `bad_data`, too.
pub(crate) fn unsupported(what: impl std::fmt::Display) -> Error {
    Error::invalid("query", "QUERY_NOT_SUPPORTED", format!("{what} is not supported by Weir"))
}

/// The query can be read and, on these series, has no answer: `execution`.
pub(crate) fn execution(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::FailedPrecondition, "QUERY_FAILED", message)
}

/// A query that needs more than it may have.
pub(crate) fn too_much(message: impl Into<String>, limit: usize) -> Error {
    Error::new(ErrorKind::FailedPrecondition, "QUERY_TOO_LARGE", message).with_limit(limit)
}

/// Two series would become one.
pub(crate) fn same_labels() -> Error {
    execution("vector cannot contain metrics with the same labelset")
}
