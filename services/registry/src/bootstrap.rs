//! What the program itself does before anybody holds a token: `weir init` and `weir dev`.

use weir_core::{ErrorKind, Result, TenantId, principal::Scope};

use crate::{Service, store::TOKENS, tenants::TenantSpec, tokens::NewToken};

impl Service {
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

    /// Whether any API token exists.
    ///
    /// # Errors
    /// `Unavailable` of the store.
    pub async fn any_token(&self) -> Result<bool> {
        self.store.any_partition(TOKENS).await
    }
}
