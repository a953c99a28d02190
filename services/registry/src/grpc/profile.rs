//! `ProfileService`.

use tonic::Request;
use weir_core::managed::ManagedBy;
use weir_core::{id::ResourceId, name, principal::Scope};
use weir_grpc::{Answer, page};
use weir_proto::registry::v1::{
    CreateProfileRequest, CreateProfileResponse, DeleteProfileRequest, DeleteProfileResponse,
    GetProfileRequest, GetProfileResponse, ListProfilesRequest, ListProfilesResponse, UpdateProfileRequest,
    UpdateProfileResponse, profile_service_server::ProfileService,
};

use super::{after, convert, open, paged, reply, require_read, required};
use crate::{Service, edit::Mask, profiles::FIELDS};

#[tonic::async_trait]
impl ProfileService for Service {
    async fn create_profile(&self, request: Request<CreateProfileRequest>) -> Answer<CreateProfileResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let tenant = name::parse_tenant("parent", &request.parent)?;
            caller.require(&tenant, Scope::Provision)?;
            let id = ResourceId::new(&request.profile_id).map_err(|error| error.with_field("profile_id"))?;
            let profile = convert::to_profile(id.as_str(), request.profile.unwrap_or_default())?;
            let by = ManagedBy::new(request.managed_by)?;
            let profile =
                self.new_profile(&tenant, profile, &by, &request.request_id, request.validate_only).await?;
            Ok(CreateProfileResponse { profile: Some(convert::from_profile(&tenant, profile)) })
        })
        .await
    }

    async fn get_profile(&self, request: Request<GetProfileRequest>) -> Answer<GetProfileResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let (tenant, id) = name::parse_child("name", &request.name, "profiles")?;
            require_read(&caller, &tenant)?;
            let profile = self.get_profile(&tenant, id).await?;
            Ok(GetProfileResponse { profile: Some(convert::from_profile(&tenant, profile)) })
        })
        .await
    }

    async fn list_profiles(&self, request: Request<ListProfilesRequest>) -> Answer<ListProfilesResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let tenant = name::parse_tenant("parent", &request.parent)?;
            require_read(&caller, &tenant)?;
            let (size, after) = (page::size(request.page_size)?, after(&request.page_token)?);
            let found = self.list_profiles(&tenant, after.as_deref(), size + 1).await?;
            let (profiles, next_page_token) = paged(found, size, |found| found.value.profile.id.clone());
            let profiles =
                profiles.into_iter().map(|profile| convert::from_profile(&tenant, profile)).collect();
            Ok(ListProfilesResponse { profiles, next_page_token })
        })
        .await
    }

    async fn update_profile(&self, request: Request<UpdateProfileRequest>) -> Answer<UpdateProfileResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let profile = required("profile", request.profile)?;
            let full_name = profile.name.clone();
            let (tenant, id) = name::parse_child("profile.name", &full_name, "profiles")?;
            caller.require(&tenant, Scope::Provision)?;
            let by = ManagedBy::new(request.managed_by)?;
            let mask = Mask::new(request.update_mask.map(|mask| mask.paths), &FIELDS)?;
            let etag = profile.etag.clone();
            let profile =
                self.change_profile(&tenant, convert::to_profile(id, profile)?, &mask, &etag, &by).await?;
            Ok(UpdateProfileResponse { profile: Some(convert::from_profile(&tenant, profile)) })
        })
        .await
    }

    async fn delete_profile(&self, request: Request<DeleteProfileRequest>) -> Answer<DeleteProfileResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let (tenant, id) = name::parse_child("name", &request.name, "profiles")?;
            caller.require(&tenant, Scope::Provision)?;
            let by = ManagedBy::new(request.managed_by)?;
            self.delete_profile(&tenant, id, &request.etag, &by).await?;
            Ok(DeleteProfileResponse {})
        })
        .await
    }
}
