//! Tells a connection that its device has a command waiting.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use weir_core::Uid;

/// The bells of the devices that are connected here: at most one for each connection and device.
#[derive(Default)]
pub(crate) struct Doorbells {
    doors: Mutex<HashMap<Uid, Vec<Door>>>,
}

/// Rings in one connection, which may have put it up at the doors of many devices (a gateway).
#[derive(Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    waker: AtomicWaker,
}

struct Door {
    /// A poll's is none: it takes commands while it lasts, and its end says nothing about who is the newest.
    session: bool,
    pressed: Arc<AtomicBool>,
    bell: Arc<Bell>,
}

/// One connection's bell at one device, taken down when dropped.
pub(crate) struct Doorbell {
    uid: Uid,
    pressed: Arc<AtomicBool>,
    bell: Arc<Bell>,
    doors: Arc<Doorbells>,
}

impl Door {
    fn ring(&self) {
        self.pressed.store(true, Ordering::Release);
        self.bell.rung.store(true, Ordering::Release);
        self.bell.waker.wake();
    }
}

impl Bell {
    /// Returns when it was rung at any door since the last call. Only one task may wait for a bell.
    pub(crate) async fn rung(&self) {
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            if self.rung.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Doorbells {
    /// Puts up a bell for a device.
    pub(crate) fn put_up(self: &Arc<Self>, uid: Uid) -> Doorbell {
        self.put_up_at(uid, &Arc::default())
    }

    /// Puts up the bell of a poll, beside those of the device's sessions.
    pub(crate) fn put_up_beside(self: &Arc<Self>, uid: Uid) -> Doorbell {
        self.put_up_as(uid, &Arc::default(), false)
    }

    /// Puts up a bell that hangs at other doors too.
    pub(crate) fn put_up_at(self: &Arc<Self>, uid: Uid, bell: &Arc<Bell>) -> Doorbell {
        self.put_up_as(uid, bell, true)
    }

    fn put_up_as(self: &Arc<Self>, uid: Uid, bell: &Arc<Bell>, session: bool) -> Doorbell {
        let pressed = Arc::<AtomicBool>::default();
        let door = Door { session, pressed: Arc::clone(&pressed), bell: Arc::clone(bell) };
        self.doors.lock().entry(uid).or_default().push(door);
        Doorbell { uid, pressed, bell: Arc::clone(bell), doors: Arc::clone(self) }
    }

    /// Rings the bells of a device.
    pub(crate) fn ring(&self, uid: Uid) {
        if let Some(doors) = self.doors.lock().get(&uid) {
            doors.iter().for_each(Door::ring);
        }
    }

    /// Rings every bell: hints may have been lost.
    pub(crate) fn ring_all(&self) {
        self.doors.lock().values().flatten().for_each(Door::ring);
    }
}

impl Doorbell {
    /// Returns when it was rung since the last call. It may ring for nothing, and a hint may be lost: ask the queue
    /// every 30 s besides.
    pub(crate) async fn rung(&self) {
        self.bell.rung().await;
    }

    /// Whether it was rung at this device since the last call.
    pub(crate) fn was_pressed(&self) -> bool {
        self.pressed.swap(false, Ordering::AcqRel)
    }

    /// Whether no newer session of the device is connected here; there may be one at another replica.
    pub(crate) fn is_newest(&self) -> bool {
        let doors = self.doors.doors.lock();
        doors.get(&self.uid).and_then(|doors| newest(doors)).is_some_and(|door| self.is(door))
    }

    fn is(&self, door: &Door) -> bool {
        Arc::ptr_eq(&door.pressed, &self.pressed)
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        let mut doors = self.doors.doors.lock();
        let Some(of_device) = doors.get_mut(&self.uid) else { return };
        let was_newest = newest(of_device).is_some_and(|door| self.is(door));
        of_device.retain(|door| !self.is(door));
        if let Some(next) = newest(of_device).filter(|_| was_newest) {
            next.ring(); // whether the commands are its own now, the queue knows
        }
        if of_device.is_empty() {
            doors.remove(&self.uid);
        }
    }
}

/// The door of the newest session.
fn newest(doors: &[Door]) -> Option<&Door> {
    doors.iter().rfind(|door| door.session)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn one_bell_at_two_doors_tells_which_was_pressed() {
        let (doorbells, bell) = (Arc::<Doorbells>::default(), Arc::<Bell>::default());
        let first = doorbells.put_up_at(Uid::from_u128(1), &bell);
        let second = doorbells.put_up_at(Uid::from_u128(2), &bell);
        doorbells.ring(Uid::from_u128(2));
        assert!(bell.rung().now_or_never().is_some());
        assert_eq!((first.was_pressed(), second.was_pressed()), (false, true));
        assert!(bell.rung().now_or_never().is_none() && !second.was_pressed());
    }

    #[test]
    fn when_the_newest_connection_goes_the_one_before_it_is_told() {
        let doorbells = Arc::<Doorbells>::default();
        let uid = Uid::from_u128(1);
        let (oldest, older, newest) = (doorbells.put_up(uid), doorbells.put_up(uid), doorbells.put_up(uid));
        let poll = doorbells.put_up_beside(uid);
        drop(newest);
        assert!(older.rung().now_or_never().is_some() && older.is_newest());
        drop((oldest, poll));
        assert!(older.is_newest() && older.rung().now_or_never().is_none(), "it was the newest already");
    }
}
