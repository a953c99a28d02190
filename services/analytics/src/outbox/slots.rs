//! How many tries are under way at once: of webhooks, of one tenant's webhooks, and of commands, each by itself.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weir_core::TenantId;

use super::{Job, Row};

/// One tenant has at most this part of the webhook slots: fewer tenants with dead endpoints than this delay nobody else.
const TENANT_SHARE: usize = 4;
/// Tenants that may gather before those that want nothing are swept out.
const SWEEP: usize = 1_024;

/// The places of tries that are under way.
pub(super) struct Slots {
    commands: Arc<Semaphore>,
    webhooks: Arc<Semaphore>,
    per_tenant: usize,
    tenants: Mutex<HashMap<TenantId, Weak<Semaphore>>>,
}

/// A place, until it is dropped.
pub(super) struct Slot {
    _of_all: OwnedSemaphorePermit,
    _of_tenant: Option<OwnedSemaphorePermit>,
}

impl Slots {
    /// `concurrency` for webhooks, and as many for commands, which take milliseconds and not a receiver's time-out.
    pub(super) fn new(concurrency: usize) -> Self {
        Self {
            commands: Arc::new(Semaphore::new(concurrency)),
            webhooks: Arc::new(Semaphore::new(concurrency)),
            per_tenant: (concurrency / TENANT_SHARE).max(1),
            tenants: Mutex::default(),
        }
    }

    /// How many tries are under way, by kind, whenever it is called.
    pub(super) fn running(&self) -> impl Fn() -> Vec<(String, f64)> + Send + Sync + 'static {
        let kinds = [("command", Arc::clone(&self.commands)), ("webhook", Arc::clone(&self.webhooks))];
        let kinds = kinds.map(|(kind, slots)| (kind, slots.available_permits(), slots));
        move || {
            let used = |max: usize, slots: &Semaphore| max.saturating_sub(slots.available_permits()) as f64;
            kinds.iter().map(|(kind, max, slots)| ((*kind).to_owned(), used(*max, slots))).collect()
        }
    }

    /// Waits for a place for a try of `row`; none where there never will be one.
    pub(super) async fn acquire(&self, row: &Row) -> Option<Slot> {
        let (all, of_tenant) = match row.job {
            Job::Command { .. } => (&self.commands, None),
            // The tenant's first: whoever waits for it must not hold one that others could use.
            Job::Webhook { .. } => {
                let tenant = self.tenant(&row.device.tenant);
                (&self.webhooks, Some(tenant.acquire_owned().await.ok()?))
            }
        };
        let of_all = Arc::clone(all).acquire_owned().await.ok()?;
        Some(Slot { _of_all: of_all, _of_tenant: of_tenant })
    }

    /// A tenant's webhook slots, there as long as somebody holds one or waits for one.
    fn tenant(&self, tenant: &TenantId) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock();
        if let Some(known) = tenants.get(tenant).and_then(Weak::upgrade) {
            return known;
        }
        if tenants.len() >= SWEEP {
            tenants.retain(|_, known| known.strong_count() > 0);
        }
        let new = Arc::new(Semaphore::new(self.per_tenant));
        tenants.insert(tenant.clone(), Arc::downgrade(&new));
        new
    }
}
