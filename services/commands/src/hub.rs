//! Tells those who wait inside this process that a command has changed, here or on another replica: all of them tell by
//! signals, and this hears them. Only where to look is told: whoever hears it reads the store.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::broadcast;
use weir_core::{TenantId, Uid, command::DeviceKey};

/// What is told: a change, or that some may be missing.
pub(crate) type Heard = Option<Change>;

/// A change of a command, or its arrival.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) to: DeviceKey,
    pub(crate) id: Uid,
}

/// Changes that a listener may be behind; one that falls further behind is told so. About 100 bytes each, so half a MiB
/// for everybody's changes and for those of each tenant that somebody listens to.
const BEHIND_MAX: usize = 4_096;

/// Where changes are told.
pub(crate) struct Hub {
    all: broadcast::Sender<Heard>,
    /// Apart, so that no tenant's burst puts another's listeners behind. Only tenants that somebody listens to, or did
    /// until the last one began.
    of_tenant: Mutex<HashMap<TenantId, broadcast::Sender<Heard>>>,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self { all: broadcast::Sender::new(BEHIND_MAX), of_tenant: Mutex::default() }
    }

    pub(crate) fn tell(&self, change: Change) {
        if let Some(listeners) = self.of_tenant.lock().get(&change.to.tenant) {
            let _ = listeners.send(Some(change.clone())); // the last one has gone
        }
        let _ = self.all.send(Some(change)); // nobody listens
    }

    /// Changes may be missing: everybody looks.
    pub(crate) fn tell_gap(&self) {
        for listeners in self.of_tenant.lock().values() {
            let _ = listeners.send(None);
        }
        let _ = self.all.send(None);
    }

    /// Every tenant's changes: for whoever looks at the store as well when it is behind.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Heard> {
        self.all.subscribe()
    }

    /// A tenant's changes.
    pub(crate) fn listen_to(&self, tenant: &TenantId) -> broadcast::Receiver<Heard> {
        let mut of_tenant = self.of_tenant.lock();
        of_tenant.retain(|_, listeners| listeners.receiver_count() > 0);
        let listeners = of_tenant.entry(tenant.clone()).or_insert_with(|| broadcast::Sender::new(BEHIND_MAX));
        listeners.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::TryRecvError;
    use weir_core::DeviceId;

    use super::*;

    fn change(tenant: &str, id: u128) -> Change {
        let (tenant, device) = (TenantId::new(tenant).unwrap(), DeviceId::new("device-1").unwrap());
        let to = DeviceKey { tenant, device, uid: Uid::from_u128(1) };
        Change { to, id: Uid::from_u128(id) }
    }

    #[test]
    fn a_burst_of_one_tenant_puts_only_its_own_listeners_behind() {
        let hub = Hub::new();
        let [mut quiet, mut busy] =
            ["quiet", "busy"].map(|tenant| hub.listen_to(&TenantId::new(tenant).unwrap()));
        hub.tell(change("quiet", 1));
        for n in 0..=BEHIND_MAX {
            hub.tell(change("busy", n as u128));
        }
        hub.tell(change("quiet", 2));
        assert_eq!(busy.try_recv().unwrap_err(), TryRecvError::Lagged(1));
        assert_eq!([1, 2].map(|_| quiet.try_recv().unwrap().unwrap().id), [1, 2].map(Uid::from_u128));
        assert_eq!(quiet.try_recv().unwrap_err(), TryRecvError::Empty);
    }

    #[test]
    fn a_tenant_that_nobody_listens_to_is_forgotten() {
        let hub = Hub::new();
        for n in 0..100 {
            hub.listen_to(&TenantId::new(format!("tenant-{n}")).unwrap());
        }
        assert_eq!(hub.of_tenant.lock().len(), 1);
    }
}
