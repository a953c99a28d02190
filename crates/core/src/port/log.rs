//! A durable, partitioned log.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Partition, Result, Stream, Timestamp, Uid};

/// The reason of a log that has stopped for good: nothing is accepted until it is opened anew.
pub const LOG_FAILED: &str = "LOG_FAILED";

/// Tells one log from another that was made anew under the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogIdentity(pub Uid);

/// One entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Rises over the whole stream, from 1, without regard to partitions.
    pub sequence: u64,
    /// The id under which it was published.
    pub id: Uid,
    /// When the log stored it.
    pub stored_at: Timestamp,
    /// What was published.
    pub bytes: Bytes,
}

/// What one read gave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// Records of the partition in order; empty if none came within the wait.
    pub records: Vec<Record>,
    /// The last sequence of the *stream* as seen before this read. With `records` empty, nothing of the partition is at
    /// or below it, so a reader may move its progress there: an idle partition never pins the trim.
    pub end: u64,
}

/// What a stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// The lowest sequence that may still be there; `last + 1` where the stream is empty.
    pub first: u64,
    /// The highest sequence ever given out; 0 where nothing was ever published.
    pub last: u64,
    /// Bytes in use.
    pub bytes: u64,
    /// Bytes at which the log refuses; none where only the disk is the limit.
    pub bytes_max: Option<u64>,
}

/// A durable, partitioned log. It holds no reading progress: each reader keeps its own beside what it wrote
/// ([`crate::progress`]).
#[async_trait]
pub trait Log: Send + Sync {
    /// Appends `bytes` to a partition and returns its sequence once it is durable as configured. The same id published
    /// again inside the engine's duplicate window (≥ 10 min of publishing) is stored once and gives the first sequence.
    ///
    /// # Errors
    /// `ResourceExhausted` where the log is full (`LOG_FULL`; nothing is ever forgotten to make room) or the record is over
    /// the engine's limit (`RECORD_TOO_LARGE`, not retryable); `Unavailable` where it is away, after which it is not
    /// known whether the record is there: publish the same id again (not after [`LOG_FAILED`]: it has stopped until it is
    /// opened anew).
    async fn publish(&self, stream: Stream, partition: Partition, id: Uid, bytes: Bytes) -> Result<u64>;

    /// A reader of one partition that starts at the first record with a sequence ≥ `from`.
    ///
    /// # Errors
    /// `Unavailable` where the log is away.
    async fn read_from(&self, stream: Stream, partition: Partition, from: u64) -> Result<Box<dyn LogReader>>;

    /// Forgets every record with a sequence ≤ `through`, in all partitions. Idempotent. An engine may keep more (whole
    /// segments), never less.
    ///
    /// # Errors
    /// `Unavailable` where the log is away.
    async fn trim(&self, stream: Stream, through: u64) -> Result<()>;

    /// The highest sequence stored before `instant`, 0 where there is none: what `log.keep` may trim through.
    ///
    /// # Errors
    /// `Unavailable` where the log is away.
    async fn sequence_before(&self, stream: Stream, instant: Timestamp) -> Result<u64>;

    /// Which log this is.
    ///
    /// # Errors
    /// `Unavailable` where the log is away.
    async fn identity(&self, stream: Stream) -> Result<LogIdentity>;

    /// What the stream holds.
    ///
    /// # Errors
    /// `Unavailable` where the log is away.
    async fn bounds(&self, stream: Stream) -> Result<Bounds>;

    /// What the stream holds, for whoever knows that it held `known`. An engine whose answer may lag (a server that was just
    /// elected, or is cut off, and tells an end that is too low) asks again for a while before it believes a lower end.
    ///
    /// # Errors
    /// `Unavailable` where the log is away.
    async fn bounds_with(&self, stream: Stream, known: u64) -> Result<Bounds> {
        let _ = known; // one that is certain of its end need not ask twice
        self.bounds(stream).await
    }

    /// The ids of the records with these sequences, `None` where a record is trimmed or was never there: how an owner
    /// finds out that a log fell back.
    ///
    /// # Errors
    /// `Unavailable` where the log is away.
    async fn ids(&self, stream: Stream, sequences: &[u64]) -> Result<Vec<Option<Uid>>>;

    /// Whether a publish would be accepted now, for readiness.
    ///
    /// # Errors
    /// What a publish would fail with.
    async fn writable(&self) -> Result<()>;

    /// Whether what it acknowledges is as durable as it was opened for, as far as that can be asked: somebody may have
    /// changed a server's stream, or its replicas may be gone. An engine that writes itself stays what it was opened as.
    ///
    /// # Errors
    /// `FailedPrecondition` that names what is not as it must be; `Unavailable` where the log is away.
    async fn durable(&self) -> Result<()> {
        Ok(())
    }
}

/// Reads one partition in order.
#[async_trait]
pub trait LogReader: Send {
    /// The next records, at most `bytes_max` in all (but at least one record), waiting up to `wait` for the first.
    ///
    /// # Errors
    /// `DataLoss` where the next records were trimmed before they were read (`TRIMMED_PAST`) or are damaged;
    /// `Unavailable` where the log is away.
    async fn next(&mut self, bytes_max: usize, wait: Duration) -> Result<Batch>;
}
