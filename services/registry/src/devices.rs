//! Devices.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_core::{
    DeviceId, Error, Result, TenantId, Timestamp, Uid,
    device::{Device, Profile},
    json,
    managed::ManagedBy,
    name,
    port::{Expect, Op, Signal, Write},
    selector::{Labels, Selector},
};

use crate::{
    Service,
    edit::{Mask, check_etag, fingerprint, repeats, retrying},
    store::{
        CREDENTIALS, DEVICE_CREDENTIALS, DEVICES, DeviceRecord, HOLDER, PROFILES, TENANT, Versioned, key,
        use_key,
    },
    validate,
};

/// Records that one page of a list reads at most, whatever its selector leaves out: some milliseconds.
const LIST_READS_MAX: usize = 10_000;

/// What can be said of a device.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DeviceSpec {
    pub(crate) profile: String,
    pub(crate) labels: Labels,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) disabled: bool,
    pub(crate) gateway: bool,
}

impl DeviceSpec {
    /// The fields that an Update may change.
    pub(crate) const FIELDS: [&str; 5] = ["profile", "labels", "attributes", "disabled", "gateway"];

    fn check(&self) -> Result<()> {
        validate::labels("device.labels", &self.labels)?;
        validate::attributes("device.attributes", &self.attributes)
    }

    fn device(&self, tenant: &TenantId, id: &DeviceId, uid: Uid, now: Timestamp) -> Device {
        Device {
            tenant: tenant.clone(),
            id: id.clone(),
            uid,
            profile: self.profile.clone(),
            labels: self.labels.clone(),
            attributes: self.attributes.clone(),
            enabled: !self.disabled,
            gateway: self.gateway,
            created_at: now,
            updated_at: now,
        }
    }
}

/// A page of devices; `next` continues after it, also where the page is not full.
pub(crate) struct DevicePage {
    pub(crate) devices: Vec<Versioned<Device>>,
    pub(crate) next: Option<DeviceId>,
}

impl Service {
    pub(crate) async fn new_device(
        &self,
        tenant: &TenantId,
        id: &DeviceId,
        spec: DeviceSpec,
        request_id: &str,
        validate_only: bool,
    ) -> Result<Versioned<Device>> {
        validate::request_id(request_id)?;
        spec.check()?;
        let request = fingerprint(request_id, &spec, &ManagedBy::default())?;
        let now = self.clock.now();
        let made = retrying(async || {
            if let Some(found) = self.find_device(tenant, id).await? {
                let DeviceRecord { device, request: made_by } = found.value;
                if repeats(request, made_by, device.created_at, now) {
                    return Ok((Versioned { value: device, version: found.version }, false));
                }
                return Err(Error::already_exists(name::device(tenant, id)));
            }
            let uses = self.use_profile(tenant, &spec.profile, id).await?;
            let record = DeviceRecord { device: spec.device(tenant, id, Uid::random(), now), request };
            if validate_only {
                return Ok((Versioned { value: record.device, version: 0 }, false));
            }
            let mut writes = vec![Write::insert(key(DEVICES, id.as_str()), json::to_bytes(&record)?)];
            writes.extend(uses);
            let version = self.store.commit(TENANT, tenant.as_str().as_bytes(), writes).await?;
            Ok((Versioned { value: record.device, version }, true))
        });
        let (device, new) = made.await?;
        if new {
            self.device_changed(&device.value).await;
        }
        Ok(device)
    }

    /// The writes by which a device takes a profile: they fail where the profile goes meanwhile.
    async fn use_profile(&self, tenant: &TenantId, profile: &str, id: &DeviceId) -> Result<Vec<Write>> {
        if profile == Profile::DEFAULT_ID {
            return Ok(Vec::new());
        }
        let missing =
            || Error::not_found(name::child(tenant, "profiles", profile)).with_field("device.profile");
        let found =
            self.read_profile(tenant, profile).await.map_err(|error| error.with_field("device.profile"))?;
        if found.value.deleting {
            return Err(missing());
        }
        Ok(vec![
            Write::check(key(PROFILES, profile), Expect::Version(found.version)),
            Write::put(use_key(profile, id), ""),
        ])
    }

    pub(crate) async fn change_device(
        &self,
        tenant: &TenantId,
        id: &DeviceId,
        spec: DeviceSpec,
        mask: &Mask,
        etag: &str,
    ) -> Result<Versioned<Device>> {
        spec.check()?;
        let changed = retrying(async || {
            let found = self.read_device(tenant, id).await?;
            check_etag(&name::device(tenant, id), etag, found.version)?;
            let DeviceRecord { mut device, request } = found.value;
            let mut uses = Vec::new();
            if mask.has("profile") && spec.profile != device.profile {
                uses = self.use_profile(tenant, &spec.profile, id).await?;
                uses.push(Write::delete(use_key(&device.profile, id)));
            }
            apply(&mut device, &spec, mask);
            device.updated_at = self.clock.now();
            let record = DeviceRecord { device, request };
            let mut writes =
                vec![Write::replace(key(DEVICES, id.as_str()), found.version, json::to_bytes(&record)?)];
            writes.extend(uses);
            let version = self.store.commit(TENANT, tenant.as_str().as_bytes(), writes).await?;
            Ok(Versioned { value: record.device, version })
        });
        let changed = changed.await?;
        self.device_changed(&changed.value).await;
        Ok(changed)
    }

    /// Removes device, use of its profile and list of credentials together, then the credentials' secrets: without their
    /// device these open nothing, so a crash between does no harm.
    pub(crate) async fn delete_device(&self, tenant: &TenantId, id: &DeviceId, etag: &str) -> Result<()> {
        let removed = retrying(async || {
            let found = self.read_device(tenant, id).await?;
            check_etag(&name::device(tenant, id), etag, found.version)?;
            let (credentials, expect) = self.read_credentials(tenant, id).await?;
            let device = found.value.device;
            let writes = vec![
                Write {
                    key: key(DEVICES, id.as_str()),
                    expect: Expect::Version(found.version),
                    op: Op::Delete,
                },
                Write { key: key(DEVICE_CREDENTIALS, id.as_str()), expect, op: Op::Delete },
                Write::delete(use_key(&device.profile, id)),
            ];
            self.store.commit(TENANT, tenant.as_str().as_bytes(), writes).await?;
            Ok((device, credentials))
        });
        let (device, credentials) = removed.await?;
        self.device_changed(&device).await;
        for credential in credentials {
            self.store.commit(CREDENTIALS, credential.id.as_bytes(), vec![Write::delete(HOLDER)]).await?;
            let revoked = Signal::CredentialRevoked {
                tenant: tenant.clone(),
                uid: device.uid,
                credential: credential.id,
            };
            self.changed(revoked).await;
        }
        Ok(())
    }

    /// At most `limit` devices that match, in order of their ids, after `after`.
    pub(crate) async fn list_devices(
        &self,
        tenant: &TenantId,
        selector: &Selector,
        after: Option<String>,
        limit: usize,
    ) -> Result<DevicePage> {
        let mut devices = Vec::new();
        let (mut after, mut read) = (after, 0);
        loop {
            let page: Vec<Versioned<DeviceRecord>> =
                self.store.page(TENANT, tenant.as_str().as_bytes(), DEVICES, after.as_deref(), limit).await?;
            let end = page.len() < limit;
            read += page.len();
            for Versioned { value: DeviceRecord { device, .. }, version } in page {
                after = Some(device.id.as_str().to_owned());
                if selector.matches(&device.labels) {
                    let id = device.id.clone();
                    devices.push(Versioned { value: device, version });
                    if devices.len() == limit {
                        return Ok(DevicePage { devices, next: Some(id) });
                    }
                }
            }
            if end {
                return Ok(DevicePage { devices, next: None });
            }
            if read >= LIST_READS_MAX {
                let next = after.map(DeviceId::new).transpose()?;
                return Ok(DevicePage { devices, next });
            }
        }
    }

    async fn device_changed(&self, device: &Device) {
        let signal = Signal::DeviceChanged {
            tenant: device.tenant.clone(),
            device: device.id.clone(),
            uid: device.uid,
        };
        self.changed(signal).await;
    }
}

fn apply(device: &mut Device, spec: &DeviceSpec, mask: &Mask) {
    if mask.has("profile") {
        device.profile.clone_from(&spec.profile);
    }
    if mask.has("labels") {
        device.labels.clone_from(&spec.labels);
    }
    if mask.has("attributes") {
        device.attributes.clone_from(&spec.attributes);
    }
    if mask.has("disabled") {
        device.enabled = !spec.disabled;
    }
    if mask.has("gateway") {
        device.gateway = spec.gateway;
    }
}
