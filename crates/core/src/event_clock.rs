//! A device's clock in event time, and what "late" means. Storage and rules share this one definition.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Metrics with a value at one ts that are told apart; past it every value at that ts is late. Far above what a device has
/// (256 in a reading), and it bounds the memory of one that makes up names.
pub const METRICS_MAX: usize = 4_096;

/// The highest event time of a device in log order, and the metrics that have a value at it.
///
/// A value is late if its ts is below the clock over lower positions, or equals it while that metric already has a value
/// at that ts: so several messages with one ts and different metrics are all on time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EventClock {
    now: Option<Timestamp>,
    seen: BTreeSet<Arc<str>>,
}

impl EventClock {
    /// The highest event time so far; none before the first reading.
    pub fn now(&self) -> Option<Timestamp> {
        self.now
    }

    /// Takes in the next reading in log order and calls `late(i, is_late)` for each of its metrics in order.
    pub fn observe<'a>(
        &mut self,
        ts: Timestamp,
        metrics: impl IntoIterator<Item = &'a Arc<str>>,
        mut late: impl FnMut(usize, bool),
    ) {
        let behind = self.now.is_some_and(|now| ts < now);
        if self.now.is_none_or(|now| ts > now) {
            self.now = Some(ts);
            self.seen.clear();
        }
        for (index, metric) in metrics.into_iter().enumerate() {
            let is_late = behind || self.seen.len() >= METRICS_MAX || !self.seen.insert(Arc::clone(metric));
            late(index, is_late);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late(clock: &mut EventClock, ts: i64, metrics: &[&str]) -> Vec<bool> {
        let metrics: Vec<Arc<str>> = metrics.iter().map(|m| Arc::from(*m)).collect();
        let mut out = vec![];
        clock.observe(Timestamp::from_micros(ts), &metrics, |_, is_late| out.push(is_late));
        out
    }

    #[test]
    fn a_device_that_makes_up_names_has_a_bound() {
        let mut clock = EventClock::default();
        for number in 0..METRICS_MAX {
            assert_eq!(late(&mut clock, 10, &[&format!("m{number}")]), [false]);
        }
        assert_eq!(late(&mut clock, 10, &["one more", "m0"]), [true, true]);
        assert_eq!(late(&mut clock, 11, &["one more"]), [false]);
    }

    #[test]
    fn late_is_below_the_clock_or_a_second_value_at_it() {
        let mut clock = EventClock::default();
        assert_eq!(late(&mut clock, 10, &["a", "b"]), [false, false]);
        assert_eq!(late(&mut clock, 10, &["b", "c"]), [true, false]);
        assert_eq!(late(&mut clock, 9, &["d"]), [true]);
        assert_eq!(late(&mut clock, 11, &["a"]), [false]);
        assert_eq!(clock.now(), Some(Timestamp::from_micros(11)));
    }
}
