//! Commands on their way: sent here, and not yet seen in the store. They count as pending, so that a burst of Sends cannot
//! pass the bound on a device's pending commands before the first of them is copied.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use weir_core::Uid;

/// By then a command was copied, or the owner of its partition is another process; the store counts alone.
const FORGET_AFTER: Duration = Duration::from_secs(10);

/// By device uid, in the order of the Sends. Entries go when the command is copied, its Send fails, or after 10 s: there
/// are as many as Sends in that time.
#[derive(Default)]
pub(crate) struct Backlog(Mutex<HashMap<Uid, Vec<(Uid, Instant)>>>);

impl Backlog {
    /// Notes a command and gives those on their way before it.
    pub(crate) fn enter(&self, device: Uid, command: Uid) -> Vec<Uid> {
        let now = Instant::now();
        let mut devices = self.0.lock();
        let commands = devices.entry(device).or_default();
        commands.retain(|(id, since)| *id != command && now.duration_since(*since) < FORGET_AFTER);
        let before = commands.iter().map(|(id, _)| *id).collect();
        commands.push((command, now));
        before
    }

    /// Whether a command is on its way.
    pub(crate) fn has(&self, device: Uid, command: Uid) -> bool {
        let devices = self.0.lock();
        devices.get(&device).is_some_and(|commands| {
            commands.iter().any(|(id, since)| *id == command && since.elapsed() < FORGET_AFTER)
        })
    }

    /// Forgets a command: the store has it, or its Send failed.
    pub(crate) fn leave(&self, device: Uid, command: Uid) {
        let mut devices = self.0.lock();
        if let Some(commands) = devices.get_mut(&device) {
            commands.retain(|(id, _)| *id != command);
            if commands.is_empty() {
                devices.remove(&device);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_on_its_way_counts_for_those_after_it_until_it_leaves() {
        let (device, id) = (Uid::from_u128(1), Uid::from_u128);
        let backlog = Backlog::default();
        assert_eq!(backlog.enter(device, id(10)), []);
        assert_eq!(backlog.enter(device, id(11)), [id(10)]);
        assert_eq!(backlog.enter(device, id(10)), [id(11)], "a repeated send does not count itself");
        backlog.leave(device, id(10));
        backlog.leave(device, id(11));
        assert!(backlog.0.lock().is_empty());
    }
}
