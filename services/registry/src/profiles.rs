//! Device profiles. `default` is in no store: it is the same in every tenant and release.

use weir_core::{
    Error, ErrorKind, Result, TenantId, Timestamp,
    device::Profile,
    json,
    managed::ManagedBy,
    name,
    port::{Expect, Op, Signal, Write},
};

use crate::{
    Service,
    edit::{Mask, check_etag, fingerprint, repeats, retrying},
    store::{PROFILE_USES, PROFILES, ProfileRecord, TENANT, Versioned, key},
    validate,
};

/// The fields that an Update may change.
pub(crate) const FIELDS: [&str; 3] = ["metrics", "time", "gateway"];

fn default_profile() -> Versioned<ProfileRecord> {
    let since = Timestamp::from_micros(0);
    let profile = Profile::default();
    let value = ProfileRecord {
        profile,
        revision: 1,
        created_at: since,
        updated_at: since,
        deleting: false,
        managed_by: ManagedBy::default(),
        request: None,
    };
    Versioned { value, version: 0 }
}

fn require_mutable(tenant: &TenantId, id: &str) -> Result<()> {
    if id != Profile::DEFAULT_ID {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::FailedPrecondition,
        "PROFILE_IMMUTABLE",
        format!("{} accepts all and cannot be changed", name::child(tenant, "profiles", id)),
    ))
}

impl Service {
    pub(crate) async fn new_profile(
        &self,
        tenant: &TenantId,
        profile: Profile,
        by: &ManagedBy,
        request_id: &str,
        validate_only: bool,
    ) -> Result<Versioned<ProfileRecord>> {
        validate::request_id(request_id)?;
        let request = fingerprint(request_id, &profile, by)?;
        let now = self.clock.now();
        let exists = || Error::already_exists(name::child(tenant, "profiles", &profile.id));
        if profile.id == Profile::DEFAULT_ID {
            return Err(exists());
        }
        let key = key(PROFILES, &profile.id);
        let made = retrying(async || {
            let place = tenant.as_str().as_bytes();
            if let Some(found) = self.store.get::<ProfileRecord>(TENANT, place, &key).await? {
                if repeats(request, found.value.request, found.value.created_at, now) {
                    return Ok((found, false));
                }
                return Err(exists());
            }
            let value = ProfileRecord {
                profile: profile.clone(),
                revision: 1,
                created_at: now,
                updated_at: now,
                deleting: false,
                managed_by: by.clone(),
                request,
            };
            if validate_only {
                return Ok((Versioned { value, version: 0 }, false));
            }
            let write = Write::insert(key.clone(), json::to_bytes(&value)?);
            let version = self.store.commit(TENANT, place, vec![write]).await?;
            Ok((Versioned { value, version }, true))
        });
        let (made, new) = made.await?;
        if new {
            self.profile_changed(tenant, &profile.id).await;
        }
        Ok(made)
    }

    pub(crate) async fn get_profile(&self, tenant: &TenantId, id: &str) -> Result<Versioned<ProfileRecord>> {
        if id == Profile::DEFAULT_ID { Ok(default_profile()) } else { self.read_profile(tenant, id).await }
    }

    /// At most `limit` profiles in order of their ids, `default` among them.
    pub(crate) async fn list_profiles(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Versioned<ProfileRecord>>> {
        let mut page: Vec<Versioned<ProfileRecord>> =
            self.store.page(TENANT, tenant.as_str().as_bytes(), PROFILES, after, limit).await?;
        if after.is_none_or(|after| after < Profile::DEFAULT_ID) {
            let place = page.partition_point(|found| found.value.profile.id.as_str() < Profile::DEFAULT_ID);
            page.insert(place, default_profile());
            page.truncate(limit);
        }
        Ok(page)
    }

    pub(crate) async fn change_profile(
        &self,
        tenant: &TenantId,
        new: Profile,
        mask: &Mask,
        etag: &str,
        by: &ManagedBy,
    ) -> Result<Versioned<ProfileRecord>> {
        require_mutable(tenant, &new.id)?;
        let full_name = name::child(tenant, "profiles", &new.id);
        let changed = retrying(async || {
            let found = self.read_profile(tenant, &new.id).await?;
            check_etag(&full_name, etag, found.version)?;
            let mut value = found.value.clone();
            value.managed_by = value.managed_by.after_update(&full_name, by, mask.takes_over())?;
            if mask.has("metrics") {
                value.profile.metrics.clone_from(&new.metrics);
            }
            if mask.has("time") {
                value.profile.past = new.past;
                value.profile.future = new.future;
                value.profile.on_bad_time = new.on_bad_time;
            }
            if mask.has("gateway") {
                value.profile.gateway = new.gateway;
            }
            value.deleting = false;
            if value == found.value {
                return Ok((found, false)); // said again: nothing is new
            }
            value.revision += i64::from(value.profile != found.value.profile);
            value.updated_at = self.clock.now();
            let write = Write::replace(key(PROFILES, &new.id), found.version, json::to_bytes(&value)?);
            let version = self.store.commit(TENANT, tenant.as_str().as_bytes(), vec![write]).await?;
            Ok((Versioned { value, version }, true))
        });
        let (changed, is_new) = changed.await?;
        if is_new {
            self.profile_changed(tenant, &new.id).await;
        }
        Ok(changed)
    }

    /// Marks the profile first, so that no device takes it between the look for one that uses it and the end.
    pub(crate) async fn delete_profile(
        &self,
        tenant: &TenantId,
        id: &str,
        etag: &str,
        by: &ManagedBy,
    ) -> Result<()> {
        require_mutable(tenant, id)?;
        let (place, key) = (tenant.as_str().as_bytes(), key(PROFILES, id));
        let uses = format!("{PROFILE_USES}{id}/");
        let full_name = name::child(tenant, "profiles", id);
        let done = retrying(async || {
            let found = self.read_profile(tenant, id).await?;
            check_etag(&full_name, etag, found.version)?;
            found.value.managed_by.admits(&full_name, by)?;
            if self.store.any(TENANT, place, uses.as_bytes()).await? {
                if found.value.deleting {
                    // Left by one that ended between its mark and its end.
                    let unmarked = ProfileRecord { deleting: false, ..found.value };
                    let write = Write::replace(key.clone(), found.version, json::to_bytes(&unmarked)?);
                    self.store.commit(TENANT, place, vec![write]).await?;
                }
                return Ok(false);
            }
            let marked = ProfileRecord { deleting: true, ..found.value.clone() };
            let write = Write::replace(key.clone(), found.version, json::to_bytes(&marked)?);
            let version = self.store.commit(TENANT, place, vec![write]).await?;
            if self.store.any(TENANT, place, uses.as_bytes()).await? {
                let unmarked = ProfileRecord { deleting: false, ..found.value };
                let write = Write::replace(key.clone(), version, json::to_bytes(&unmarked)?);
                self.store.commit(TENANT, place, vec![write]).await?;
                return Ok(false);
            }
            let write = Write { key: key.clone(), expect: Expect::Version(version), op: Op::Delete };
            self.store.commit(TENANT, place, vec![write]).await?;
            Ok(true)
        });
        if !done.await? {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                "PROFILE_IN_USE",
                format!("{full_name} is used by devices; give them another profile first"),
            ));
        }
        self.profile_changed(tenant, id).await;
        Ok(())
    }

    async fn profile_changed(&self, tenant: &TenantId, id: &str) {
        let signal = Signal::ProfileChanged { tenant: tenant.clone(), profile: id.to_owned() };
        self.changed(signal).await;
    }
}
