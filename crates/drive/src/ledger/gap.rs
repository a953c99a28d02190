//! The longest time without an acknowledgement, of each edge.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::Via;

/// The longest gap of one edge, and when it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gap {
    /// How long nothing was acknowledged.
    pub length: Duration,
    /// How long after the begin of the run it began.
    pub began: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct Edge {
    last: Option<Instant>,
    longest: Gap,
}

/// Watches acknowledgements as they come.
#[derive(Debug)]
pub struct Gaps {
    begin: Instant,
    edges: Mutex<[Edge; 3]>,
}

fn index(via: Via) -> usize {
    match via {
        Via::Mqtt => 0,
        Via::Http => 1,
        Via::Grpc => 2,
    }
}

impl Default for Gaps {
    fn default() -> Self {
        Self { begin: Instant::now(), edges: Mutex::default() }
    }
}

impl Gaps {
    /// Something was acknowledged over `via`, now. The first acknowledgement begins the watch.
    pub fn acked(&self, via: Via) {
        self.at(via, Instant::now());
    }

    /// The load ends: what is not acknowledged by now is a gap too.
    pub fn end(&self) {
        let now = Instant::now();
        for via in Via::ALL {
            let watched = self.edges.lock().unwrap_or_else(PoisonError::into_inner).get(index(via)).copied();
            if watched.is_some_and(|edge| edge.last.is_some()) {
                self.at(via, now);
            }
        }
    }

    fn at(&self, via: Via, now: Instant) {
        let mut edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(edge) = edges.get_mut(index(via)) else { return };
        if let Some(last) = edge.last {
            let length = now.saturating_duration_since(last);
            if length > edge.longest.length {
                edge.longest = Gap { length, began: last.saturating_duration_since(self.begin) };
            }
        }
        edge.last = Some(now);
    }

    /// The longest gap of an edge; none where nothing was acknowledged over it.
    pub fn longest(&self, via: Via) -> Option<Gap> {
        let edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        edges.get(index(via)).filter(|edge| edge.last.is_some()).map(|edge| edge.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_kept_for_each_edge_with_its_begin() {
        let gaps = Gaps::default();
        let at = |millis| gaps.begin + Duration::from_millis(millis);
        for millis in [1_000, 1_010, 4_010, 4_020] {
            gaps.at(Via::Mqtt, at(millis));
        }
        gaps.at(Via::Grpc, at(9_000));
        let expected = Gap { length: Duration::from_secs(3), began: Duration::from_millis(1_010) };
        assert_eq!(gaps.longest(Via::Mqtt), Some(expected));
        assert_eq!(gaps.longest(Via::Grpc), Some(Gap::default()));
        assert_eq!(gaps.longest(Via::Http), None);
    }
}
