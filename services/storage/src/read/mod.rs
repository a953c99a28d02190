//! The read path of one series: which buckets there are ([`days`]), the rows of all of them in one order ([`rows`]), and
//! one value for each (metric, ts) ([`instants`]).
//!
//! Buckets of several widths overlap in time, because a writer opens finer ones when a bucket is full. All widths divide a
//! UTC day, so no bucket crosses midnight, and within a day at most one bucket of each width holds an instant: a merge of
//! at most five cursors, each holding one page.

mod cursor;
mod days;
mod instants;
mod rows;

#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

pub(crate) use instants::Instants;
use prometheus::IntCounter;
pub(crate) use rows::Rows;
use weir_core::{
    Timestamp,
    port::{ScanOrder, SeriesKey, TelemetryStore},
};

use crate::metrics::Metrics;

/// Which rows of which series, in which order.
#[derive(Clone)]
pub(crate) struct Range {
    pub(crate) series: SeriesKey,
    /// Event times from this.
    pub(crate) from: Timestamp,
    /// Event times before this.
    pub(crate) to: Timestamp,
    pub(crate) order: ScanOrder,
}

/// The store, and what was read from it.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) store: Arc<dyn TelemetryStore>,
    pub(crate) read: Arc<ReadStats>,
}

impl Reader {
    pub(crate) fn new(store: Arc<dyn TelemetryStore>) -> Self {
        Self { store, read: Arc::default() }
    }

    /// Counts what is read in `metrics` too.
    pub(crate) fn metered(store: Arc<dyn TelemetryStore>, metrics: &Metrics) -> Self {
        let totals = Some((metrics.rows_read.clone(), metrics.bytes_read.clone()));
        Self { store, read: Arc::new(ReadStats { totals, ..ReadStats::default() }) }
    }
}

/// What one call has read.
#[derive(Debug, Default)]
pub(crate) struct ReadStats {
    rows: AtomicU64,
    bytes: AtomicU64,
    totals: Option<(IntCounter, IntCounter)>,
}

impl ReadStats {
    fn add(&self, rows: usize, bytes: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some((total_rows, total_bytes)) = &self.totals {
            total_rows.inc_by(rows as u64);
            total_bytes.inc_by(bytes as u64);
        }
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
