//! What the driver's errors mean to a caller, and which of them pass.

use std::time::Duration;

use scylla::errors::{DbError, ExecutionError, NewSessionError, PrepareError, RequestAttemptError};
use weir_core::Error;

/// A caller that tries again sooner finds the same node down: it is how long a connection takes to come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What became of a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is wrong and was refused: the same again is refused again.
    Refused,
    /// The server said that it gave up: nothing of it goes on there, but parts may have been written.
    GivenUp,
    /// Nobody told: it may be under way still.
    Untold,
}

/// What became of a request that failed with this.
pub(crate) fn fate(error: &ExecutionError) -> Fate {
    match error {
        ExecutionError::EmptyPlan | ExecutionError::ConnectionPoolError(_) => Fate::GivenUp, // never sent
        ExecutionError::PrepareError(source) => prepare_fate(source),
        ExecutionError::LastAttemptError(attempt) => attempt_fate(attempt),
        ExecutionError::RequestTimeout(_) => Fate::Untold,
        ExecutionError::MetadataError(_) | ExecutionError::SchemaAgreementError(_) => Fate::GivenUp,
        _ => Fate::Refused,
    }
}

fn attempt_fate(attempt: &RequestAttemptError) -> Fate {
    match attempt {
        RequestAttemptError::DbError(refusal, _) => match refusal {
            DbError::Unavailable { .. }
            | DbError::Overloaded
            | DbError::IsBootstrapping
            | DbError::TruncateError
            | DbError::ReadTimeout { .. }
            | DbError::WriteTimeout { .. }
            | DbError::ReadFailure { .. }
            | DbError::WriteFailure { .. }
            | DbError::ServerError
            | DbError::RateLimitReached { .. } => Fate::GivenUp,
            // 0x1700 of the protocol: contention between conditional writes, outcome unknown (CAS_WRITE_UNKNOWN).
            DbError::Other(0x1700) => Fate::GivenUp,
            _ => Fate::Refused,
        },
        RequestAttemptError::UnableToAllocStreamId => Fate::GivenUp,
        RequestAttemptError::BrokenConnectionError(_) => Fate::Untold,
        _ => Fate::Refused,
    }
}

fn prepare_fate(error: &PrepareError) -> Fate {
    match error {
        PrepareError::ConnectionPoolError(_) => Fate::GivenUp,
        PrepareError::AllAttemptsFailed { first_attempt } => attempt_fate(first_attempt),
        _ => Fate::Refused,
    }
}

/// As an error of a port: `what` was being done.
pub(crate) fn of_request(what: &str, source: ExecutionError) -> Error {
    match fate(&source) {
        Fate::Refused => {
            Error::internal(format!("the CQL server refuses to {what}: {source}")).with_source(source)
        }
        Fate::GivenUp | Fate::Untold => away(format!("cannot {what}: {source}")).with_source(source),
    }
}

/// No session could be made.
pub(crate) fn of_connect(hosts: &[String], source: NewSessionError) -> Error {
    let hosts = hosts.join(", ");
    let text = format!("cannot connect to the CQL servers at {hosts}: {source}");
    match source {
        NewSessionError::IllegalConfig(_) | NewSessionError::EmptyKnownNodesList => {
            Error::invalid("cql", "CONFIG_INVALID", text)
        }
        _ => Error::unavailable(text).with_retry_after(RETRY_AFTER).with_source(source),
    }
}

/// An answer that is not what its statement gives.
pub(crate) fn unexpected(what: &str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::internal(format!("cannot read what the CQL server answered to: {what}: {source}"))
        .with_source(source)
}

/// The store is away.
pub(crate) fn away(text: impl Into<String>) -> Error {
    Error::unavailable(text).with_retry_after(RETRY_AFTER)
}
