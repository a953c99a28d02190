//! What is remembered of the answers of others: a bounded cache whose entries grow no older than they may and never outlive
//! an invalidation, and which hints must be acted on twice.
//!
//! Signals are hints, and what they do not tell is found out within 30 s. Caches stand in a chain (registry's own, the one
//! of a process that asks registry, the edge that asks again for its open connections), so they share these 30 s:
//! [`AGE_AT_REGISTRY`] + [`AGE_AT_CALLER`] + [`AGE_AT_EDGE`].

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, Hash, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::Timestamp;

/// How old an answer from registry's own cache over the store may be: each busy device costs the store a read in so long.
pub const AGE_AT_REGISTRY: Duration = Duration::from_secs(8);
/// How old an answer may be that a process remembers of a registry elsewhere: also how long a busy device goes on while no
/// registry answers.
pub const AGE_AT_CALLER: Duration = Duration::from_secs(8);
/// How old a device may be that the edge remembers, and how long an open connection or poll goes without being asked for
/// again: one second less than what the two above leave of 30 s, so that the answer is in by then.
pub const AGE_AT_EDGE: Duration = Duration::from_secs(13);

/// A hint that came says that others hear it now too, not that they have: who asks another replica at once may be told what
/// was before. So what a hint makes untrue is forgotten again after this; a signal takes some milliseconds.
pub const FORGET_AGAIN: Duration = Duration::from_millis(500);
/// And what asks once for each hint (an open connection) asks again after this: later than [`FORGET_AGAIN`], and within the
/// second in which a revocation must have ended what it ends.
pub const ASK_AGAIN: Duration = Duration::from_millis(700);
/// A load that was under way during an invalidation of another key is dropped for nothing once in so many.
const STRIPES: usize = 64;

/// Answers by key, in two generations: where the young one is full, the old one goes and the young takes its place. So at
/// most the configured count is held, and what was used lately stays, at one hash lookup or two.
pub struct Cache<K, V> {
    inner: Mutex<Inner<K, V>>,
    half: usize,
    age_max: Duration,
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
    until: Timestamp,
    value: V,
}

/// Taken before the store is read; a value that was read before an invalidation is not kept after it.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    stripe: usize,
    epoch: u64,
    read_at: Timestamp,
}

impl<K: Hash + Eq + Clone, V: Clone> Cache<K, V> {
    /// Of at most `entries`, each used no longer than `age_max` after its read began.
    pub fn new(entries: usize, age_max: Duration) -> Self {
        Self {
            inner: Mutex::new(Inner { young: HashMap::new(), old: HashMap::new(), epochs: [0; STRIPES] }),
            half: (entries / 2).max(1),
            age_max,
            hasher: RandomState::new(),
        }
    }

    /// The value, unless it is too old at `now`, or was read after it (a clock that was set back).
    pub fn get(&self, key: &K, now: Timestamp) -> Option<V> {
        let fresh = |entry: &Entry<V>| entry.read_at <= now && now < entry.until;
        let mut inner = self.lock();
        if let Some(entry) = inner.young.get(key) {
            return fresh(entry).then(|| entry.value.clone());
        }
        let entry = inner.old.remove(key).filter(fresh)?;
        let value = entry.value.clone();
        inner.put(key.clone(), entry, self.half);
        Some(value)
    }

    /// How many answers it holds, also those that have aged.
    pub fn len(&self) -> usize {
        let inner = self.lock();
        inner.young.len() + inner.old.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asked for before the store is read.
    pub fn ticket(&self, key: &K, now: Timestamp) -> Ticket {
        let stripe = self.stripe(key);
        let epoch = self.lock().epochs.get(stripe).copied().unwrap_or_default();
        Ticket { stripe, epoch, read_at: now }
    }

    /// Keeps what was read under `ticket`, unless its key may have been invalidated meanwhile.
    pub fn put(&self, ticket: Ticket, key: K, value: V) {
        self.put_for(self.age_max, ticket, key, value);
    }

    /// As [`Cache::put`], for a value that may be used no longer than `age` after its read began.
    pub fn put_for(&self, age: Duration, ticket: Ticket, key: K, value: V) {
        let until = ticket.read_at.saturating_add(age.min(self.age_max));
        let mut inner = self.lock();
        if inner.epochs.get(ticket.stripe).copied() == Some(ticket.epoch) {
            inner.put(key, Entry { read_at: ticket.read_at, until, value }, self.half);
        }
    }

    /// Forgets one key.
    pub fn invalidate(&self, key: &K) {
        let stripe = self.stripe(key);
        let mut inner = self.lock();
        inner.young.remove(key);
        inner.old.remove(key);
        inner.epochs.iter_mut().skip(stripe).take(1).for_each(|epoch| *epoch += 1);
    }

    /// Forgets every key that `matches`.
    pub fn invalidate_all(&self, matches: impl Fn(&K) -> bool) {
        let mut inner = self.lock();
        inner.young.retain(|key, _| !matches(key));
        inner.old.retain(|key, _| !matches(key));
        inner.epochs.iter_mut().for_each(|epoch| *epoch += 1);
    }

    /// No code panics while it holds the lock; were one to, the entries would still be whole.
    fn lock(&self) -> MutexGuard<'_, Inner<K, V>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Hints to act on once more, after the same while each. Pure: whoever holds it waits.
#[derive(Debug)]
pub struct Echoes<T> {
    after: Duration,
    waiting: VecDeque<(Instant, Option<T>)>,
}

/// Hints that wait for their echo at most: a thousand changes in half a second are one that changed everything.
const ECHOES_MAX: usize = 1_024;

impl<T> Echoes<T> {
    /// Each is due so long after it came.
    pub fn new(after: Duration) -> Self {
        Self { after, waiting: VecDeque::new() }
    }

    /// A hint came; `None` is one that says that some are missing. At the bound all that wait become one of these; one that
    /// waits already keeps its time, so that no flood can put it off for ever.
    pub fn heard(&mut self, hint: Option<T>, now: Instant) {
        let due = now + self.after;
        match hint {
            Some(hint) if self.waiting.len() < ECHOES_MAX => self.waiting.push_back((due, Some(hint))),
            _ => {
                let first_says_all = matches!(self.waiting.front(), Some((_, None)));
                self.waiting.truncate(usize::from(first_says_all));
                self.waiting.push_back((due, None));
            }
        }
    }

    /// When the next is due.
    pub fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|(due, _)| *due)
    }

    /// The next one that is due at `now`.
    pub fn pop(&mut self, now: Instant) -> Option<Option<T>> {
        if self.due()? > now {
            return None;
        }
        self.waiting.pop_front().map(|(_, hint)| hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(30);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn an_entry_is_forgotten_at_its_age_and_when_the_clock_is_set_back() {
        let cache = Cache::new(4, AGE);
        cache.put(cache.ticket(&"a", at(100)), "a", 1);
        assert_eq!(cache.get(&"a", at(129)), Some(1));
        assert_eq!(cache.get(&"a", at(130)), None);
        assert_eq!(cache.get(&"a", at(99)), None);
        cache.put_for(Duration::from_secs(1), cache.ticket(&"b", at(100)), "b", 2);
        assert_eq!((cache.get(&"b", at(100)), cache.get(&"b", at(101))), (Some(2), None));
    }

    #[test]
    fn the_links_of_the_chain_share_thirty_seconds() {
        assert!(AGE_AT_REGISTRY + AGE_AT_CALLER + AGE_AT_EDGE < Duration::from_secs(30));
        assert!(FORGET_AGAIN < ASK_AGAIN && ASK_AGAIN < Duration::from_secs(1));
    }

    #[test]
    fn every_hint_echoes_once_in_order_and_a_flood_of_them_as_one_that_says_all() {
        let (start, after) = (Instant::now(), Duration::from_millis(500));
        let mut echoes = Echoes::new(after);
        echoes.heard(Some(1), start);
        echoes.heard(Some(2), start + Duration::from_millis(1));
        assert_eq!(echoes.due(), Some(start + after));
        assert_eq!(echoes.pop(start), None);
        assert_eq!(echoes.pop(start + after), Some(Some(1)));
        assert_eq!(echoes.pop(start + after), None);
        for n in 0..ECHOES_MAX + 5 {
            echoes.heard(Some(n), start + after);
            assert!(echoes.waiting.len() <= ECHOES_MAX);
        }
        let later = start + after + after;
        let all: Vec<_> = std::iter::from_fn(|| echoes.pop(later)).collect();
        assert!(all.contains(&None), "what was dropped is told as a gap");
        assert_eq!(echoes.due(), None);
        echoes.heard(None, start);
        for n in 0..ECHOES_MAX * 3 {
            echoes.heard(Some(n), start + Duration::from_millis(400));
        }
        assert_eq!(echoes.pop(start + after), Some(None), "a flood does not put it off");
    }

    #[test]
    fn what_was_read_before_an_invalidation_is_not_kept_after_it() {
        let cache = Cache::new(4, AGE);
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
        let cache = Cache::new(8, AGE);
        for n in 0..1_000 {
            cache.put(cache.ticket(&n, at(0)), n, n);
            assert_eq!(cache.get(&0, at(0)), Some(0), "after {n}");
            let inner = cache.lock();
            assert!(inner.young.len() + inner.old.len() <= 8);
        }
        assert_eq!(cache.get(&1, at(0)), None);
    }
}
