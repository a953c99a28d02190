//! What can go wrong with the bus, as errors of the ports.

use std::time::Duration;

use async_nats::RequestErrorKind;
use serde::Deserialize;
use weir_core::{Error, ErrorKind, Partition, Stream};

/// A trim comes later than this, an election sooner.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// JetStream's error codes that mean something here (`server/errors.json` of nats-server).
pub(crate) mod code {
    /// Another publish of the same id has not been answered yet.
    pub(crate) const DUPLICATE_IN_PROCESS: u64 = 10158;
    /// There is no such stream.
    pub(crate) const STREAM_NOT_FOUND: u64 = 10059;
    /// There is no such message.
    pub(crate) const NO_MESSAGE: u64 = 10037;
    /// A stream of that name has other settings.
    pub(crate) const STREAM_NAME_EXISTS: u64 = 10058;
    /// Another stream has subjects in common.
    pub(crate) const SUBJECTS_OVERLAP: u64 = 10065;
    /// The store refused: full, or the disk failed.
    pub(crate) const STORE_FAILED: u64 = 10077;
    /// The server has no room.
    pub(crate) const INSUFFICIENT_RESOURCES: u64 = 10023;
    /// The account has no room.
    pub(crate) const STORAGE_EXCEEDED: u64 = 10047;
    /// The account has no room.
    pub(crate) const ACCOUNT_EXCEEDED: u64 = 10002;
    /// The message is over the stream's `max_msg_size`.
    pub(crate) const MESSAGE_TOO_LARGE: u64 = 10054;
    /// JetStream is not enabled on the server.
    pub(crate) const NOT_ENABLED: u64 = 10076;
    /// JetStream is not enabled for the account.
    pub(crate) const NOT_ENABLED_FOR_ACCOUNT: u64 = 10039;
}

/// A refusal of JetStream.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Refusal {
    #[serde(default, rename = "err_code")]
    pub(crate) code: u64,
    #[serde(default)]
    pub(crate) description: String,
}

/// Why a call to JetStream gave nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody answered in time.
    Away(Error),
    /// It answered with a refusal to `what`.
    Refused { what: String, refusal: Refusal },
}

impl Failure {
    /// The refusal's code; 0 where there was no answer.
    pub(crate) fn code(&self) -> u64 {
        match self {
            Self::Away(_) => 0,
            Self::Refused { refusal, .. } => refusal.code,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Away(error) => error,
            Failure::Refused { what, refusal: Refusal { code, description } } => match code {
                code::NOT_ENABLED | code::NOT_ENABLED_FOR_ACCOUNT => Error::new(
                    ErrorKind::FailedPrecondition,
                    "BUS_WITHOUT_JETSTREAM",
                    format!(
                        "cannot {what}: {description}; enable jetstream in the server's configuration and for \
                         the account"
                    ),
                ),
                _ => Error::unavailable(format!("cannot {what}: the bus says: {description} ({code})"))
                    .with_retry_after(RETRY_AFTER),
            },
        }
    }
}

/// Nobody answered a request.
pub(crate) fn unanswered(what: &str, kind: RequestErrorKind) -> Error {
    let why = match kind {
        RequestErrorKind::NoResponders => "nobody serves it now (no stream, no leader, or no jetstream)",
        RequestErrorKind::TimedOut => "no answer in time",
        RequestErrorKind::InvalidSubject => "its subject is invalid",
        RequestErrorKind::MaxPayloadExceeded => "it is over the bus's limit",
        RequestErrorKind::Other => "the connection is lost",
    };
    away(what, why)
}

pub(crate) fn away(what: &str, why: &str) -> Error {
    Error::unavailable(format!("cannot {what}: {why}")).with_retry_after(RETRY_AFTER)
}

pub(crate) fn full(stream: Stream, bytes_max: u64, description: &str) -> Error {
    let text = format!(
        "log of stream {stream} is full: the bus says: {description}; its limit is {bytes_max} bytes (log.max_bytes)"
    );
    Error::new(ErrorKind::ResourceExhausted, "LOG_FULL", text)
        .with_limit(bytes_max)
        .with_retry_after(RETRY_AFTER)
}

pub(crate) fn too_large(stream: Stream, len: usize, max: usize) -> Error {
    let text = format!("record of {len} bytes for stream {stream} is over the bus's limit of {max} bytes");
    Error::new(ErrorKind::ResourceExhausted, "RECORD_TOO_LARGE", text).with_limit(max)
}

pub(crate) fn trimmed(stream: Stream, partition: Partition, from: u64, first: u64) -> Error {
    let text = format!(
        "stream {stream}, partition {partition}: records from sequence {from} were trimmed before they were read; the \
         first one left in the stream is {first}"
    );
    Error::new(ErrorKind::DataLoss, "TRIMMED_PAST", text)
}

pub(crate) fn fell_back(stream: Stream, partition: Partition, how: &str) -> Error {
    let text = format!("stream {stream}, partition {partition}: the log is not the one that was read: {how}");
    Error::new(ErrorKind::Aborted, "LOG_FELL_BACK", text)
}
