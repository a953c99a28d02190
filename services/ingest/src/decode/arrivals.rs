//! Arrival times that rise strictly for each device, within one replica.

use std::collections::HashMap;

use parking_lot::Mutex;
use weir_core::{Timestamp, Uid};

/// Enough for every device that may be connected, at about 50 bytes each: 3 MiB.
const DEVICES_MAX: usize = 65_536;

/// The last stamp of each device that was stamped lately.
#[derive(Default)]
pub(super) struct Arrivals {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: HashMap<Uid, i64>,
    /// Not below the last stamp of any device that is not in the map.
    floor: i64,
}

impl Arrivals {
    /// `count` rising times for a device: from now on, but after all it was given before, whatever the wall clock does.
    ///
    /// At the bound all devices are forgotten, and what the newest of them was given becomes the floor for all: still
    /// strictly rising, at most as far ahead of the clock as the fastest of them was.
    pub(super) fn stamp(
        &self,
        uid: Uid,
        now: Timestamp,
        count: usize,
    ) -> impl Iterator<Item = Timestamp> + use<> {
        let first = if count == 0 { 0 } else { self.state.lock().take(uid, now.as_micros(), count) };
        (0..count).map(move |n| Timestamp::from_micros(first.saturating_add(n as i64)))
    }
}

impl State {
    fn take(&mut self, uid: Uid, now: i64, count: usize) -> i64 {
        let before = self.last.get(&uid).copied().unwrap_or(self.floor);
        let first = now.max(before.saturating_add(1));
        if self.last.len() >= DEVICES_MAX && !self.last.contains_key(&uid) {
            self.floor = self.last.values().copied().fold(self.floor, i64::max);
            self.last.clear();
        }
        let first =
            if self.last.contains_key(&uid) { first } else { first.max(self.floor.saturating_add(1)) };
        self.last.insert(uid, first.saturating_add(count as i64 - 1));
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(arrivals: &Arrivals, uid: u128, now: i64, count: usize) -> Vec<i64> {
        arrivals
            .stamp(Uid::from_u128(uid), Timestamp::from_micros(now), count)
            .map(Timestamp::as_micros)
            .collect()
    }

    #[test]
    fn stamps_of_a_device_rise_even_where_the_clock_steps_back() {
        let arrivals = Arrivals::default();
        assert_eq!(stamp(&arrivals, 1, 100, 3), [100, 101, 102]);
        assert_eq!(stamp(&arrivals, 1, 50, 2), [103, 104]);
        assert_eq!(stamp(&arrivals, 2, 50, 1), [50]);
        assert_eq!(stamp(&arrivals, 1, 200, 1), [200]);
    }

    #[test]
    fn stamps_still_rise_for_a_device_that_was_forgotten_at_the_bound() {
        let arrivals = Arrivals::default();
        assert_eq!(stamp(&arrivals, 0, 1_000, 1), [1_000]);
        for uid in 1..=DEVICES_MAX as u128 {
            stamp(&arrivals, uid, 10, 1);
        }
        assert!(arrivals.state.lock().last.len() <= DEVICES_MAX);
        assert!(stamp(&arrivals, 0, 10, 1)[0] > 1_000);
    }
}
