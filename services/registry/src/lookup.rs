//! The call port that every other service asks.

use std::sync::Arc;

use async_trait::async_trait;
use weir_core::{
    DeviceId, Error, Result, TenantId,
    device::{Device, Profile},
    name,
    port::Registry,
    principal::Principal,
    selector::Selector,
};

use crate::{
    Service,
    service::SELECTED_MAX,
    store::{DEVICES, DeviceRecord, PROFILES, ProfileRecord, TENANT, Versioned, key},
};

/// Records read at once while selecting: bounds memory, whatever the size of the tenant.
const SCAN_PAGE: usize = 1_000;

#[async_trait]
impl Registry for Service {
    async fn authenticate(&self, token: &str) -> Result<Principal> {
        self.identify(token).await
    }

    async fn device(&self, tenant: &TenantId, device: &DeviceId) -> Result<Arc<Device>> {
        let now = self.clock.now();
        let cache_key = (tenant.clone(), device.clone());
        if let Some(found) = self.devices.get(&cache_key, now) {
            self.metrics.looked_up("cache");
            return Ok(found);
        }
        self.metrics.looked_up("store");
        let ticket = self.devices.ticket(&cache_key, now);
        let found = Arc::new(self.read_device(tenant, device).await?.value.device);
        self.devices.put(ticket, cache_key, Arc::clone(&found));
        Ok(found)
    }

    async fn profile(&self, tenant: &TenantId, profile: &str) -> Result<Arc<Profile>> {
        if profile == Profile::DEFAULT_ID {
            return Ok(Arc::new(Profile::default()));
        }
        let now = self.clock.now();
        let cache_key = (tenant.clone(), profile.to_owned());
        if let Some(found) = self.profiles.get(&cache_key, now) {
            self.metrics.looked_up("cache");
            return Ok(found);
        }
        self.metrics.looked_up("store");
        let ticket = self.profiles.ticket(&cache_key, now);
        let found = Arc::new(self.read_profile(tenant, profile).await?.value.profile);
        self.profiles.put(ticket, cache_key, Arc::clone(&found));
        Ok(found)
    }

    async fn select(
        &self,
        tenant: &TenantId,
        selector: &Selector,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<Arc<Device>>> {
        let now = self.clock.now();
        let cache_key = (tenant.clone(), selector.to_string(), after.cloned(), limit);
        if let Some(found) = self.selections.get(&cache_key, now) {
            self.metrics.looked_up("cache");
            return Ok(found.to_vec());
        }
        self.metrics.looked_up("store");
        let ticket = self.selections.ticket(&cache_key, now);
        let found = self.scan_devices(tenant, selector, after, limit).await?;
        if found.len() <= SELECTED_MAX {
            self.selections.put(ticket, cache_key, found.clone().into());
        }
        Ok(found)
    }
}

impl Service {
    pub(crate) async fn read_device(
        &self,
        tenant: &TenantId,
        device: &DeviceId,
    ) -> Result<Versioned<DeviceRecord>> {
        let found = self.find_device(tenant, device).await?;
        found.ok_or_else(|| Error::not_found(name::device(tenant, device)))
    }

    pub(crate) async fn find_device(
        &self,
        tenant: &TenantId,
        device: &DeviceId,
    ) -> Result<Option<Versioned<DeviceRecord>>> {
        self.store.get(TENANT, tenant.as_str().as_bytes(), &key(DEVICES, device.as_str())).await
    }

    pub(crate) async fn read_profile(
        &self,
        tenant: &TenantId,
        profile: &str,
    ) -> Result<Versioned<ProfileRecord>> {
        let found = self.store.get(TENANT, tenant.as_str().as_bytes(), &key(PROFILES, profile)).await?;
        found.ok_or_else(|| Error::not_found(name::child(tenant, "profiles", profile)))
    }

    async fn scan_devices(
        &self,
        tenant: &TenantId,
        selector: &Selector,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<Arc<Device>>> {
        let mut found = Vec::new();
        let mut after = after.cloned();
        while found.len() < limit {
            let page: Vec<Versioned<DeviceRecord>> = self
                .store
                .page(
                    TENANT,
                    tenant.as_str().as_bytes(),
                    DEVICES,
                    after.as_ref().map(DeviceId::as_str),
                    SCAN_PAGE,
                )
                .await?;
            let (read, last) = (page.len(), page.last().map(|last| last.value.device.id.clone()));
            let matching = page.into_iter().map(|record| record.value.device);
            let room = limit - found.len();
            found.extend(matching.filter(|device| selector.matches(&device.labels)).take(room).map(Arc::new));
            if read < SCAN_PAGE {
                break;
            }
            after = last;
        }
        Ok(found)
    }
}
