//! One device's part of the ledger.

use std::sync::{Mutex, PoisonError};

use weir_core::{Timestamp, Value};

use super::{Counts, Entry, Source};
use crate::Reading;

/// Readings of one device at most: 16 MB of the ledger, and at ten a second six days.
const READINGS_MAX: usize = 8_000_000;
/// How long before the device's first reading its marker stands.
const MARKER_BEFORE: std::time::Duration = std::time::Duration::from_secs(1);

/// What one device has sent.
#[derive(Debug)]
pub struct Account {
    source: Source,
    device: String,
    epoch: Timestamp,
    entries: Mutex<Vec<Entry>>,
}

impl Account {
    /// The empty account of a device that sends from `epoch` on.
    pub(super) fn new(source: Source, device: String, epoch: Timestamp) -> Self {
        Self { source, device, epoch, entries: Mutex::default() }
    }

    /// Whose readings.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The device's id.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Event time of sequence 0.
    pub fn epoch(&self) -> Timestamp {
        self.epoch
    }

    /// Whether another reading fits.
    pub fn has_room(&self, sequence: u32) -> bool {
        (sequence as usize) < READINGS_MAX
    }

    /// Notes that versions of consecutive readings are about to be sent, and gives them.
    pub fn attempt(&self, first: u32, count: u32, version: u8) -> Vec<Reading> {
        self.each(first, count, |entry| entry.attempt(version));
        (first..first.saturating_add(count))
            .map(|sequence| self.source.reading(self.epoch, sequence, version))
            .collect()
    }

    /// Notes that a reading is durable.
    pub fn ack(&self, sequence: u32, version: u8) {
        self.each(sequence, 1, |entry| entry.ack(version));
    }

    /// Notes that a reading was refused for good.
    pub fn refuse(&self, sequence: u32) {
        self.each(sequence, 1, Entry::refuse);
    }

    /// Notes that nobody said what became of readings.
    pub fn lose_answer(&self, first: u32, count: u32) {
        self.each(first, count, Entry::lose_answer);
    }

    /// What is known of one reading.
    pub fn entry(&self, sequence: u32) -> Entry {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(sequence as usize).copied().unwrap_or_default()
    }

    /// All entries as they are now, by sequence.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its versions, counted.
    pub fn counts(&self) -> Counts {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().map(|entry| entry.counts()).fold(Counts::default(), Counts::plus)
    }

    /// A reading outside of the ledger whose position tells when everything before it can be queried. It may be there or not.
    pub fn marker(&self) -> Reading {
        let ts = self.epoch.saturating_sub(MARKER_BEFORE);
        Reading { ts: Some(ts), values: vec![("end".to_owned(), Value::Bool(true))] }
    }

    fn each(&self, first: u32, count: u32, change: impl Fn(&mut Entry)) {
        let (first, end) = (first as usize, (first as usize).saturating_add(count as usize));
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() < end.min(READINGS_MAX) {
            entries.resize(end.min(READINGS_MAX), Entry::default());
        }
        entries.get_mut(first..end).into_iter().flatten().for_each(change);
    }
}
