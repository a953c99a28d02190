//! Ids that were published lately, and the sequences they got.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use weir_core::{Timestamp, Uid};

/// How long an id is remembered; the port promises ten minutes.
pub(crate) const WINDOW: Duration = Duration::from_secs(600);

/// Ids remembered at once, in some 10 MiB: ten minutes at 218 records a second, which at a full frame each is 54 MiB/s.
/// Above that rate the oldest are forgotten before their time, and the window is shorter than ten minutes. Publishers
/// in this process resend at once or never, so the window only has to outlast what stands in their queues.
pub(crate) const IDS_MAX: usize = 131_072;

#[derive(Debug, Default)]
pub(crate) struct Dedup {
    sequences: HashMap<Uid, u64>,
    order: VecDeque<(Timestamp, Uid)>,
}

impl Dedup {
    /// The sequence of an id that was published inside the window.
    pub(crate) fn find(&self, id: Uid) -> Option<u64> {
        self.sequences.get(&id).copied()
    }

    /// Remembers a record, and forgets what is too old at its time.
    pub(crate) fn insert(&mut self, stored_at: Timestamp, id: Uid, sequence: u64) {
        self.sequences.insert(id, sequence);
        self.order.push_back((stored_at, id));
        let horizon = stored_at.saturating_sub(WINDOW);
        while self.order.len() > IDS_MAX || self.order.front().is_some_and(|(at, _)| *at < horizon) {
            if let Some((_, id)) = self.order.pop_front() {
                self.sequences.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_for_the_window_and_the_oldest_goes_at_the_bound() {
        let mut dedup = Dedup::default();
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        let id = Uid::from_u128;
        dedup.insert(at(0), id(1), 1);
        dedup.insert(at(600), id(2), 2);
        assert_eq!(dedup.find(id(1)), Some(1));
        dedup.insert(at(601), id(3), 3);
        assert_eq!((dedup.find(id(1)), dedup.find(id(2))), (None, Some(2)));
        for n in 0..IDS_MAX as u128 {
            dedup.insert(at(602), id(10 + n), 4);
        }
        assert_eq!((dedup.find(id(3)), dedup.order.len()), (None, IDS_MAX));
    }
}
