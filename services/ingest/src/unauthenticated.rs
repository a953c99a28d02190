//! What connections may hold before they have shown who they are: one budget for all of them, the oldest makes room.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// What a connection costs before its first byte: its task, its socket's registration and its seat. Counted, so that
/// connections that send nothing are bounded by the same budget: 16 MiB hold about 10,900 of them.
pub(crate) const SEAT_BYTES: usize = 1_536;

/// The connections that have not authenticated yet.
pub(crate) struct Unauthenticated {
    bytes_max: usize,
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    next: u64,
    bytes: usize,
    /// How many had to make room so far.
    evicted: u64,
    /// By age: the first is the oldest.
    taken: BTreeMap<u64, Taken>,
}

struct Taken {
    bytes: usize,
    evict: Arc<Notify>,
}

/// The place of one connection; given back when dropped.
pub(crate) struct Seat {
    number: u64,
    evicted: Arc<Notify>,
    of: Arc<Unauthenticated>,
}

impl Unauthenticated {
    /// With `bytes_max` for all connections.
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, seats: Mutex::default() })
    }

    /// A place for a new connection; the oldest ones make room.
    pub(crate) fn enter(self: &Arc<Self>) -> Seat {
        let evicted = Arc::new(Notify::new());
        let mut seats = self.seats.lock();
        let number = seats.next;
        seats.next += 1;
        seats.taken.insert(number, Taken { bytes: SEAT_BYTES, evict: Arc::clone(&evicted) });
        seats.bytes += SEAT_BYTES;
        seats.make_room(self.bytes_max);
        Seat { number, evicted, of: Arc::clone(self) }
    }

    /// What all of them hold, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.seats.lock().bytes
    }

    /// How many had to make room so far.
    pub(crate) fn evicted(&self) -> u64 {
        self.seats.lock().evicted
    }

    /// Closes the oldest, for a process that has run out of something else (file descriptors).
    pub(crate) fn evict_oldest(&self) {
        self.seats.lock().evict_oldest();
    }
}

impl Seats {
    fn make_room(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max && self.evict_oldest() {}
    }

    fn evict_oldest(&mut self) -> bool {
        let Some((_, oldest)) = self.taken.pop_first() else { return false };
        self.bytes -= oldest.bytes;
        self.evicted += 1;
        oldest.evict.notify_one();
        true
    }
}

impl Seat {
    /// Its buffers are `buffers` bytes large now. The oldest connections make room, possibly this one.
    pub(crate) fn hold(&self, buffers: usize) {
        let mut seats = self.of.seats.lock();
        let Some(taken) = seats.taken.get_mut(&self.number) else { return };
        let before = std::mem::replace(&mut taken.bytes, SEAT_BYTES + buffers);
        seats.bytes = seats.bytes - before + SEAT_BYTES + buffers;
        seats.make_room(self.of.bytes_max);
    }

    /// Returns when this connection must make room.
    pub(crate) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.of.seats.lock();
        if let Some(taken) = seats.taken.remove(&self.number) {
            seats.bytes -= taken.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_oldest_makes_room_for_the_bytes_of_a_newer_one() {
        let all = Unauthenticated::new(3 * SEAT_BYTES + 1_000);
        let (first, second, third) = (all.enter(), all.enter(), all.enter());
        third.hold(1_000);
        assert!(first.evicted().now_or_never().is_none(), "at the bound nobody has to go");
        third.hold(1_001);
        assert!(first.evicted().now_or_never().is_some());
        assert!(second.evicted().now_or_never().is_none() && third.evicted().now_or_never().is_none());
    }

    #[test]
    fn a_seat_that_is_given_back_is_room() {
        let all = Unauthenticated::new(2 * SEAT_BYTES);
        let first = all.enter();
        drop(all.enter());
        let _third = all.enter();
        assert!(first.evicted().now_or_never().is_none());
    }

    proptest! {
        #[test]
        fn what_is_held_never_passes_the_bound(steps in proptest::collection::vec((any::<u8>(), 0_usize..9_000), 1..200)) {
            let bound = 40_000;
            let all = Unauthenticated::new(bound);
            let mut seats = Vec::new();
            for (which, bytes) in steps {
                match which % 4 {
                    0 => seats.push(all.enter()),
                    1 if !seats.is_empty() => drop(seats.swap_remove(usize::from(which) % seats.len())),
                    _ if !seats.is_empty() => seats[usize::from(which) % seats.len()].hold(bytes),
                    _ => {}
                }
                let state = all.seats.lock();
                prop_assert!(state.bytes <= bound);
                prop_assert_eq!(state.bytes, state.taken.values().map(|taken| taken.bytes).sum::<usize>());
            }
        }
    }
}
