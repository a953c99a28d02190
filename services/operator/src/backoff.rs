//! Pauses after failures, longer each time.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// The first pause.
const FIRST: Duration = Duration::from_secs(1);
/// The longest: what comes back is then found within a minute.
const LONGEST: Duration = Duration::from_secs(60);

/// How often each object failed in a row.
#[derive(Default)]
pub(crate) struct Backoff(Mutex<BTreeMap<String, u32>>);

impl Backoff {
    /// It failed once more; how long to wait.
    pub(crate) fn failed(&self, name: &str) -> Duration {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = known.entry(name.to_owned()).or_default();
        let pause = FIRST.saturating_mul(1 << (*failures).min(6)).min(LONGEST);
        *failures = failures.saturating_add(1);
        pause
    }

    /// It did not fail, or is gone.
    pub(crate) fn done(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute_and_begin_anew_after_a_success() {
        let backoff = Backoff::default();
        let pauses: Vec<u64> = (0..9).map(|_| backoff.failed("a").as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff.failed("b").as_secs(), 1);
        backoff.done("a");
        assert_eq!(backoff.failed("a").as_secs(), 1);
    }
}
