//! The one error type that crosses a port: a closed kind, a stable reason, and what the caller can do.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

/// What went wrong, as a closed set. Each protocol maps it exhaustively, once: gRPC status in `weir-grpc`, HTTP status
/// and MQTT reason code in `weir-ingest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The caller's input is wrong whatever the state of the system; a retry of the same input cannot help.
    InvalidArgument,
    /// The named thing does not exist.
    NotFound,
    /// A thing of that name exists already.
    AlreadyExists,
    /// The system is not in the state that the call needs (an etag that does not match, a part that is not built yet).
    FailedPrecondition,
    /// The caller is known and may not do this.
    PermissionDenied,
    /// The caller is not known: no credential, or a wrong one.
    Unauthenticated,
    /// A bound was reached; a retry after [`Error::retry_after`] can help where it is given.
    ResourceExhausted,
    /// A compare-and-set lost its race, or an owner was fenced; re-read and try again.
    Aborted,
    /// A dependency is away or full for now; a retry helps.
    Unavailable,
    /// The caller's deadline passed; whether the work was done is not known.
    DeadlineExceeded,
    /// The caller went away.
    Cancelled,
    /// Not built in this release.
    Unimplemented,
    /// Stored data is damaged: a person must look.
    DataLoss,
    /// A defect of Weir.
    Internal,
}

impl ErrorKind {
    /// Whether the same call may succeed later without any change by the caller.
    pub fn retryable(self) -> bool {
        matches!(self, Self::ResourceExhausted | Self::Aborted | Self::Unavailable | Self::DeadlineExceeded)
    }
}

/// A failure with everything that a caller needs to act on it.
///
/// `message` is lowercase without a final period, names the object and, where a limit was passed, contains the limit's
/// number.
#[derive(Clone)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    reason: Cow<'static, str>,
    message: String,
    field: Option<String>,
    limit: Option<String>,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// The result of every port.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` with a stable upper-case `reason` (`TIMESTAMP_OUT_OF_RANGE`) and a message for people.
    pub fn new(kind: ErrorKind, reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            inner: Box::new(Inner {
                kind,
                reason: reason.into(),
                message: message.into(),
                field: None,
                limit: None,
                retry_after: None,
                source: None,
            }),
        }
    }

    /// Wrong input: `field` is the path of the part that is wrong (`[3].values.temp`, `device.labels.type`).
    pub fn invalid(
        field: impl Into<String>,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self::new(ErrorKind::InvalidArgument, reason, message).with_field(field)
    }

    /// `what` (a full resource name) does not exist.
    pub fn not_found(what: impl fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound, "NOT_FOUND", format!("{what} does not exist"))
    }

    /// `what` (a full resource name) exists already.
    pub fn already_exists(what: impl fmt::Display) -> Self {
        Self::new(ErrorKind::AlreadyExists, "ALREADY_EXISTS", format!("{what} exists already"))
    }

    /// The caller may not do this. Says nothing about whether the thing exists.
    pub fn permission_denied(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::PermissionDenied, "PERMISSION_DENIED", message)
    }

    /// The caller showed no credential or a wrong one.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unauthenticated, "UNAUTHENTICATED", message)
    }

    /// A dependency is away for now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, "UNAVAILABLE", message)
    }

    /// A compare-and-set lost its race.
    pub fn aborted(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Aborted, "CONFLICT", message)
    }

    /// A defect of Weir, or an engine error that no one foresaw.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, "INTERNAL", message)
    }

    /// Stored data is damaged.
    pub fn data_loss(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::DataLoss, "DATA_LOSS", message)
    }

    /// Names a part of the contract that this release does not have, so that nobody takes silence for success.
    pub fn not_built(field: impl Into<String>, what: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Unimplemented, "NOT_BUILT", format!("{what} is not built in this release"))
            .with_field(field)
    }

    /// Names the path of the part of the input that is wrong.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.inner.field = Some(field.into());
        self
    }

    /// Puts `prefix` before the field's path, for a caller that knows the outer part of it.
    #[must_use]
    pub fn within(mut self, prefix: &str) -> Self {
        self.inner.field = Some(match self.inner.field.take() {
            None => prefix.to_owned(),
            Some(field) if field.starts_with('[') => format!("{prefix}{field}"),
            Some(field) => format!("{prefix}.{field}"),
        });
        self
    }

    /// Names the limit that was passed, as its number with a unit where it has one.
    #[must_use]
    pub fn with_limit(mut self, limit: impl fmt::Display) -> Self {
        self.inner.limit = Some(limit.to_string());
        self
    }

    /// Tells when a retry makes sense.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.inner.retry_after = Some(after);
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.inner.source = Some(Arc::new(source));
        self
    }

    /// Puts `what: ` before the message.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.inner.message = format!("{what}: {}", self.inner.message);
        self
    }

    /// The kind, which decides the status code on every wire.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }
    /// The stable upper-case reason that a program may match on.
    pub fn reason(&self) -> &str {
        &self.inner.reason
    }
    /// The text for people.
    pub fn message(&self) -> &str {
        &self.inner.message
    }
    /// The path of the wrong part of the input.
    pub fn field(&self) -> Option<&str> {
        self.inner.field.as_deref()
    }
    /// The limit that was passed.
    pub fn limit(&self) -> Option<&str> {
        self.inner.limit.as_deref()
    }
    /// When a retry makes sense.
    pub fn retry_after(&self) -> Option<Duration> {
        self.inner.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("reason", &self.inner.reason)
            .field("message", &self.inner.message)
            .field("field", &self.inner.field)
            .field("source", &self.inner.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_ref().map(|source| source.as_ref() as _)
    }
}
