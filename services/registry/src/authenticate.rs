//! Who holds a token.
//!
//! The verification is cached for some seconds by the token's id, together with SHA-256 of the token, so that a busy token costs
//! three lookups in memory; expiry, the tenant and the device are looked at each time.

use std::sync::Arc;

use weir_core::{
    DeviceId, Error, ErrorKind, Result, TenantId, Timestamp, Uid,
    port::{Registry as _, Write},
    principal::{Principal, Scope},
};

use crate::{
    Service,
    secret::{self, Kind},
    store::{
        ALL_TENANTS, CREDENTIALS, CredentialHolder, HOLDER, TENANTS, TOKENS, Tenant, TokenHolder, Versioned,
    },
};

/// A secret that was right.
#[derive(Debug)]
pub(crate) struct Verified {
    digest: [u8; 32],
    expires_at: Option<Timestamp>,
    holder: Holder,
}

#[derive(Debug)]
enum Holder {
    Api { tenant: Option<TenantId>, scopes: Vec<Scope> },
    Device { tenant: TenantId, device: DeviceId, uid: Uid },
}

/// One text for all, so that nothing is told to a guesser.
fn refused() -> Error {
    Error::unauthenticated("the credential is not valid")
}

impl Service {
    /// The holder of `token`.
    ///
    /// # Errors
    /// `Unauthenticated` with one text, whatever is wrong with it; `Unavailable` of the store.
    pub(crate) async fn identify(&self, token: &str) -> Result<Principal> {
        let result = self.find_holder(token).await;
        self.metrics.authenticated(match &result {
            Ok(_) => "ok",
            Err(error) if error.kind() == ErrorKind::Unauthenticated => "refused",
            Err(_) => "failed",
        });
        result
    }

    async fn find_holder(&self, token: &str) -> Result<Principal> {
        let now = self.clock.now();
        let (kind, id) = secret::parse(token).ok_or_else(refused)?;
        let digest = secret::digest(token);
        let cached =
            self.verified.get(&id.to_owned(), now).filter(|known| secret::same(&known.digest, &digest));
        let verified = match cached {
            Some(verified) => verified,
            None => self.verify(kind, id, token, digest, now).await?,
        };
        if verified.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(refused());
        }
        match &verified.holder {
            Holder::Api { tenant, scopes } => {
                if let Some(tenant) = tenant {
                    self.require_enabled(tenant, now).await?;
                }
                Ok(Principal::Token { id: id.to_owned(), tenant: tenant.clone(), scopes: scopes.clone() })
            }
            Holder::Device { tenant, device, uid } => {
                self.require_enabled(tenant, now).await?;
                let found = match self.device(tenant, device).await {
                    Err(error) if error.kind() == ErrorKind::NotFound => return Err(refused()),
                    found => found?,
                };
                if found.uid != *uid || !found.enabled {
                    return Err(refused());
                }
                Ok(Principal::Device {
                    tenant: tenant.clone(),
                    device: device.clone(),
                    uid: *uid,
                    credential: id.to_owned(),
                })
            }
        }
    }

    /// Reads what the id leads to and checks the secret. An id that leads nowhere costs the same.
    async fn verify(
        &self,
        kind: Kind,
        id: &str,
        token: &str,
        digest: [u8; 32],
        now: Timestamp,
    ) -> Result<Arc<Verified>> {
        let key = id.to_owned();
        let ticket = self.verified.ticket(&key, now);
        let (holder, expires_at) = match kind {
            Kind::Api => {
                let found: Option<Versioned<TokenHolder>> =
                    self.store.get(TOKENS, id.as_bytes(), HOLDER).await?;
                let right = self.peppers.verify(token, found.as_ref().map(|found| &found.value.hash));
                let found = found.filter(|_| right).ok_or_else(refused)?;
                self.renew_token(id, token, &found).await;
                let TokenHolder { tenant, scopes, expires_at, .. } = found.value;
                (Holder::Api { tenant, scopes }, expires_at)
            }
            Kind::Device => {
                let found: Option<Versioned<CredentialHolder>> =
                    self.store.get(CREDENTIALS, id.as_bytes(), HOLDER).await?;
                let right = self.peppers.verify(token, found.as_ref().map(|found| &found.value.hash));
                let found = found.filter(|_| right).ok_or_else(refused)?;
                self.renew_credential(id, token, &found).await;
                let CredentialHolder { tenant, device, uid, expires_at, .. } = found.value;
                (Holder::Device { tenant, device, uid }, expires_at)
            }
        };
        let verified = Arc::new(Verified { digest, expires_at, holder });
        self.verified.put(ticket, key, Arc::clone(&verified));
        Ok(verified)
    }

    /// Hashes a token anew under the first pepper, so that old peppers can be removed once their tokens were used.
    async fn renew_token(&self, id: &str, token: &str, found: &Versioned<TokenHolder>) {
        if self.peppers.is_old(&found.value.hash) {
            let holder = TokenHolder { hash: self.peppers.hash(token), ..found.value.clone() };
            self.renew(TOKENS, id, found.version, &holder).await;
        }
    }

    async fn renew_credential(&self, id: &str, token: &str, found: &Versioned<CredentialHolder>) {
        if self.peppers.is_old(&found.value.hash) {
            let holder = CredentialHolder { hash: self.peppers.hash(token), ..found.value.clone() };
            self.renew(CREDENTIALS, id, found.version, &holder).await;
        }
    }

    /// Best effort: the old hash works as well, and the next use tries again.
    async fn renew(
        &self,
        table: weir_core::port::Table,
        id: &str,
        version: u64,
        holder: &impl serde::Serialize,
    ) {
        let renewed = async {
            let write = Write::replace(HOLDER, version, weir_core::json::to_bytes(holder)?);
            self.store.commit(table, id.as_bytes(), vec![write]).await
        };
        if let Err(error) = renewed.await {
            tracing::debug!(id, %error, "a token was not hashed under the first pepper");
        }
    }

    async fn require_enabled(&self, tenant: &TenantId, now: Timestamp) -> Result<()> {
        let enabled = match self.enabled.get(tenant, now) {
            Some(enabled) => enabled,
            None => {
                let ticket = self.enabled.ticket(tenant, now);
                let found: Option<Versioned<Tenant>> =
                    self.store.get(TENANTS, ALL_TENANTS, tenant.as_str().as_bytes()).await?;
                let enabled = found.is_some_and(|found| !found.value.disabled);
                self.enabled.put(ticket, tenant.clone(), enabled);
                enabled
            }
        };
        if enabled { Ok(()) } else { Err(refused()) }
    }
}
