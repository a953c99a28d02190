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
use weir_core::{Timestamp, Uid};

use super::Ended;

/// By device uid; at most as many for each as a device may have sessions. Empty after a restart: nothing is connected.
#[derive(Default)]
pub(super) struct Live {
    sessions: Mutex<HashMap<Uid, Vec<Connected>>>,
}

struct Connected {
    session: Uid,
    client_id: String,
    end: oneshot::Sender<Ended>,
    last_seen: Arc<AtomicI64>,
}

/// A connected session's entry, gone when dropped.
pub(super) struct Entry {
    live: Arc<Live>,
    device: Uid,
    session: Uid,
    last_seen: Arc<AtomicI64>,
}

impl Live {
    /// Enters a session; those of the same client, and of `evicted` clients, are told to end.
    pub(super) fn enter(
        self: &Arc<Self>,
        device: Uid,
        session: Uid,
        client_id: &str,
        evicted: &[String],
        now: Timestamp,
    ) -> (Entry, oneshot::Receiver<Ended>) {
        let (end, ended) = oneshot::channel();
        let last_seen = Arc::new(AtomicI64::new(now.as_micros()));
        let mut sessions = self.sessions.lock();
        let of_device = sessions.entry(device).or_default();
        let mut stay = Vec::with_capacity(of_device.len() + 1);
        for connected in of_device.drain(..) {
            if connected.client_id == client_id {
                let _ending = connected.end.send(Ended::TakenOver); // fails where it is ending already
            } else if evicted.contains(&connected.client_id) {
                let _ending = connected.end.send(Ended::TooMany);
            } else {
                stay.push(connected);
            }
        }
        let client_id = client_id.to_owned();
        stay.push(Connected { session, client_id, end, last_seen: Arc::clone(&last_seen) });
        *of_device = stay;
        (Entry { live: Arc::clone(self), device, session, last_seen }, ended)
    }

    /// When a session was last heard of; none where it is not connected.
    pub(super) fn last_seen(&self, device: Uid, session: Uid) -> Option<Timestamp> {
        let sessions = self.sessions.lock();
        let connected = sessions.get(&device)?.iter().find(|connected| connected.session == session)?;
        Some(Timestamp::from_micros(connected.last_seen.load(Ordering::Relaxed)))
    }
}

impl Entry {
    /// It was heard of.
    pub(super) fn seen(&self, now: Timestamp) {
        self.last_seen.store(now.as_micros(), Ordering::Relaxed);
    }

    /// When it was last heard of.
    pub(super) fn last_seen(&self) -> Timestamp {
        Timestamp::from_micros(self.last_seen.load(Ordering::Relaxed))
    }

    /// Whether no other connection took its place.
    pub(super) fn is_current(&self) -> bool {
        self.live.last_seen(self.device, self.session).is_some()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut sessions = self.live.sessions.lock();
        if let Some(of_device) = sessions.get_mut(&self.device) {
            of_device.retain(|connected| connected.session != self.session);
            if of_device.is_empty() {
                sessions.remove(&self.device);
            }
        }
    }
}
