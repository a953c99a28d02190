//! API tokens.

use weir_core::{
    Error, ErrorKind, Result, TenantId, Timestamp, json,
    port::{Signal, Write},
    principal::{Principal, Scope},
};

use crate::{
    Service,
    secret::{self, Kind},
    store::{HOLDER, TENANT, TENANT_TOKENS, TOKENS, TokenHolder, TokenRecord, Versioned, key},
    validate,
};

/// A token to make.
pub(crate) struct NewToken {
    pub(crate) scopes: Vec<Scope>,
    pub(crate) display_name: String,
    pub(crate) expires_at: Option<Timestamp>,
}

/// Who may make, see and revoke the tokens of `tenant`: its admins, and the platform.
pub(crate) fn require(caller: &Principal, tenant: &TenantId) -> Result<()> {
    caller.require_platform().or_else(|_| caller.require(tenant, Scope::Admin))
}

/// A token of the platform is made only by another one.
pub(crate) fn require_scopes(caller: &Principal, scopes: &[Scope]) -> Result<()> {
    if scopes.contains(&Scope::Platform) { caller.require_platform() } else { Ok(()) }
}

impl Service {
    /// Makes a token: what lists show of it, and its text.
    pub(crate) async fn new_token(
        &self,
        tenant: Option<&TenantId>,
        new: NewToken,
    ) -> Result<(TokenRecord, String)> {
        let (id, token) = secret::generate(Kind::Api)?;
        let record = self.keep_token(tenant, new, &id, &token, false).await?;
        Ok((record, token))
    }

    /// Checks that the token of that id is this one.
    async fn require_same(&self, id: &str, token: &str) -> Result<()> {
        let known: Option<Versioned<TokenHolder>> = self.store.get(TOKENS, id.as_bytes(), HOLDER).await?;
        match self.peppers.verify(token, known.as_ref().map(|known| &known.value.hash)) {
            true => Ok(()),
            false => Err(Error::already_exists(format!("another token with the id {id}"))),
        }
    }

    /// Keeps a token whose text is known already; `again` where an earlier call may have done some of it.
    pub(crate) async fn keep_token(
        &self,
        tenant: Option<&TenantId>,
        new: NewToken,
        id: &str,
        token: &str,
        again: bool,
    ) -> Result<TokenRecord> {
        validate::display_name("display_name", &new.display_name)?;
        let mut scopes = new.scopes;
        scopes.sort_unstable();
        scopes.dedup();
        if scopes.is_empty() {
            return Err(Error::invalid("scopes", "SCOPES_MISSING", "scopes is empty, at least 1 is needed")
                .with_limit(1));
        }
        if let Some(tenant) = tenant {
            self.read_tenant(tenant).await?;
        }
        let expires_at = new.expires_at;
        let record = TokenRecord {
            id: id.to_owned(),
            scopes: scopes.clone(),
            display_name: new.display_name,
            created_at: self.clock.now(),
            expires_at,
        };
        if let Some(tenant) = tenant {
            let write = Write::insert(key(TENANT_TOKENS, id), json::to_bytes(&record)?);
            match self.store.commit(TENANT, tenant.as_str().as_bytes(), vec![write]).await {
                Err(error) if again && error.kind() == ErrorKind::Aborted => {}
                done => drop(done?),
            }
        }
        let hash = self.peppers.hash(token);
        let holder = TokenHolder { tenant: tenant.cloned(), scopes, expires_at, hash };
        let write = Write::insert(HOLDER, json::to_bytes(&holder)?);
        match self.store.commit(TOKENS, id.as_bytes(), vec![write]).await {
            Err(error) if again && error.kind() == ErrorKind::Aborted => self.require_same(id, token).await?,
            done => drop(done?),
        }
        if let Some(tenant) = tenant {
            // Revoked between the two writes, by somebody who saw it listed: it must not work unseen.
            let place = tenant.as_str().as_bytes();
            if self.store.get::<TokenRecord>(TENANT, place, &key(TENANT_TOKENS, id)).await?.is_none() {
                self.store.commit(TOKENS, id.as_bytes(), vec![Write::delete(HOLDER)]).await?;
                return Err(Error::aborted(format!(
                    "tenants/{tenant}/tokens/{id} was revoked while it was made"
                )));
            }
        }
        Ok(record)
    }

    pub(crate) async fn list_tokens(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Versioned<TokenRecord>>> {
        self.store.page(TENANT, tenant.as_str().as_bytes(), TENANT_TOKENS, after, limit).await
    }

    /// Revokes a token of `tenant`; one that is not there (any more) is revoked already.
    pub(crate) async fn revoke_token(&self, tenant: &TenantId, id: &str) -> Result<()> {
        let place = tenant.as_str().as_bytes();
        let listed = key(TENANT_TOKENS, id);
        if self.store.get::<TokenRecord>(TENANT, place, &listed).await?.is_none() {
            return Ok(());
        }
        self.store.commit(TOKENS, id.as_bytes(), vec![Write::delete(HOLDER)]).await?;
        self.changed(Signal::TokenRevoked { token: id.to_owned() }).await;
        self.store.commit(TENANT, place, vec![Write::delete(listed)]).await?;
        Ok(())
    }
}
