//! Compiled rules, shared by every partition of this process: so that each is checked once, and its counters count all
//! of its evaluations here.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use weir_core::{Result, TenantId, Uid};
use weir_rules::{Compiled, Tally};

use crate::rules::Store;

/// Tenants whose rules are kept compiled; past it all are read anew, which only costs time.
const TENANTS_MAX: usize = 10_000;
/// Dead entries that may gather before they are swept out.
const SWEEP: usize = 4_096;

/// The rules of a tenant as they are now.
#[derive(Debug, Clone)]
pub(crate) struct Current {
    /// Changes with each change of any of them; 0 where the tenant never had one.
    pub(crate) version: u64,
    pub(crate) rules: Arc<[Arc<Compiled>]>,
}

/// Compiled rules.
pub(crate) struct Catalog {
    store: Store,
    tenants: Mutex<HashMap<TenantId, Current>>,
    compiled: Mutex<HashMap<(Uid, u64), Weak<Compiled>>>,
    tally: Arc<Tally>,
}

impl Catalog {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, tenants: Mutex::default(), compiled: Mutex::default(), tally: Arc::default() }
    }

    /// What its rules were evaluated, all together.
    pub(crate) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// The rules of a tenant as they are stored at this moment: whoever created a rule before a reading was published has
    /// that reading seen by it.
    pub(crate) async fn current(&self, tenant: &TenantId) -> Result<Current> {
        loop {
            let version = self.store.version(tenant).await?;
            if let Some(known) = self.tenants.lock().get(tenant).filter(|known| known.version == version) {
                return Ok(known.clone());
            }
            let mut rules = Vec::new();
            for stored in self.store.all(tenant).await? {
                rules.extend(self.compile(&stored.rule));
            }
            // What was read while somebody wrote is of no version.
            if self.store.version(tenant).await? == version {
                let current = Current { version, rules: rules.into() };
                let mut tenants = self.tenants.lock();
                if tenants.len() >= TENANTS_MAX {
                    tenants.clear();
                }
                tenants.insert(tenant.clone(), current.clone());
                return Ok(current);
            }
        }
    }

    /// A rule at one of its revisions; none where it is not kept, or this release cannot read it.
    pub(crate) async fn revision(
        &self,
        tenant: &TenantId,
        uid: Uid,
        revision: u64,
    ) -> Result<Option<Arc<Compiled>>> {
        if let Some(known) = self.known(uid, revision) {
            return Ok(Some(known));
        }
        let stored = self.store.revision(tenant, uid, revision).await?;
        if stored.is_none() {
            tracing::error!(%tenant, rule = %uid, revision, "a revision of a rule is not kept any more; it is passed over");
        }
        Ok(stored.and_then(|rule| self.compile(&rule)))
    }

    /// A compiled rule that something in this process uses.
    pub(crate) fn known(&self, uid: Uid, revision: u64) -> Option<Arc<Compiled>> {
        self.compiled.lock().get(&(uid, revision)).and_then(Weak::upgrade)
    }

    fn compile(&self, rule: &weir_rules::Rule) -> Option<Arc<Compiled>> {
        if let Some(known) = self.known(rule.uid, rule.revision) {
            return Some(known);
        }
        match Compiled::new(rule, None) {
            Ok(compiled) => {
                let compiled = Arc::new(compiled.counted_in(Arc::clone(&self.tally)));
                let mut known = self.compiled.lock();
                if known.len() >= SWEEP && known.len().is_power_of_two() {
                    known.retain(|_, compiled| compiled.strong_count() > 0);
                }
                known.insert((rule.uid, rule.revision), Arc::downgrade(&compiled));
                Some(compiled)
            }
            Err(problems) => {
                tracing::error!(rule = %rule.id, revision = rule.revision, %problems, "a stored rule does not pass its checks any more; it is passed over");
                None
            }
        }
    }
}
