//! Which owners work, for readiness.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use weir_core::{Error, Partition};

/// What each partition's owner last failed with; empty while all of them work. One entry a partition at most.
#[derive(Default)]
pub(crate) struct Health {
    failing: Mutex<BTreeMap<Partition, String>>,
}

impl Health {
    pub(crate) fn failed(&self, partition: Partition, error: &Error) {
        self.failing.lock().insert(partition, error.to_string());
    }

    pub(crate) fn works(&self, partition: Partition) {
        self.failing.lock().remove(&partition);
    }

    /// # Errors
    /// How many owners do not work, and what the first of them failed with.
    pub(crate) fn ready(&self) -> Result<(), String> {
        let failing = self.failing.lock();
        match failing.first_key_value() {
            None => Ok(()),
            Some((partition, reason)) => {
                Err(format!("{} partitions are not written; partition {partition}: {reason}", failing.len()))
            }
        }
    }
}
