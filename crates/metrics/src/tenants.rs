//! Tenants as a label: a bounded number of them.

use std::collections::HashSet;

use parking_lot::RwLock;
use weir_core::TenantId;

/// Who came after the first ones.
const OTHER: &str = "other";
/// Tenants that have series of their own; each is a handful of them, and a process should stay under 2,000 in all.
const MAX: usize = 100;

/// The tenants of one component that are told by name: the first 100 that it met. All others share one label, so that a
/// platform with many tenants, or somebody who makes them, costs no more.
#[derive(Default)]
pub struct Tenants(RwLock<HashSet<TenantId>>);

impl Tenants {
    /// What a tenant is called in a label: its id, or `other`.
    pub fn label<'a>(&self, tenant: &'a TenantId) -> &'a str {
        if self.0.read().contains(tenant) {
            return tenant.as_str();
        }
        let mut known = self.0.write();
        if known.contains(tenant) || (known.len() < MAX && known.insert(tenant.clone())) {
            tenant.as_str()
        } else {
            OTHER
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_hundred_have_a_name_and_keep_it() {
        let tenants = Tenants::default();
        let tenant = |n: usize| TenantId::new(format!("t{n}")).unwrap();
        for n in 0..MAX + 50 {
            let id = tenant(n);
            assert_eq!(tenants.label(&id), if n < MAX { id.as_str() } else { OTHER });
        }
        assert_eq!(tenants.label(&tenant(0)), "t0");
        assert_eq!(tenants.label(&tenant(MAX)), OTHER);
    }
}
