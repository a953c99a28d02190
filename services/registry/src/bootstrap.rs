//! What the program itself does before anybody holds a token: `weir init` and `weir dev`.

use weir_core::{
    Error, ErrorKind, Result, TenantId, json,
    port::{Expect, Op, Table, Write},
    principal::Scope,
};

use crate::{
    Service,
    secret::{self, Hash, Kind},
    store::{HOLDER, TOKENS, Versioned},
    tenants::TenantSpec,
    tokens::NewToken,
};

/// The hash of [`MARKED`], in one record: by it a registry with other peppers than those of the store's tokens is noticed.
const PEPPER: Table = Table("registry_pepper");
const MARKED: &str = "pepper of this store";

impl Service {
    /// Checks that the peppers are those under which the store's tokens are hashed; the first registry of a store leaves its
    /// mark.
    ///
    /// # Errors
    /// `FailedPrecondition` (`PEPPER_OTHER`) where they are not: every token would be refused, and those made here would be
    /// refused by others. `Unavailable` of the store.
    pub(crate) async fn check_peppers(&self) -> Result<()> {
        let known: Option<Versioned<Hash>> = self.store.get(PEPPER, HOLDER, HOLDER).await?;
        let expect = match &known {
            Some(known) if !self.peppers.verify(MARKED, Some(&known.value)) => {
                let message = "the store's tokens are hashed under another pepper than those of auth.pepper_file; copy that \
                               file from where this Weir was initialised";
                return Err(Error::new(ErrorKind::FailedPrecondition, "PEPPER_OTHER", message)
                    .with_field("auth.pepper_file"));
            }
            Some(known) if !self.peppers.is_old(&known.value) => return Ok(()),
            Some(known) => Expect::Version(known.version),
            None => Expect::Absent,
        };
        let op = Op::Put(json::to_bytes(&self.peppers.hash(MARKED))?);
        match self.store.commit(PEPPER, HOLDER, vec![Write { key: HOLDER.into(), expect, op }]).await {
            // Another registry left its mark at this moment, which the next start checks.
            Err(error) if error.kind() == ErrorKind::Aborted => Ok(()),
            done => done.map(drop),
        }
    }

    /// Makes a tenant of that id, unless there is one.
    ///
    /// # Errors
    /// `Unavailable` of the store.
    pub async fn ensure_tenant(&self, id: &TenantId) -> Result<()> {
        match self.new_tenant(id, TenantSpec::default(), "", false).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            done => done.map(drop),
        }
    }

    /// Makes an API token and gives its text, which cannot be had again. Without a tenant it is a token of the platform
    /// alone.
    ///
    /// # Errors
    /// `NotFound` without the tenant; `InvalidArgument` without scopes; `Unavailable` of the store.
    pub async fn create_token(
        &self,
        tenant: Option<&TenantId>,
        scopes: &[Scope],
        display_name: &str,
    ) -> Result<String> {
        let new =
            NewToken { scopes: scopes.to_vec(), display_name: display_name.to_owned(), expires_at: None };
        Ok(self.new_token(tenant, new).await?.1)
    }

    /// Keeps an API token whose text is known already, as [`token`] makes it. Doing it twice does it once.
    ///
    /// # Errors
    /// `TOKEN_INVALID` for what is no token; otherwise as of [`Service::create_token`].
    pub async fn import_token(
        &self,
        tenant: Option<&TenantId>,
        scopes: &[Scope],
        display_name: &str,
        token: &str,
    ) -> Result<()> {
        let Some((Kind::Api, id)) = secret::parse(token) else {
            let message = "the first token is none: it must look like wa_<16 hexadecimal digits>_<43 letters and digits>";
            return Err(Error::invalid("token", "TOKEN_INVALID", message));
        };
        let new =
            NewToken { scopes: scopes.to_vec(), display_name: display_name.to_owned(), expires_at: None };
        self.keep_token(tenant, new, id, token, true).await.map(drop)
    }

    /// Whether any API token exists.
    ///
    /// # Errors
    /// `Unavailable` of the store.
    pub async fn any_token(&self) -> Result<bool> {
        self.store.any_partition(TOKENS).await
    }
}

/// The text of a new API token, for [`Service::import_token`].
///
/// # Errors
/// `Unavailable` where the system gives no random bytes.
pub fn token() -> Result<String> {
    secret::generate(Kind::Api).map(|(_, token)| token)
}
