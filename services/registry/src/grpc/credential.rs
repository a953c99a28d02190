//! `CredentialService`.

use tonic::Request;
use weir_core::{name, principal::Scope};
use weir_grpc::{Answer, convert::to_duration_opt, page};
use weir_proto::registry::v1::{
    IssueCredentialRequest, IssueCredentialResponse, ListCredentialsRequest, ListCredentialsResponse,
    RevokeCredentialRequest, RevokeCredentialResponse, credential_service_server::CredentialService,
};

use super::{after, convert, open, paged, reply, require_read};
use crate::{Service, validate};

#[tonic::async_trait]
impl CredentialService for Service {
    async fn issue_credential(
        &self,
        request: Request<IssueCredentialRequest>,
    ) -> Answer<IssueCredentialResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let (tenant, device) = name::parse_device("parent", &request.parent)?;
            caller.require(&tenant, Scope::Provision)?;
            let ttl = to_duration_opt("ttl", request.ttl.as_ref())?;
            let expires_at = validate::expiry("ttl", self.clock.now(), ttl)?;
            let (credential, secret) = self.issue_credential(&tenant, &device, expires_at).await?;
            let credential = convert::from_credential(&tenant, &device, credential);
            Ok(IssueCredentialResponse { credential: Some(credential), secret })
        })
        .await
    }

    async fn list_credentials(
        &self,
        request: Request<ListCredentialsRequest>,
    ) -> Answer<ListCredentialsResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let (tenant, device) = name::parse_device("parent", &request.parent)?;
            require_read(&caller, &tenant)?;
            let (size, after) = (page::size(request.page_size)?, after(&request.page_token)?);
            let mut found = self.list_credentials(&tenant, &device).await?;
            found.retain(|credential| after.as_ref().is_none_or(|after| credential.id > *after));
            let (credentials, next_page_token) = paged(found, size, |credential| credential.id.clone());
            let credentials =
                credentials.into_iter().map(|it| convert::from_credential(&tenant, &device, it));
            Ok(ListCredentialsResponse { credentials: credentials.collect(), next_page_token })
        })
        .await
    }

    async fn revoke_credential(
        &self,
        request: Request<RevokeCredentialRequest>,
    ) -> Answer<RevokeCredentialResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let (tenant, device, id) = name::parse_credential("name", &request.name)?;
            caller.require(&tenant, Scope::Provision)?;
            self.revoke_credential(&tenant, &device, id).await?;
            Ok(RevokeCredentialResponse {})
        })
        .await
    }
}
