//! `TenantService`.

use tonic::Request;
use weir_core::managed::ManagedBy;
use weir_core::{Error, Result, TenantId, name, principal::Principal};
use weir_grpc::{Answer, page};
use weir_proto::registry::v1::{
    CreateTenantRequest, CreateTenantResponse, GetSelfRequest, GetSelfResponse, GetTenantRequest,
    GetTenantResponse, ListTenantsRequest, ListTenantsResponse, UpdateTenantRequest, UpdateTenantResponse,
    tenant_service_server::TenantService,
};

use super::{after, convert, open, paged, reply, required};
use crate::{Service, edit::Mask, tenants::TenantSpec};

#[tonic::async_trait]
impl TenantService for Service {
    async fn get_self(&self, request: Request<GetSelfRequest>) -> Answer<GetSelfResponse> {
        let (caller, _) = open(request)?;
        reply(async { identity(caller) }).await
    }

    async fn create_tenant(&self, request: Request<CreateTenantRequest>) -> Answer<CreateTenantResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            caller.require_platform()?;
            let id = TenantId::new(&request.tenant_id).map_err(|error| error.with_field("tenant_id"))?;
            let spec = convert::to_tenant_spec(request.tenant.unwrap_or_default());
            let by = ManagedBy::new(request.managed_by)?;
            let tenant = self.new_tenant(&id, spec, &by, &request.request_id, request.validate_only).await?;
            Ok(CreateTenantResponse { tenant: Some(convert::from_tenant(tenant)) })
        })
        .await
    }

    async fn get_tenant(&self, request: Request<GetTenantRequest>) -> Answer<GetTenantResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            caller.require_platform()?;
            let id = name::parse_tenant("name", &request.name)?;
            Ok(GetTenantResponse { tenant: Some(convert::from_tenant(self.read_tenant(&id).await?)) })
        })
        .await
    }

    async fn list_tenants(&self, request: Request<ListTenantsRequest>) -> Answer<ListTenantsResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            caller.require_platform()?;
            let (size, after) = (page::size(request.page_size)?, after(&request.page_token)?);
            let found = self.list_tenants(after.as_deref(), size + 1).await?;
            let (tenants, next_page_token) = paged(found, size, |tenant| tenant.value.id.to_string());
            let tenants = tenants.into_iter().map(convert::from_tenant).collect();
            Ok(ListTenantsResponse { tenants, next_page_token })
        })
        .await
    }

    async fn update_tenant(&self, request: Request<UpdateTenantRequest>) -> Answer<UpdateTenantResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            caller.require_platform()?;
            let tenant = required("tenant", request.tenant)?;
            let id = name::parse_tenant("tenant.name", &tenant.name)?;
            let mask = Mask::new(request.update_mask.map(|mask| mask.paths), &TenantSpec::FIELDS)?;
            let (etag, by) = (tenant.etag.clone(), ManagedBy::new(request.managed_by)?);
            let tenant = self.change_tenant(&id, convert::to_tenant_spec(tenant), &mask, &etag, &by).await?;
            Ok(UpdateTenantResponse { tenant: Some(convert::from_tenant(tenant)) })
        })
        .await
    }
}

fn identity(caller: Principal) -> Result<GetSelfResponse> {
    Ok(match caller {
        Principal::Token { id, tenant, scopes } => GetSelfResponse {
            tenant: tenant.as_ref().map(name::tenant).unwrap_or_default(),
            scopes: scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            token_id: id,
            device: String::new(),
        },
        Principal::Device { tenant, device, .. } => GetSelfResponse {
            tenant: name::tenant(&tenant),
            scopes: Vec::new(),
            token_id: String::new(),
            device: name::device(&tenant, &device),
        },
        Principal::Service => return Err(Error::permission_denied("a service is bound to no tenant")),
    })
}
