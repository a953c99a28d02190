//! The telemetry store: immutable rows by position, the newest value of each metric, and which buckets exist.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Position, Result, TenantId, Timestamp, Uid};

/// Whose rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesKey {
    /// The tenant.
    pub tenant: TenantId,
    /// The device's internal uid.
    pub uid: Uid,
}

/// How much event time a bucket spans. A writer that has put 4 MiB into one opens the next finer width, so that a store
/// partition is bounded whatever a device's rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Width {
    /// 1 d.
    Day = 0,
    /// 1 h.
    Hour = 1,
    /// 5 min.
    FiveMinutes = 2,
    /// 10 s.
    TenSeconds = 3,
    /// 1 s.
    Second = 4,
}

impl Width {
    /// From the widest to the finest.
    pub const ALL: [Self; 5] = [Self::Day, Self::Hour, Self::FiveMinutes, Self::TenSeconds, Self::Second];

    /// In microseconds.
    pub const fn micros(self) -> i64 {
        match self {
            Self::Day => 86_400_000_000,
            Self::Hour => 3_600_000_000,
            Self::FiveMinutes => 300_000_000,
            Self::TenSeconds => 10_000_000,
            Self::Second => 1_000_000,
        }
    }

    /// The next finer width; none below a second.
    pub const fn finer(self) -> Option<Self> {
        match self {
            Self::Day => Some(Self::Hour),
            Self::Hour => Some(Self::FiveMinutes),
            Self::FiveMinutes => Some(Self::TenSeconds),
            Self::TenSeconds => Some(Self::Second),
            Self::Second => None,
        }
    }

    /// From its number on the wire.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|width| *width as u8 == number)
    }
}

/// One bucket of a series: the event times from `start` for one `width`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketId {
    /// A multiple of the width since the epoch.
    pub start: Timestamp,
    /// Its span.
    pub width: Width,
}

impl BucketId {
    /// The bucket of that width that holds `ts`.
    pub fn containing(ts: Timestamp, width: Width) -> Self {
        let start = ts.as_micros().div_euclid(width.micros()).saturating_mul(width.micros());
        Self { start: Timestamp::from_micros(start), width }
    }

    /// The first instant after it.
    pub fn end(self) -> Timestamp {
        Timestamp::from_micros(self.start.as_micros().saturating_add(self.width.micros()))
    }
}

/// One immutable row: a reading. Written twice, it is the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Whose.
    pub series: SeriesKey,
    /// In which bucket.
    pub bucket: BucketId,
    /// Event time.
    pub ts: Timestamp,
    /// Where it stands in the log.
    pub position: Position,
    /// The encoded reading, opaque to the engine.
    pub body: Bytes,
}

/// The newest value of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatestCell {
    /// Whose.
    pub series: SeriesKey,
    /// Which metric.
    pub metric: Arc<str>,
    /// Its event time; a cell is replaced only by one with a greater (ts, position).
    pub ts: Timestamp,
    /// Where it stands in the log.
    pub position: Position,
    /// The encoded value, opaque to the engine.
    pub body: Bytes,
}

/// That a bucket exists, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketRow {
    /// Whose.
    pub series: SeriesKey,
    /// Which.
    pub bucket: BucketId,
    /// Bytes of row bodies put into it, as the writer counted them.
    pub bytes: u64,
    /// Which sealed generation a reader takes; 0 while nothing is sealed.
    pub seal_generation: u64,
    /// Rows up to this position are in the sealed generation; `None` while nothing is sealed.
    pub sealed_through: Option<Position>,
}

/// What an owner writes in one go. The engine writes buckets before rows and rows before latest, or all at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TelemetryBatch {
    /// Buckets, new or with more bytes.
    pub buckets: Vec<BucketRow>,
    /// Rows.
    pub rows: Vec<Row>,
    /// Newest values; at most one for each (series, metric).
    pub latest: Vec<LatestCell>,
}

/// The direction of a scan, in event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScanOrder {
    /// Oldest first; at one ts the lowest position first.
    #[default]
    Ascending,
    /// Newest first; at one ts the highest position first.
    Descending,
}

/// Which rows of one bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowScan {
    /// Event times from this.
    pub from: Timestamp,
    /// Event times before this.
    pub to: Timestamp,
    /// Only rows after this one, in the scan's order.
    pub after: Option<(Timestamp, Position)>,
    /// The direction.
    pub order: ScanOrder,
    /// At most this many rows.
    pub limit: usize,
}

/// Rows, newest values and buckets; opened only by the storage service.
#[async_trait]
pub trait TelemetryStore: Send + Sync {
    /// Writes a batch, idempotently. Readers see it when this returns; it survives a crash of the process only after
    /// [`TelemetryStore::sync`].
    ///
    /// # Errors
    /// `Unavailable` or `ResourceExhausted` (a full disk): parts may be written, so write the same batch again.
    async fn write(&self, batch: TelemetryBatch) -> Result<()>;

    /// Returns when everything that [`TelemetryStore::write`] accepted before this call is durable. Only then may
    /// progress move over it. It may take long (an engine that syncs by a period waits for two of them), so writing goes
    /// on meanwhile.
    ///
    /// # Errors
    /// `Unavailable` or `ResourceExhausted`: what was written since the last sync that succeeded may be lost (a node of the
    /// store was restarted), so begin again from the recorded progress.
    async fn sync(&self) -> Result<()>;

    /// How many times so far the engine may have lost what it had accepted and not yet made durable. An owner notes it
    /// before its first write, and begins again from its recorded progress where it differs after a sync: a loss that
    /// another owner's sync came upon has taken from this one too. Never differs where an engine loses nothing that way.
    fn losses(&self) -> u64 {
        0
    }

    /// The rows of one bucket.
    ///
    /// # Errors
    /// `Unavailable`; `DataLoss` where a stored row cannot be read.
    async fn rows(&self, series: &SeriesKey, bucket: BucketId, scan: RowScan) -> Result<Vec<Row>>;

    /// The newest value of each metric of a series.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn latest(&self, series: &SeriesKey) -> Result<Vec<LatestCell>>;

    /// The buckets of a series that overlap [from, to), ordered by (start, width), after `after`, at most `limit`. An
    /// engine may give buckets that end up to a day before `from`; the caller skips them.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn buckets(
        &self,
        series: &SeriesKey,
        from: Timestamp,
        to: Timestamp,
        after: Option<BucketId>,
        limit: usize,
    ) -> Result<Vec<BucketRow>>;
}
