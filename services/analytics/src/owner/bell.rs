//! Doorbells of owners: hints about what changed, so that they need not wait for a reading to see it.

use std::collections::HashSet;

use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::Notify;
use weir_core::{
    Partition, TenantId, Uid,
    port::{Signal, SignalStream},
};

/// Hints that one owner keeps apart; past it, it looks at everything.
const KEPT_MAX: usize = 1_000;

/// What an owner is told to look at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rung {
    /// Tenants whose rules or alarms changed.
    pub(super) tenants: HashSet<TenantId>,
    /// Devices that changed.
    pub(super) devices: HashSet<Uid>,
    /// Everything may have changed.
    pub(super) all: bool,
}

impl Rung {
    pub(super) fn is_empty(&self) -> bool {
        self.tenants.is_empty() && self.devices.is_empty() && !self.all
    }
}

#[derive(Debug, Default)]
struct Bell {
    rung: Mutex<Rung>,
    notify: Notify,
}

/// One for each partition.
#[derive(Debug)]
pub(crate) struct Bells(Vec<Bell>);

impl Bells {
    pub(crate) fn new(partitions: u16) -> Self {
        Self((0..partitions).map(|_| Bell::default()).collect())
    }

    /// Listens until the signals end.
    pub(crate) async fn listen(&self, mut signals: SignalStream) {
        while let Some(signal) = signals.next().await {
            match signal {
                Some(Signal::RulesChanged { tenant }) => {
                    self.ring_all(|rung| rung.tenants.extend([tenant.clone()]));
                }
                Some(Signal::DeviceChanged { uid, .. }) => {
                    let partition = Partition::of(uid, u16::try_from(self.0.len()).unwrap_or(u16::MAX));
                    if let Some(bell) = self.0.get(usize::from(partition.0)) {
                        bell.ring(|rung| rung.devices.extend([uid]));
                    }
                }
                Some(_) => {}
                None => self.ring_all(|rung| rung.all = true),
            }
        }
    }

    fn ring_all(&self, with: impl Fn(&mut Rung)) {
        self.0.iter().for_each(|bell| bell.ring(&with));
    }

    /// Returns when the bell has rung, at once where it did so before.
    pub(super) async fn wait(&self, partition: Partition) {
        match self.0.get(usize::from(partition.0)) {
            Some(bell) => bell.notify.notified().await,
            None => std::future::pending().await,
        }
    }

    /// What it has rung for since the last call.
    pub(super) fn take(&self, partition: Partition) -> Rung {
        let bell = self.0.get(usize::from(partition.0));
        bell.map(|bell| std::mem::take(&mut *bell.rung.lock())).unwrap_or_default()
    }
}

impl Bell {
    fn ring(&self, with: impl Fn(&mut Rung)) {
        let mut rung = self.rung.lock();
        with(&mut rung);
        if rung.tenants.len() + rung.devices.len() > KEPT_MAX {
            *rung = Rung { all: true, ..Rung::default() };
        }
        drop(rung);
        self.notify.notify_one();
    }
}
