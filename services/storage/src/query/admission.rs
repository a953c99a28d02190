//! How much a tenant may ask at once.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use weir_core::{Error, ErrorKind, Result, TenantId};

/// When to try again: queries end, but not in the next moment.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Counts what runs, by tenant.
pub(crate) struct Admission {
    what: &'static str,
    limit: usize,
    running: Mutex<HashMap<TenantId, usize>>,
    refused: AtomicU64,
}

impl Admission {
    /// At most `limit` of `what` for each tenant.
    pub(crate) fn new(what: &'static str, limit: usize) -> Arc<Self> {
        Arc::new(Self { what, limit, running: Mutex::default(), refused: AtomicU64::new(0) })
    }

    /// How many run, of all tenants.
    pub(crate) fn running(&self) -> usize {
        self.running.lock().values().sum()
    }

    /// How many were refused so far.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Lets one more in, until the permit is dropped.
    ///
    /// # Errors
    /// `ResourceExhausted` (`TOO_MANY_AT_ONCE`) at the limit.
    pub(crate) fn enter(self: &Arc<Self>, tenant: &TenantId) -> Result<Permit> {
        let mut running = self.running.lock();
        let count = running.entry(tenant.clone()).or_default();
        if *count >= self.limit {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Error::new(
                ErrorKind::ResourceExhausted,
                "TOO_MANY_AT_ONCE",
                format!("tenants/{tenant} has {count} {} under way, the limit is {}", self.what, self.limit),
            )
            .with_limit(self.limit)
            .with_retry_after(RETRY_AFTER));
        }
        *count += 1;
        Ok(Permit { admission: Arc::clone(self), tenant: tenant.clone() })
    }
}

/// The right to run; ends when dropped.
pub(crate) struct Permit {
    admission: Arc<Admission>,
    tenant: TenantId,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut running = self.admission.running.lock();
        if let Some(count) = running.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_at_its_limit_waits_and_another_does_not() {
        let admission = Admission::new("queries", 2);
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let first = admission.enter(&a).unwrap();
        let _second = admission.enter(&a).unwrap();
        let error = admission.enter(&a).err().unwrap();
        assert_eq!((error.reason(), error.limit()), ("TOO_MANY_AT_ONCE", Some("2")));
        assert!(admission.enter(&b).is_ok());
        drop(first);
        assert!(admission.enter(&a).is_ok());
        drop(_second);
        assert!(admission.running.lock().is_empty(), "an idle tenant is not remembered");
    }
}
