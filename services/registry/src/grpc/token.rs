//! `TokenService`.

use tonic::Request;
use weir_core::name;
use weir_grpc::{Answer, convert::to_duration_opt, page};
use weir_proto::registry::v1::{
    CreateTokenRequest, CreateTokenResponse, ListTokensRequest, ListTokensResponse, RevokeTokenRequest,
    RevokeTokenResponse, token_service_server::TokenService,
};

use super::{after, convert, open, paged, reply};
use crate::{
    Service,
    tokens::{NewToken, require, require_scopes},
    validate,
};

#[tonic::async_trait]
impl TokenService for Service {
    async fn create_token(&self, request: Request<CreateTokenRequest>) -> Answer<CreateTokenResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let tenant = name::parse_tenant("parent", &request.parent)?;
            require(&caller, &tenant)?;
            let scopes = convert::to_scopes(&request.scopes)?;
            require_scopes(&caller, &scopes)?;
            let ttl = to_duration_opt("ttl", request.ttl.as_ref())?;
            let expires_at = validate::expiry("ttl", self.clock.now(), ttl)?;
            let new = NewToken { scopes, display_name: request.display_name, expires_at };
            let (token, secret) = self.new_token(Some(&tenant), new).await?;
            Ok(CreateTokenResponse { token: Some(convert::from_token(&tenant, token)), secret })
        })
        .await
    }

    async fn list_tokens(&self, request: Request<ListTokensRequest>) -> Answer<ListTokensResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let tenant = name::parse_tenant("parent", &request.parent)?;
            require(&caller, &tenant)?;
            let (size, after) = (page::size(request.page_size)?, after(&request.page_token)?);
            let found = self.list_tokens(&tenant, after.as_deref(), size + 1).await?;
            let (tokens, next_page_token) = paged(found, size, |token| token.value.id.clone());
            let tokens = tokens.into_iter().map(|token| convert::from_token(&tenant, token.value)).collect();
            Ok(ListTokensResponse { tokens, next_page_token })
        })
        .await
    }

    async fn revoke_token(&self, request: Request<RevokeTokenRequest>) -> Answer<RevokeTokenResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let (tenant, id) = name::parse_child("name", &request.name, "tokens")?;
            require(&caller, &tenant)?;
            self.revoke_token(&tenant, id).await?;
            Ok(RevokeTokenResponse {})
        })
        .await
    }
}
