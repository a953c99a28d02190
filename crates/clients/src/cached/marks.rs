//! When what was last said to have changed: one counter that rises with every change, and its value at the last change of
//! each subject. What was read before the last change of anything that it says is no longer true.
//!
//! So a change costs one store, whatever is remembered, and needs no list of what depends on what. A subject shares its
//! place with others by its hash: then something is forgotten for nothing, never kept for nothing.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use weir_core::{DeviceId, TenantId};

/// 64 KiB. Of what is remembered a change forgets one in so many for nothing.
const PLACES: usize = 8_192;

/// What an answer is about.
#[derive(Debug, Clone, Copy, Hash)]
pub(super) enum Subject<'a> {
    Device(&'a TenantId, &'a DeviceId),
    /// Which devices a tenant has, and their labels.
    Devices(&'a TenantId),
    Profile(&'a TenantId, &'a str),
    Tenant(&'a TenantId),
    Credential(&'a str),
    Token(&'a str),
}

/// A moment between changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark(u64);

#[derive(Debug)]
pub(super) struct Marks {
    changes: AtomicU64,
    /// The last time that everything may have changed.
    all: AtomicU64,
    places: Vec<AtomicU64>,
    hasher: RandomState,
}

impl Marks {
    pub(super) fn new() -> Self {
        Self {
            changes: AtomicU64::new(0),
            all: AtomicU64::new(0),
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Taken before something is read.
    pub(super) fn now(&self) -> Mark {
        Mark(self.changes.load(Ordering::SeqCst))
    }

    pub(super) fn changed(&self, subject: Subject<'_>) {
        let change = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(place) = self.place(subject) {
            place.fetch_max(change, Ordering::SeqCst);
        }
    }

    pub(super) fn all_changed(&self) {
        let change = self.changes.fetch_add(1, Ordering::SeqCst) + 1;
        self.all.fetch_max(change, Ordering::SeqCst);
    }

    /// Whether what was read after `since` is still true of these.
    pub(super) fn hold(&self, since: Mark, subjects: &[Subject<'_>]) -> bool {
        let unchanged = |place: &AtomicU64| place.load(Ordering::SeqCst) <= since.0;
        unchanged(&self.all) && subjects.iter().all(|subject| self.place(*subject).is_some_and(unchanged))
    }

    fn place(&self, subject: Subject<'_>) -> Option<&AtomicU64> {
        self.places.get((self.hasher.hash_one(subject) % PLACES as u64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_holds_over_a_change_of_its_subject_or_of_everything(
            steps in prop::collection::vec(0_usize..6, 1..40),
            read_at in 0_usize..40,
        ) {
            let tenant = TenantId::new("acme").unwrap();
            let names = ["a", "b", "c", "d", "e"];
            let subject = |n: usize| names.get(n).map(|name| Subject::Profile(&tenant, name));
            let marks = Marks::new();
            let read_at = read_at.min(steps.len());
            let mut since = marks.now();
            for (at, step) in steps.iter().enumerate() {
                if at == read_at {
                    since = marks.now();
                }
                match subject(*step) {
                    Some(subject) => marks.changed(subject),
                    None => marks.all_changed(),
                }
            }
            if read_at == steps.len() {
                since = marks.now();
            }
            let after = &steps[read_at..];
            for n in 0..names.len() {
                let changed = after.contains(&n) || after.contains(&names.len());
                let holds = marks.hold(since, &[subject(n).unwrap()]);
                prop_assert!(!(changed && holds), "{} was changed", names[n]);
                prop_assert!(holds || !after.is_empty(), "{} was not changed", names[n]);
            }
        }
    }
}
