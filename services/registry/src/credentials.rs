//! Credentials of devices.

use weir_core::{
    DeviceId, Error, ErrorKind, Result, TenantId, Timestamp, json, name,
    port::{Expect, Op, Signal, Write},
};

use crate::{
    Service,
    edit::retrying,
    secret::{self, Kind},
    store::{
        CREDENTIALS, CredentialHolder, CredentialRecord, DEVICE_CREDENTIALS, DEVICES, HOLDER, TENANT,
        Versioned, key,
    },
};

/// Two while one is being replaced, and a few for its installers.
pub(crate) const PER_DEVICE_MAX: usize = 8;

impl Service {
    /// Makes a credential: what lists show of it, and its token.
    pub(crate) async fn issue_credential(
        &self,
        tenant: &TenantId,
        device: &DeviceId,
        expires_at: Option<Timestamp>,
    ) -> Result<(CredentialRecord, String)> {
        let (id, token) = secret::generate(Kind::Device)?;
        let record = CredentialRecord { id: id.clone(), created_at: self.clock.now(), expires_at };
        let uid = retrying(async || {
            let found = self.read_device(tenant, device).await?;
            let (mut all, expect) = self.read_credentials(tenant, device).await?;
            all.retain(|known| known.expires_at.is_none_or(|expires_at| expires_at > record.created_at));
            if all.len() >= PER_DEVICE_MAX {
                return Err(Error::new(
                    ErrorKind::ResourceExhausted,
                    "TOO_MANY_CREDENTIALS",
                    format!(
                        "{} has {} credentials, at most {PER_DEVICE_MAX} are allowed; revoke one first",
                        name::device(tenant, device),
                        all.len()
                    ),
                )
                .with_limit(PER_DEVICE_MAX));
            }
            all.push(record.clone());
            all.sort_by(|a, b| a.id.cmp(&b.id));
            let writes = vec![
                Write {
                    key: key(DEVICE_CREDENTIALS, device.as_str()),
                    expect,
                    op: Op::Put(json::to_bytes(&all)?),
                },
                Write::check(key(DEVICES, device.as_str()), Expect::Version(found.version)),
            ];
            self.store.commit(TENANT, tenant.as_str().as_bytes(), writes).await?;
            Ok(found.value.device.uid)
        })
        .await?;
        let hash = self.peppers.hash(&token);
        let holder =
            CredentialHolder { tenant: tenant.clone(), device: device.clone(), uid, expires_at, hash };
        let write = Write::insert(HOLDER, json::to_bytes(&holder)?);
        self.store.commit(CREDENTIALS, id.as_bytes(), vec![write]).await?;
        // Revoked between the two writes, by somebody who saw it listed, or gone with its device: it must not work unseen.
        let (listed, _) = self.read_credentials(tenant, device).await?;
        if !listed.iter().any(|known| known.id == id) {
            self.store.commit(CREDENTIALS, id.as_bytes(), vec![Write::delete(HOLDER)]).await?;
            let device = name::device(tenant, device);
            return Err(Error::aborted(format!("credential {id} of {device} was revoked while it was made")));
        }
        Ok((record, token))
    }

    /// A device's credentials in order of their ids.
    pub(crate) async fn list_credentials(
        &self,
        tenant: &TenantId,
        device: &DeviceId,
    ) -> Result<Vec<CredentialRecord>> {
        self.read_device(tenant, device).await?;
        Ok(self.read_credentials(tenant, device).await?.0)
    }

    /// Revokes a credential; one that is not there (any more) is revoked already.
    pub(crate) async fn revoke_credential(
        &self,
        tenant: &TenantId,
        device: &DeviceId,
        id: &str,
    ) -> Result<()> {
        let found = self.read_device(tenant, device).await?;
        let (all, _) = self.read_credentials(tenant, device).await?;
        if !all.iter().any(|known| known.id == id) {
            return Ok(());
        }
        self.store.commit(CREDENTIALS, id.as_bytes(), vec![Write::delete(HOLDER)]).await?;
        let revoked = Signal::CredentialRevoked {
            tenant: tenant.clone(),
            uid: found.value.device.uid,
            credential: id.to_owned(),
        };
        self.changed(revoked).await;
        retrying(async || {
            let (mut all, expect) = self.read_credentials(tenant, device).await?;
            if !all.iter().any(|known| known.id == id) {
                return Ok(0); // somebody else took it off, or the device is gone
            }
            all.retain(|known| known.id != id);
            let key = key(DEVICE_CREDENTIALS, device.as_str());
            let write = Write { key, expect, op: Op::Put(json::to_bytes(&all)?) };
            self.store.commit(TENANT, tenant.as_str().as_bytes(), vec![write]).await
        })
        .await?;
        Ok(())
    }

    /// A device's credentials, and what must hold when the list is written.
    pub(crate) async fn read_credentials(
        &self,
        tenant: &TenantId,
        device: &DeviceId,
    ) -> Result<(Vec<CredentialRecord>, Expect)> {
        let key = key(DEVICE_CREDENTIALS, device.as_str());
        let found: Option<Versioned<Vec<CredentialRecord>>> =
            self.store.get(TENANT, tenant.as_str().as_bytes(), &key).await?;
        Ok(found.map_or((Vec::new(), Expect::Absent), |found| (found.value, Expect::Version(found.version))))
    }
}
