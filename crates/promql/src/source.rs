//! Where series come from, and how much of them a query may hold.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use weir_core::Result;

use crate::{errors::too_much, labels::Labels, matcher::Matcher};

/// What a series weighs beside its samples, in samples: its labels take about as much memory.
const SERIES_WEIGHT: usize = 8;

/// One value at one instant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Milliseconds since the Unix epoch.
    pub t: i64,
    /// The value.
    pub v: f64,
}

/// The samples of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its labels, with `__name__`.
    pub labels: Labels,
    /// In the order of time, no time twice.
    pub samples: Vec<Sample>,
}

/// What a selector asks of a source.
#[derive(Debug, Clone)]
pub struct Selection {
    /// What every series must meet.
    pub matchers: Vec<Matcher>,
    /// Samples from this instant, in milliseconds since the Unix epoch.
    pub start: i64,
    /// Samples to this instant, itself included.
    pub end: i64,
}

/// Stored series.
#[async_trait]
pub trait Source: Send + Sync {
    /// The series that have samples in the selection, in any order. An implementation takes each series and its samples
    /// from `budget` before it reads on.
    ///
    /// # Errors
    /// What [`Budget::take`] says; those of the store.
    async fn select(&self, selection: &Selection, budget: &Budget) -> Result<Vec<Series>>;
}

/// How many samples a query may hold at once, read ones and those of intermediate results: 16 bytes each.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    held: AtomicUsize,
}

impl Budget {
    /// At most `limit` samples.
    pub fn new(limit: usize) -> Self {
        Self { limit, held: AtomicUsize::new(0) }
    }

    /// Takes `samples` of `series` more series for as long as the query lasts.
    ///
    /// # Errors
    /// `QUERY_TOO_LARGE` that names the limit.
    pub fn take(&self, series: usize, samples: usize) -> Result<()> {
        let more = series.saturating_mul(SERIES_WEIGHT).saturating_add(samples);
        let held = self.held.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        if held <= self.limit {
            return Ok(());
        }
        self.held.fetch_sub(more, Ordering::Relaxed);
        let message = format!(
            "query processing would load too many samples into memory in query execution: the limit is {} samples",
            self.limit
        );
        Err(too_much(message, self.limit))
    }

    /// What is held now, in samples.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// A part of the budget that comes back when it is dropped.
    pub(crate) fn part(&self) -> Part<'_> {
        Part { budget: self, taken: 0 }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }
}

/// What an intermediate result holds.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    budget: &'a Budget,
    taken: usize,
}

impl Part<'_> {
    /// Takes `samples` more.
    pub(crate) fn grow(&mut self, samples: usize) -> Result<()> {
        self.budget.take(0, samples)?;
        self.taken += samples;
        Ok(())
    }

    /// Holds what another part held.
    pub(crate) fn join(&mut self, mut other: Self) {
        self.taken += std::mem::take(&mut other.taken);
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.taken, Ordering::Relaxed);
    }
}
