//! What became of everything that was sent.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use weir_core::Error;

/// Different reasons that are kept apart; more are counted together.
const REASONS_MAX: usize = 100;

/// Counts, shared by everybody who sends.
#[derive(Debug, Default)]
pub struct Tally {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    refused: Mutex<Refusals>,
    lost: AtomicU64,
}

/// How many were refused, by what the server said.
pub type Refusals = BTreeMap<String, u64>;

impl Tally {
    /// So many readings were sent for the first time.
    pub fn sent(&self, count: usize) {
        self.sent.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// So many readings are durable.
    pub fn acknowledged(&self, count: usize) {
        self.acknowledged.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// One was refused.
    pub fn refused(&self, why: &Error) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let text = format!("{} ({})", why.message(), why.reason());
        let text = if refused.len() < REASONS_MAX || refused.contains_key(&text) {
            text
        } else {
            "other reasons".to_owned()
        };
        *refused.entry(text).or_default() += 1;
    }

    /// So many were given up without an answer.
    pub fn lost(&self, count: usize) {
        self.lost.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Readings sent, each counted once.
    pub fn sent_count(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Readings that are durable.
    pub fn acknowledged_count(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Readings given up without an answer.
    pub fn lost_count(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Readings refused, by reason.
    pub fn refusals(&self) -> Refusals {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
