//! Answers of one kind: remembered for a while, and asked for once however many wait for them.

use std::{
    collections::{HashMap, hash_map},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use weir_core::{
    Clock, Error, ErrorKind, Result,
    cache::{AGE_AT_CALLER, Cache, Ticket},
};

use super::marks::{Mark, Marks};

/// How long a refusal is remembered: long enough that a client which tries again in a loop asks once a second, and no longer
/// than it takes anybody to see that a device which was just made can come in.
const REFUSAL_AGE: Duration = Duration::from_secs(1);
/// A registry that has not answered by now is away: as long as a device waits for its CONNACK.
const LOAD_MAX: Duration = Duration::from_secs(10);
/// How often a call asks again because what it asked for changed meanwhile; then it takes the last answer.
const TRIES: usize = 3;

/// What one asks by, and what makes the answer untrue.
pub(super) trait Key<V>: Hash + Eq + Clone + Send + Sync + 'static {
    /// Whether an answer that was read after `since` is still true; `None` is one that says that there is nothing.
    fn holds(&self, answer: Option<&V>, marks: &Marks, since: Mark) -> bool;

    /// Whether it is worth its memory.
    fn keeps(&self, _answer: &V) -> bool {
        true
    }
}

/// What lookups share.
pub(super) struct Shore {
    pub(super) marks: Marks,
    pub(super) clock: Arc<dyn Clock>,
    /// Calls under way; who wants one more waits.
    pub(super) calls: Arc<Semaphore>,
}

pub(super) struct Lookup<K, V> {
    shore: Arc<Shore>,
    known: Cache<K, Known<V>>,
    /// One for each call under way, so as bounded as those.
    flights: Mutex<HashMap<K, Flight<V>>>,
}

#[derive(Clone)]
struct Known<V> {
    since: Mark,
    answer: Result<V>,
}

/// A call under way.
#[derive(Clone)]
struct Flight<V> {
    since: Mark,
    answer: Shared<oneshot::Receiver<Result<V>>>,
}

/// Takes a flight off the list, also where its call panicked.
struct Landing<K: Key<V>, V> {
    lookup: Arc<Lookup<K, V>>,
    key: K,
    since: Mark,
}

impl<K: Key<V>, V: Clone + Send + Sync + 'static> Lookup<K, V> {
    pub(super) fn new(shore: Arc<Shore>, entries: usize) -> Arc<Self> {
        Arc::new(Self { shore, known: Cache::new(entries, AGE_AT_CALLER), flights: Mutex::default() })
    }

    /// What is known, else what `ask` says.
    pub(super) async fn get(
        self: &Arc<Self>,
        key: K,
        ask: impl Fn() -> BoxFuture<'static, Result<V>>,
    ) -> Result<V> {
        let mut tries = 0;
        loop {
            if let Some(answer) = self.recall(&key) {
                return answer;
            }
            let flight = match self.join(&key) {
                Some(flight) => flight,
                None => {
                    let permit = Arc::clone(&self.shore.calls).acquire_owned().await.map_err(|_| away())?;
                    match self.start(&key, permit, &ask) {
                        Some(flight) => flight,
                        None => continue,
                    }
                }
            };
            let answer = flight.answer.await.unwrap_or_else(|_| Err(away()));
            tries += 1;
            let known = answer.as_ref().ok();
            if tries == TRIES || key.holds(known, &self.shore.marks, flight.since) {
                return answer;
            }
        }
    }

    fn recall(&self, key: &K) -> Option<Result<V>> {
        let Known { since, answer } = self.known.get(key, self.shore.clock.now())?;
        key.holds(answer.as_ref().ok(), &self.shore.marks, since).then_some(answer)
    }

    /// The call under way, unless what it says may be what was before a change.
    fn join(&self, key: &K) -> Option<Flight<V>> {
        let flight = self.flights().get(key)?.clone();
        key.holds(None, &self.shore.marks, flight.since).then_some(flight)
    }

    /// Calls, or joins who did while this one waited; none where the answer is known by now. The call goes on though all
    /// who wait for it leave.
    fn start(
        self: &Arc<Self>,
        key: &K,
        permit: OwnedSemaphorePermit,
        ask: &impl Fn() -> BoxFuture<'static, Result<V>>,
    ) -> Option<Flight<V>> {
        let mut flights = self.flights();
        if self.recall(key).is_some() {
            return None; // kept before its flight was taken off the list
        }
        let since = self.shore.marks.now();
        let (tell, told) = oneshot::channel();
        let flight = Flight { since, answer: told.shared() };
        match flights.entry(key.clone()) {
            hash_map::Entry::Occupied(other) if key.holds(None, &self.shore.marks, other.get().since) => {
                return Some(other.get().clone());
            }
            hash_map::Entry::Occupied(mut other) => drop(other.insert(flight.clone())),
            hash_map::Entry::Vacant(place) => drop(place.insert(flight.clone())),
        }
        drop(flights);
        let ticket = self.known.ticket(key, self.shore.clock.now());
        let landing = Landing { lookup: Arc::clone(self), key: key.clone(), since };
        let asked = ask();
        tokio::spawn(async move {
            let answer = tokio::time::timeout(LOAD_MAX, asked).await.unwrap_or_else(|_| Err(away()));
            landing.lookup.keep(&landing.key, since, ticket, &answer);
            drop(landing);
            drop(permit);
            drop(tell.send(answer)); // all who waited may have left
        });
        Some(flight)
    }

    fn keep(&self, key: &K, since: Mark, ticket: Ticket, answer: &Result<V>) {
        let age = match answer {
            Ok(value) if key.keeps(value) => AGE_AT_CALLER,
            Err(error) if matches!(error.kind(), ErrorKind::Unauthenticated | ErrorKind::NotFound) => {
                REFUSAL_AGE
            }
            _ => return,
        };
        self.known.put_for(age, ticket, key.clone(), Known { since, answer: answer.clone() });
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<K, Flight<V>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Key<V>, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        let mut flights = self.lookup.flights.lock().unwrap_or_else(PoisonError::into_inner);
        // A later call may be under way: this one was not joined any more after a change.
        if flights.get(&self.key).is_some_and(|flight| flight.since == self.since) {
            flights.remove(&self.key);
        }
    }
}

fn away() -> Error {
    Error::unavailable("registry does not answer")
}
