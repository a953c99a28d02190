//! Tenants.

use serde::Serialize;
use weir_core::{
    Error, Result, TenantId, json,
    managed::ManagedBy,
    name,
    port::{Signal, Write},
};

use crate::{
    Service,
    edit::{Mask, check_etag, fingerprint, repeats, retrying},
    store::{ALL_TENANTS, TENANTS, Tenant, Versioned},
    validate,
};

/// What can be said of a tenant.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct TenantSpec {
    pub(crate) display_name: String,
    pub(crate) disabled: bool,
}

impl TenantSpec {
    /// The fields that an Update may change.
    pub(crate) const FIELDS: [&str; 2] = ["display_name", "disabled"];

    fn check(&self) -> Result<()> {
        validate::display_name("tenant.display_name", &self.display_name)
    }
}

impl Service {
    pub(crate) async fn new_tenant(
        &self,
        id: &TenantId,
        spec: TenantSpec,
        by: &ManagedBy,
        request_id: &str,
        validate_only: bool,
    ) -> Result<Versioned<Tenant>> {
        validate::request_id(request_id)?;
        spec.check()?;
        let request = fingerprint(request_id, &spec, by)?;
        let now = self.clock.now();
        let made = retrying(async || {
            if let Some(found) = self.find_tenant(id).await? {
                if repeats(request, found.value.request, found.value.created_at, now) {
                    return Ok((found, false));
                }
                return Err(Error::already_exists(name::tenant(id)));
            }
            let tenant = Tenant {
                id: id.clone(),
                display_name: spec.display_name.clone(),
                disabled: spec.disabled,
                created_at: now,
                updated_at: now,
                managed_by: by.clone(),
                request,
            };
            if validate_only {
                return Ok((Versioned { value: tenant, version: 0 }, false));
            }
            let write = Write::insert(id.as_str().to_owned(), json::to_bytes(&tenant)?);
            let version = self.store.commit(TENANTS, ALL_TENANTS, vec![write]).await?;
            Ok((Versioned { value: tenant, version }, true))
        });
        let (tenant, new) = made.await?;
        if new {
            self.changed(Signal::TenantChanged { tenant: id.clone() }).await;
        }
        Ok(tenant)
    }

    async fn find_tenant(&self, id: &TenantId) -> Result<Option<Versioned<Tenant>>> {
        self.store.get(TENANTS, ALL_TENANTS, id.as_str().as_bytes()).await
    }

    pub(crate) async fn read_tenant(&self, id: &TenantId) -> Result<Versioned<Tenant>> {
        self.find_tenant(id).await?.ok_or_else(|| Error::not_found(name::tenant(id)))
    }

    pub(crate) async fn list_tenants(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Versioned<Tenant>>> {
        self.store.page(TENANTS, ALL_TENANTS, "", after, limit).await
    }

    pub(crate) async fn change_tenant(
        &self,
        id: &TenantId,
        spec: TenantSpec,
        mask: &Mask,
        etag: &str,
        by: &ManagedBy,
    ) -> Result<Versioned<Tenant>> {
        spec.check()?;
        let changed = retrying(async || {
            let found = self.read_tenant(id).await?;
            check_etag(&name::tenant(id), etag, found.version)?;
            let mut tenant = found.value;
            tenant.managed_by = tenant.managed_by.after_update(&name::tenant(id), by, mask.takes_over())?;
            if mask.has("display_name") {
                tenant.display_name.clone_from(&spec.display_name);
            }
            if mask.has("disabled") {
                tenant.disabled = spec.disabled;
            }
            tenant.updated_at = self.clock.now();
            let write = Write::replace(id.as_str().to_owned(), found.version, json::to_bytes(&tenant)?);
            let version = self.store.commit(TENANTS, ALL_TENANTS, vec![write]).await?;
            Ok(Versioned { value: tenant, version })
        });
        let changed = changed.await?;
        self.changed(Signal::TenantChanged { tenant: id.clone() }).await;
        Ok(changed)
    }
}
