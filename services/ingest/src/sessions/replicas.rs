//! Which replicas of the edge are there, as this one sees it.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::RwLock;
use weir_core::{Timestamp, Uid, port::View};

/// Replicas that left, whose moment is remembered: more do not leave within the seven days that a session lives. At the bound
/// the oldest is forgotten, whose sessions then count from the start of this process.
const LEFT_MAX: usize = 1_024;

/// Which replicas are there. A replica's id is new at each start, so what a former process left is nobody's.
pub(crate) struct Replicas {
    me: Uid,
    seen: RwLock<Seen>,
    lost: AtomicU64,
}

#[derive(Default)]
struct Seen {
    there: HashSet<Uid>,
    left: HashMap<Uid, Timestamp>,
}

impl Replicas {
    pub(crate) fn new(me: Uid) -> Self {
        let seen = Seen { there: HashSet::from([me]), left: HashMap::new() };
        Self { me, seen: RwLock::new(seen), lost: AtomicU64::new(0) }
    }

    /// This one.
    pub(crate) fn me(&self) -> Uid {
        self.me
    }

    /// Takes a view. An empty one says only that the bus is away: what was known stays, so that nobody's presence flaps.
    pub(crate) fn see(&self, view: &View, now: Timestamp) {
        if view.members.is_empty() {
            return;
        }
        let mut there: HashSet<Uid> = view.members.iter().map(|member| member.id).collect();
        there.insert(self.me);
        let mut seen = self.seen.write();
        let gone: Vec<Uid> = seen.there.difference(&there).copied().collect();
        self.lost.fetch_add(gone.len() as u64, Ordering::AcqRel);
        seen.left.retain(|id, _| !there.contains(id));
        seen.left.extend(gone.into_iter().map(|id| (id, now)));
        while seen.left.len() > LEFT_MAX {
            let oldest = seen.left.iter().min_by_key(|(_, at)| **at).map(|(id, _)| *id);
            oldest.and_then(|id| seen.left.remove(&id));
        }
        seen.there = there;
    }

    pub(super) fn is_there(&self, id: Uid) -> bool {
        self.seen.read().there.contains(&id)
    }

    /// When this one saw that it was gone.
    pub(super) fn left_at(&self, id: Uid) -> Option<Timestamp> {
        self.seen.read().left.get(&id).copied()
    }

    /// How many were lost since the start.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use weir_core::port::Member;

    use super::*;

    fn view(ids: &[u128]) -> View {
        let member = |id: &u128| Member { id: Uid::from_u128(*id), name: id.to_string() };
        View { members: ids.iter().map(member).collect() }
    }

    #[test]
    fn one_that_leaves_is_gone_since_then_and_an_empty_view_changes_nothing() {
        let replicas = Replicas::new(Uid::from_u128(1));
        let (other, at) = (Uid::from_u128(2), Timestamp::from_micros);
        replicas.see(&view(&[1, 2]), at(10));
        replicas.see(&View::default(), at(20));
        assert!(replicas.is_there(other) && replicas.lost() == 0);
        replicas.see(&view(&[1]), at(30));
        assert!(!replicas.is_there(other));
        assert_eq!((replicas.left_at(other), replicas.lost()), (Some(at(30)), 1));
        replicas.see(&view(&[1, 2]), at(40));
        assert!(replicas.is_there(other) && replicas.left_at(other).is_none());
        replicas.see(&view(&[2]), at(50));
        assert!(replicas.is_there(Uid::from_u128(1)), "it is there itself, whatever others think");
    }

    #[test]
    fn what_is_remembered_of_those_that_left_is_bounded() {
        let replicas = Replicas::new(Uid::from_u128(1));
        for n in 2..LEFT_MAX as u128 + 100 {
            replicas.see(&view(&[1, n]), Timestamp::from_micros(n as i64));
        }
        assert!(replicas.seen.read().left.len() <= LEFT_MAX);
        assert!(replicas.left_at(Uid::from_u128(2)).is_none());
    }
}
