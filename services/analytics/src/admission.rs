//! How many streams a tenant may have open.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use weir_core::{Error, ErrorKind, Result, TenantId};

/// Counts what each tenant has open.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    what: &'static str,
    max: u32,
    open: Arc<Mutex<HashMap<TenantId, u32>>>,
}

/// One that is open; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    tenant: TenantId,
    open: Arc<Mutex<HashMap<TenantId, u32>>>,
}

impl Admission {
    pub(crate) fn new(what: &'static str, max: u32) -> Self {
        Self { what, max, open: Arc::default() }
    }

    /// Opens one.
    ///
    /// # Errors
    /// `ResourceExhausted` where the tenant has as many as it may.
    pub(crate) fn enter(&self, tenant: &TenantId) -> Result<Permit> {
        let mut open = self.open.lock();
        let count = open.entry(tenant.clone()).or_default();
        if *count >= self.max {
            let text = format!(
                "tenants/{tenant} has {} {} open, which is the most that it may",
                self.max, self.what
            );
            return Err(Error::new(ErrorKind::ResourceExhausted, "STREAMS_MAX", text).with_limit(self.max));
        }
        *count += 1;
        Ok(Permit { tenant: tenant.clone(), open: Arc::clone(&self.open) })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&self.tenant) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.tenant);
            }
        }
    }
}
