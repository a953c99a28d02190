//! A bounded cache whose entries are never older than 30 s and never outlive an invalidation.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    time::Duration,
};

use parking_lot::Mutex;
use weir_core::Timestamp;

/// Signals are hints: what is not told is found out within this time.
pub(crate) const AGE_MAX: Duration = Duration::from_secs(30);
/// A load that was under way during an invalidation of another key is dropped for nothing once in so many.
const STRIPES: usize = 64;

/// Entries by key, in two generations: where the young one is full, the old one goes and the young takes its place. So at
/// most the configured count is held, and what was used lately stays, at one hash lookup or two.
pub(crate) struct Cache<K, V> {
    inner: Mutex<Inner<K, V>>,
    half: usize,
    hasher: RandomState,
}

struct Inner<K, V> {
    young: HashMap<K, Entry<V>>,
    old: HashMap<K, Entry<V>>,
    /// How often a key of this stripe was invalidated.
    epochs: [u64; STRIPES],
}

struct Entry<V> {
    read_at: Timestamp,
    value: V,
}

/// Taken before the store is read; a value that was read before an invalidation is not kept after it.
#[derive(Clone, Copy)]
pub(crate) struct Ticket {
    stripe: usize,
    epoch: u64,
    read_at: Timestamp,
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    pub(crate) fn new(entries: usize) -> Self {
        Self {
            inner: Mutex::new(Inner { young: HashMap::new(), old: HashMap::new(), epochs: [0; STRIPES] }),
            half: (entries / 2).max(1),
            hasher: RandomState::new(),
        }
    }

    /// The value, unless it was read more than 30 s before `now`, or after it (a clock that was set back).
    pub(crate) fn get(&self, key: &K, now: Timestamp) -> Option<V> {
        let fresh = |entry: &Entry<V>| entry.read_at <= now && now < entry.read_at.saturating_add(AGE_MAX);
        let mut inner = self.inner.lock();
        if let Some(entry) = inner.young.get(key) {
            return fresh(entry).then(|| entry.value.clone());
        }
        let entry = inner.old.remove(key).filter(fresh)?;
        let value = entry.value.clone();
        inner.put(key.clone(), entry, self.half);
        Some(value)
    }

    /// Asked for before the store is read.
    pub(crate) fn ticket(&self, key: &K, now: Timestamp) -> Ticket {
        let stripe = self.stripe(key);
        let epoch = self.inner.lock().epochs.get(stripe).copied().unwrap_or_default();
        Ticket { stripe, epoch, read_at: now }
    }

    /// Keeps what was read under `ticket`, unless its key may have been invalidated meanwhile.
    pub(crate) fn put(&self, ticket: Ticket, key: K, value: V) {
        let mut inner = self.inner.lock();
        if inner.epochs.get(ticket.stripe).copied() == Some(ticket.epoch) {
            inner.put(key, Entry { read_at: ticket.read_at, value }, self.half);
        }
    }

    /// Forgets one key.
    pub(crate) fn invalidate(&self, key: &K) {
        let stripe = self.stripe(key);
        let mut inner = self.inner.lock();
        inner.young.remove(key);
        inner.old.remove(key);
        inner.epochs.iter_mut().skip(stripe).take(1).for_each(|epoch| *epoch += 1);
    }

    /// Forgets every key that `matches`.
    pub(crate) fn invalidate_all(&self, matches: impl Fn(&K) -> bool) {
        let mut inner = self.inner.lock();
        inner.young.retain(|key, _| !matches(key));
        inner.old.retain(|key, _| !matches(key));
        inner.epochs.iter_mut().for_each(|epoch| *epoch += 1);
    }

    fn stripe(&self, key: &K) -> usize {
        (self.hasher.hash_one(key) % STRIPES as u64) as usize
    }
}

impl<K: Hash + Eq, V> Inner<K, V> {
    fn put(&mut self, key: K, entry: Entry<V>, half: usize) {
        if self.young.len() >= half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn an_entry_is_forgotten_after_thirty_seconds_and_when_the_clock_is_set_back() {
        let cache = Cache::new(4);
        cache.put(cache.ticket(&"a", at(100)), "a", 1);
        assert_eq!(cache.get(&"a", at(129)), Some(1));
        assert_eq!(cache.get(&"a", at(130)), None);
        assert_eq!(cache.get(&"a", at(99)), None);
    }

    #[test]
    fn what_was_read_before_an_invalidation_is_not_kept_after_it() {
        let cache = Cache::new(4);
        let ticket = cache.ticket(&"a", at(100));
        cache.invalidate(&"a");
        cache.put(ticket, "a", 1);
        assert_eq!(cache.get(&"a", at(100)), None);
        let ticket = cache.ticket(&"a", at(100));
        cache.invalidate_all(|_| true);
        cache.put(ticket, "a", 1);
        assert_eq!(cache.get(&"a", at(100)), None);
    }

    #[test]
    fn it_never_holds_more_than_its_bound_and_keeps_what_is_used() {
        let cache = Cache::new(8);
        for n in 0..1_000 {
            cache.put(cache.ticket(&n, at(0)), n, n);
            assert_eq!(cache.get(&0, at(0)), Some(0), "after {n}");
            let inner = cache.inner.lock();
            assert!(inner.young.len() + inner.old.len() <= 8);
        }
        assert_eq!(cache.get(&1, at(0)), None);
    }
}
