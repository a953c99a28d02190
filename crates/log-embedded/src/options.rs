//! What an operator may choose.

use std::{collections::BTreeMap, fmt, sync::Arc};

use weir_config::Durability;
use weir_core::{Clock, Stream, SystemClock};

/// How a log is kept.
#[derive(Clone)]
pub struct Options {
    /// What an acknowledged record survives.
    pub durability: Durability,
    /// A segment file is closed at this size, in bytes (64 KiB to 1 GiB). What is trimmed is whole segments.
    pub segment_bytes: u64,
    /// A stream refuses (`LOG_FULL`) above this size, in bytes; without it only the disk is the limit. Segments are then
    /// at most a quarter of it, so that a full stream can be trimmed.
    pub bytes_max: Option<u64>,
    /// A publish is refused (`LOG_FULL`) while the file system has fewer free bytes than this, so that what shares the
    /// disk (the stores, whose progress lets the log be trimmed) can still drain the log.
    pub disk_reserve_bytes: u64,
    /// The highest sequence that any reader has durably recorded as dealt with. A stream that was there before and ends
    /// below it has lost acknowledged records: [`crate::EmbeddedLog::open`] refuses. Not checked with
    /// [`Durability::Process`], where a power cut may do that.
    pub progress_floor: BTreeMap<Stream, u64>,
    /// Tells when a record was stored.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            // Scanned in some 30 ms, and a fraction of what an hour at full speed writes.
            segment_bytes: 64 * 1024 * 1024,
            bytes_max: None,
            // A few flushes of the stores.
            disk_reserve_bytes: 16 * 1024 * 1024,
            progress_floor: BTreeMap::new(),
            clock: Arc::new(SystemClock),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("durability", &self.durability)
            .field("segment_bytes", &self.segment_bytes)
            .field("bytes_max", &self.bytes_max)
            .field("disk_reserve_bytes", &self.disk_reserve_bytes)
            .field("progress_floor", &self.progress_floor)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The size at which a segment is closed: a quarter of the limit where that is less, and never above what an offset
    /// in the index can say.
    pub(crate) fn segment_bytes(&self) -> u64 {
        const MIN: u64 = 64 * 1024;
        const MAX: u64 = 1024 * 1024 * 1024;
        let quarter = self.bytes_max.map_or(MAX, |max| max / 4);
        self.segment_bytes.clamp(MIN, MAX).min(quarter)
    }
}
