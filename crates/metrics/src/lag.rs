//! How far a reader of the log is behind, in time.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use weir_core::{Clock, Partition, Result, SystemClock, Timestamp};

use crate::Registrar;

/// How far a service that reads the `readings` stream is, by partition and in time; told only of partitions that are its
/// own. The first is read at the scrape, so that an owner that stands still is seen to fall behind.
#[derive(Clone, Default)]
pub struct Lag(Arc<Mutex<BTreeMap<Partition, Reached>>>);

/// How far the owner of a partition is.
#[derive(Debug, Clone, Copy)]
struct Reached {
    /// It has dealt with everything that the log stored before this instant.
    at: Timestamp,
    /// The newest event time that it has dealt with; none since it began.
    event: Option<Timestamp>,
}

impl Reached {
    /// Of an owner that begins now.
    fn nothing() -> Self {
        Self { at: SystemClock.now(), event: None }
    }
}

impl Lag {
    /// Registers the two of `component`.
    ///
    /// # Errors
    /// As [`Registrar::counter`].
    pub fn new(registrar: &Registrar<'_>, component: &str) -> Result<Self> {
        let this = Self::default();
        let behind = registrar.sampled_by(
            &format!("weir_{component}_lag_seconds"),
            "how long the oldest frame that a partition's owner has not dealt with is in the log",
            "partition",
        )?;
        let event = registrar.sampled_by(
            &format!("weir_{component}_event_time_seconds"),
            "the newest event time that a partition's owner has dealt with, as unix time",
            "partition",
        )?;
        let reached = this.clone();
        behind.by_label(move || {
            let now = SystemClock.now();
            reached.told(|reached| Some(now.since(reached.at).as_secs_f64()))
        });
        let reached = this.clone();
        event.by_label(move || reached.told(|reached| reached.event.map(seconds)));
        Ok(this)
    }

    /// An owner begins: what it has to do is as old as this, unless the one before it here was further behind.
    pub fn begin(&self, partition: Partition) {
        self.0.lock().entry(partition).or_insert_with(Reached::nothing);
    }

    /// Everything that the log stored before `at` is dealt with.
    pub fn reached(&self, partition: Partition, at: Timestamp) {
        self.0.lock().entry(partition).or_insert_with(Reached::nothing).at = at;
    }

    /// Readings were dealt with, the newest of them of this event time.
    pub fn passed(&self, partition: Partition, event: Timestamp) {
        let mut reached = self.0.lock();
        let reached = reached.entry(partition).or_insert_with(Reached::nothing);
        reached.event = reached.event.max(Some(event));
    }

    /// The partition is another's.
    pub fn forget(&self, partition: Partition) {
        self.0.lock().remove(&partition);
    }

    fn told(&self, tell: impl Fn(&Reached) -> Option<f64>) -> Vec<(String, f64)> {
        let reached = self.0.lock();
        reached
            .iter()
            .filter_map(|(partition, reached)| Some((partition.to_string(), tell(reached)?)))
            .collect()
    }
}

/// As unix time in seconds.
fn seconds(at: Timestamp) -> f64 {
    at.as_micros() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;

    #[test]
    fn an_owner_that_stands_still_falls_behind_and_one_that_is_gone_is_not_told() {
        let registry = Registry::new();
        let lag = Lag::new(&Registrar::new(&registry), "storage").unwrap();
        let text = || TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let minute_ago = SystemClock.now().saturating_sub(std::time::Duration::from_secs(60));
        lag.reached(Partition(3), minute_ago);
        lag.passed(Partition(3), Timestamp::from_micros(7_000_000));
        lag.passed(Partition(3), Timestamp::from_micros(5_000_000));
        assert!(text().contains("weir_storage_lag_seconds{partition=\"3\"} 60."), "{}", text());
        assert!(text().contains("weir_storage_event_time_seconds{partition=\"3\"} 7\n"), "{}", text());
        lag.forget(Partition(3));
        assert_eq!(text(), "");
    }
}
