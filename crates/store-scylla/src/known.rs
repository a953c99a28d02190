//! What this process has written already and need not write again.

use std::collections::HashMap;

use parking_lot::Mutex;
use weir_core::Uid;

/// A bounded set of names, each with how often the servers had possibly lost something before it was written: once that
/// happens again the name counts no more, since it may be among what is gone, while what it leads to is written anew. At its
/// bound the set forgets everything: what it is asked about again is then written once more, which is only work.
pub(crate) struct Known {
    names: Mutex<HashMap<Uid, u64>>,
    max: usize,
}

impl Known {
    pub(crate) fn new(max: usize) -> Self {
        Self { names: Mutex::new(HashMap::new()), max }
    }

    /// Whether it is written and nothing was possibly lost since; `losses`: as they are now.
    pub(crate) fn has(&self, name: Uid, losses: u64) -> bool {
        self.names.lock().get(&name) == Some(&losses)
    }

    /// It is written; `losses`: as they were before the write began.
    pub(crate) fn add(&self, name: Uid, losses: u64) {
        let mut names = self.names.lock();
        if names.len() >= self.max {
            names.clear();
        }
        names.insert(name, losses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_holds_more_than_its_bound() {
        let known = Known::new(3);
        for number in 0..10 {
            known.add(Uid::from_u128(number), 0);
            assert!(known.has(Uid::from_u128(number), 0));
            assert!(known.names.lock().len() <= 3);
        }
    }

    #[test]
    fn a_name_counts_only_until_something_may_have_been_lost() {
        let (known, name) = (Known::new(3), Uid::from_u128(1));
        known.add(name, 4);
        assert!(known.has(name, 4) && !known.has(name, 5));
        // The loss came while the name was written: it is not known whether before or after.
        known.add(name, 4);
        assert!(!known.has(name, 5));
        known.add(name, 5);
        assert!(known.has(name, 5));
    }
}
