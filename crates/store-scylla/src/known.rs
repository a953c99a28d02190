//! What this process has written already and need not write again.

use std::collections::HashSet;

use parking_lot::Mutex;
use weir_core::Uid;

/// A bounded set of names. At its bound it forgets everything: what it is asked about again is then written once more,
/// which is only work.
pub(crate) struct Known {
    names: Mutex<HashSet<Uid>>,
    max: usize,
}

impl Known {
    pub(crate) fn new(max: usize) -> Self {
        Self { names: Mutex::new(HashSet::new()), max }
    }

    pub(crate) fn has(&self, name: Uid) -> bool {
        self.names.lock().contains(&name)
    }

    pub(crate) fn add(&self, name: Uid) {
        let mut names = self.names.lock();
        if names.len() >= self.max {
            names.clear();
        }
        names.insert(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_holds_more_than_its_bound() {
        let known = Known::new(3);
        for number in 0..10 {
            known.add(Uid::from_u128(number));
            assert!(known.has(Uid::from_u128(number)));
            assert!(known.names.lock().len() <= 3);
        }
    }
}
