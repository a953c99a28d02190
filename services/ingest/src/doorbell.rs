//! Tells a connection that its device has a command waiting.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;
use weir_core::Uid;

/// The bells of the devices that are connected here: at most one for each connection.
#[derive(Default)]
pub(crate) struct Doorbells {
    bells: Mutex<HashMap<Uid, Vec<Arc<Notify>>>>,
}

/// One connection's bell, taken down when dropped.
pub(crate) struct Doorbell {
    uid: Uid,
    bell: Arc<Notify>,
    bells: Arc<Doorbells>,
}

impl Doorbells {
    /// Puts up a bell for a device.
    pub(crate) fn put_up(self: &Arc<Self>, uid: Uid) -> Doorbell {
        let bell = Arc::new(Notify::new());
        self.bells.lock().entry(uid).or_default().push(Arc::clone(&bell));
        Doorbell { uid, bell, bells: Arc::clone(self) }
    }

    /// Rings the bells of a device.
    pub(crate) fn ring(&self, uid: Uid) {
        if let Some(bells) = self.bells.lock().get(&uid) {
            bells.iter().for_each(|bell| bell.notify_one());
        }
    }

    /// Rings every bell: hints may have been lost.
    pub(crate) fn ring_all(&self) {
        self.bells.lock().values().flatten().for_each(|bell| bell.notify_one());
    }
}

impl Doorbell {
    /// Returns when it was rung since the last call. It may ring for nothing, and a hint may be lost: ask the queue
    /// every 30 s besides.
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        let mut bells = self.bells.bells.lock();
        if let Some(of_device) = bells.get_mut(&self.uid) {
            of_device.retain(|bell| !Arc::ptr_eq(bell, &self.bell));
            if of_device.is_empty() {
                bells.remove(&self.uid);
            }
        }
    }
}
