//! The sessions that are connected to this replica now.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use weir_core::{Timestamp, Uid, command::DeviceKey};

use super::Ended;

/// Ends that the store has not been told: as many as the default bound on connections, three times over. What does not fit
/// counts as connected elsewhere until this replica ends or the client comes back.
const UNTOLD_MAX: usize = 65_536;

/// By device uid; at most as many for each as a device may have sessions. Empty after a restart: nothing is connected.
#[derive(Default)]
pub(super) struct Live {
    sessions: Mutex<HashMap<Uid, Vec<Connected>>>,
    /// Those whose connection has ended without a record of it.
    untold: Mutex<Vec<Left>>,
}

/// Whose session it is; where its record lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) device: DeviceKey,
    pub(super) client_id: String,
}

struct Connected {
    session: Uid,
    owner: Arc<Owner>,
    end: Option<oneshot::Sender<Ended>>,
    last_seen: Arc<AtomicI64>,
}

/// A session whose connection is gone.
#[derive(Debug, Clone)]
pub(super) struct Left {
    pub(super) owner: Arc<Owner>,
    pub(super) session: Uid,
    pub(super) last_seen: Timestamp,
    /// Its record may be written yet, by a commit that was given up: it is told once more.
    pub(super) again: bool,
}

/// A session whose record is being written. Dropped before that has settled, its end is told later: the record may name a
/// connection that is not there.
pub(super) struct Opening {
    live: Arc<Live>,
    left: Option<Left>,
}

/// A connected session's entry, gone when dropped.
pub(super) struct Entry {
    live: Arc<Live>,
    owner: Arc<Owner>,
    session: Uid,
    last_seen: Arc<AtomicI64>,
    /// Whether the store knows that the connection has ended.
    pub(super) told: bool,
}

impl Live {
    /// A session whose record is written from now on.
    pub(super) fn opens(self: &Arc<Self>, owner: &Arc<Owner>, session: Uid, now: Timestamp) -> Opening {
        let left = Left { owner: Arc::clone(owner), session, last_seen: now, again: true };
        Opening { live: Arc::clone(self), left: Some(left) }
    }

    /// Enters a session; those of the same client, and of `evicted` clients, are told to end.
    pub(super) fn enter(
        self: &Arc<Self>,
        owner: Arc<Owner>,
        session: Uid,
        evicted: &[String],
        now: Timestamp,
    ) -> (Entry, oneshot::Receiver<Ended>) {
        let (end, ended) = oneshot::channel();
        let last_seen = Arc::new(AtomicI64::new(now.as_micros()));
        let mut sessions = self.sessions.lock();
        let of_device = sessions.entry(owner.device.uid).or_default();
        let mut stay = Vec::with_capacity(of_device.len() + 1);
        for mut connected in of_device.drain(..) {
            if connected.owner.client_id == owner.client_id {
                connected.end(Ended::TakenOver);
            } else if evicted.contains(&connected.owner.client_id) {
                connected.end(Ended::TooMany);
            } else {
                stay.push(connected);
            }
        }
        stay.push(Connected {
            session,
            owner: Arc::clone(&owner),
            end: Some(end),
            last_seen: Arc::clone(&last_seen),
        });
        *of_device = stay;
        (Entry { live: Arc::clone(self), owner, session, last_seen, told: false }, ended)
    }

    /// When a session was last heard of; none where it is not connected.
    pub(super) fn last_seen(&self, device: Uid, session: Uid) -> Option<Timestamp> {
        let sessions = self.sessions.lock();
        let connected = sessions.get(&device)?.iter().find(|connected| connected.session == session)?;
        Some(Timestamp::from_micros(connected.last_seen.load(Ordering::Relaxed)))
    }

    /// The sessions of a device.
    pub(super) fn of(&self, device: Uid) -> Vec<(Arc<Owner>, Uid)> {
        let sessions = self.sessions.lock();
        sessions.get(&device).into_iter().flatten().map(Connected::name).collect()
    }

    /// Every session.
    pub(super) fn all(&self) -> Vec<(Arc<Owner>, Uid)> {
        self.sessions.lock().values().flatten().map(Connected::name).collect()
    }

    /// Tells a session to end.
    pub(super) fn end(&self, device: Uid, session: Uid, why: Ended) {
        let mut sessions = self.sessions.lock();
        let of_device = sessions.get_mut(&device).into_iter().flatten();
        of_device.filter(|connected| connected.session == session).for_each(|connected| connected.end(why));
    }

    /// Those whose end the store must be told yet.
    pub(super) fn take_untold(&self) -> Vec<Left> {
        std::mem::take(&mut self.untold.lock())
    }

    pub(super) fn remain_untold(&self, left: Vec<Left>) {
        let mut untold = self.untold.lock();
        let room = UNTOLD_MAX.saturating_sub(untold.len());
        untold.extend(left.into_iter().take(room));
    }
}

impl Connected {
    fn name(&self) -> (Arc<Owner>, Uid) {
        (Arc::clone(&self.owner), self.session)
    }

    fn end(&mut self, why: Ended) {
        if let Some(end) = self.end.take() {
            let _ending = end.send(why); // fails where it is ending already
        }
    }
}

impl Entry {
    /// It was heard of.
    pub(super) fn seen(&self, now: Timestamp) {
        self.last_seen.store(now.as_micros(), Ordering::Relaxed);
    }

    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// As it is when its connection has gone.
    pub(super) fn left(&self) -> Left {
        let last_seen = Timestamp::from_micros(self.last_seen.load(Ordering::Relaxed));
        Left { owner: Arc::clone(&self.owner), session: self.session, last_seen, again: false }
    }

    /// Whether no other connection here took its place.
    pub(super) fn is_current(&self) -> bool {
        self.live.last_seen(self.owner.device.uid, self.session).is_some()
    }
}

impl Opening {
    /// Its record is written and its connection entered, or it certainly is not written.
    pub(super) fn settled(mut self) {
        self.left = None;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.live.remain_untold(self.left.take().into_iter().collect());
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let uid = self.owner.device.uid;
        let mut sessions = self.live.sessions.lock();
        if let Some(of_device) = sessions.get_mut(&uid) {
            of_device.retain(|connected| connected.session != self.session);
            if of_device.is_empty() {
                sessions.remove(&uid);
            }
        }
        drop(sessions);
        if !self.told {
            self.live.remain_untold(vec![self.left()]);
        }
    }
}
