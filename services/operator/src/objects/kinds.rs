//! How each kind is told.

use futures::future::BoxFuture;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{ObjectMeta, Patch, PatchParams},
};
use prost_types::FieldMask;
use weir_core::{Error, ErrorKind, Result, managed, name};
use weir_crd::{Deletion, DeviceProfile, ObjectStatus, Rule, Tenant, TenantDeletion};
use weir_grpc::from_status;
use weir_proto::{
    analytics::v1::{
        CreateRuleRequest, DeleteRuleRequest, GetRuleRequest, UpdateRuleRequest,
        rule_service_client::RuleServiceClient,
    },
    registry::v1::{
        CreateProfileRequest, CreateTenantRequest, CreateTokenRequest, DeleteProfileRequest,
        GetProfileRequest, GetSelfRequest, GetTenantRequest, Scope, UpdateProfileRequest,
        UpdateTenantRequest, profile_service_client::ProfileServiceClient,
        tenant_service_client::TenantServiceClient, token_service_client::TokenServiceClient,
    },
};

use super::{
    ADOPT, Context, Entity, convert,
    place::{self, Place, of_object, of_tenant},
};
use crate::{MANAGER, error::of_kube};

/// The mask of an update that takes an object over, or lets it go.
fn with_keeper(fields: &[&str]) -> Option<FieldMask> {
    let paths = fields.iter().chain(&[managed::FIELD]).map(|field| (*field).to_owned()).collect();
    Some(FieldMask { paths })
}

/// What is there and is not kept by the object.
fn not_ours(full_name: &str, known: &str, advice: &str) -> Error {
    let by = if known.is_empty() {
        "was made through the API".to_owned()
    } else {
        format!("is managed by {known}")
    };
    Error::new(ErrorKind::FailedPrecondition, "NOT_MANAGED_HERE", format!("{full_name} {by}; {advice}"))
}

fn adoptable() -> String {
    format!("the annotation {ADOPT}: \"true\" takes it over")
}

/// None where it is not there.
fn if_found<T>(answer: Result<T, tonic::Status>) -> Result<Option<T>> {
    match answer.map_err(from_status) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Entity for Tenant {
    fn status(&self) -> Option<&ObjectStatus> {
        self.status.as_ref()
    }

    fn put<'a>(&'a self, context: &'a Context) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let place = of_tenant(&context.client, &context.connections, self).await?;
            let full_name = name::tenant(&place.tenant);
            let wanted = convert::tenant(full_name.clone(), &self.spec);
            let mut stub = TenantServiceClient::new(place.channel.clone());
            let get = place.request(GetTenantRequest { name: full_name.clone() });
            let by = self.keeper();
            match if_found(stub.get_tenant(get).await)?.and_then(|found| found.into_inner().tenant) {
                None => {
                    let create = CreateTenantRequest {
                        tenant_id: place.tenant.to_string(),
                        tenant: Some(wanted),
                        managed_by: by,
                        ..CreateTenantRequest::default()
                    };
                    stub.create_tenant(place.request(create)).await.map_err(from_status)?;
                }
                Some(found) if found.managed_by != by => {
                    let advice = "a tenant is never taken over by itself: hand it over with UpdateTenant, update_mask \
                                  managed_by, or choose another spec.tenantId";
                    return Err(not_ours(&full_name, &found.managed_by, advice));
                }
                Some(found) => {
                    let is_same =
                        found.display_name == wanted.display_name && found.disabled == wanted.disabled;
                    if !is_same {
                        let update =
                            UpdateTenantRequest { tenant: Some(wanted), managed_by: by, update_mask: None };
                        stub.update_tenant(place.request(update)).await.map_err(from_status)?;
                    }
                }
            }
            if !self.spec.disabled {
                token(self, &place, context).await?;
            }
            Ok(full_name)
        })
    }

    fn let_go<'a>(&'a self, context: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let place = of_tenant(&context.client, &context.connections, self).await?;
            let mut stub = TenantServiceClient::new(place.channel.clone());
            let full_name = name::tenant(&place.tenant);
            let get = place.request(GetTenantRequest { name: full_name });
            let found = if_found(stub.get_tenant(get).await)?.and_then(|found| found.into_inner().tenant);
            let Some(mut found) = found.filter(|found| found.managed_by == self.keeper()) else {
                return Ok(());
            };
            found.disabled |= self.spec.deletion_policy == TenantDeletion::Disable;
            let update = UpdateTenantRequest {
                tenant: Some(found),
                update_mask: with_keeper(&["disabled"]),
                managed_by: String::new(),
            };
            stub.update_tenant(place.request(update)).await.map(drop).map_err(from_status)
        })
    }
}

/// Puts a token of the tenant into its Secret, where there is none that works.
async fn token(tenant: &Tenant, place: &Place, context: &Context) -> Result<()> {
    let namespace = tenant.namespace().unwrap_or_default();
    let secret_name = place::token_secret(tenant);
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &namespace);
    let failed = |error| of_kube(&format!("Secret {namespace}/{secret_name}"), error);
    let found = api.get_opt(&secret_name).await.map_err(failed)?;
    let uid = tenant.uid().unwrap_or_default();
    if let Some(found) = &found {
        if !found.owner_references().iter().any(|owner| owner.uid == uid) {
            let message = format!(
                "Secret {namespace}/{secret_name} is not this tenant's; choose another spec.tokenSecretName"
            );
            return Err(Error::new(ErrorKind::FailedPrecondition, "SECRET_NOT_OURS", message));
        }
        let known = found.data.as_ref().and_then(|data| data.get("token"));
        if let Some(known) = known
            && works(place, &String::from_utf8_lossy(&known.0)).await?
        {
            return Ok(());
        }
    }
    let create = CreateTokenRequest {
        parent: name::tenant(&place.tenant),
        scopes: vec![Scope::Admin.into()],
        display_name: tenant.keeper(),
        ttl: None,
    };
    let mut stub = TokenServiceClient::new(place.channel.clone());
    let made = stub.create_token(place.request(create)).await.map_err(from_status)?.into_inner().secret;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(secret_name.clone()),
            owner_references: Some(tenant.controller_owner_ref(&()).into_iter().collect()),
            ..ObjectMeta::default()
        },
        data: Some([("token".to_owned(), ByteString(made.into_bytes()))].into()),
        ..Secret::default()
    };
    let params = PatchParams::apply(MANAGER).force();
    api.patch(&secret_name, &params, &Patch::Apply(secret)).await.map(drop).map_err(failed)
}

/// Whether Weir takes a token for one of the tenant.
async fn works(place: &Place, token: &str) -> Result<bool> {
    let Ok(place) = place.with_token(token) else { return Ok(false) };
    let mut stub = TenantServiceClient::new(place.channel.clone());
    match stub.get_self(place.request(GetSelfRequest {})).await.map_err(from_status) {
        Ok(answer) => Ok(answer.into_inner().tenant == name::tenant(&place.tenant)),
        Err(error) if error.kind() == ErrorKind::Unauthenticated => Ok(false),
        Err(error) => Err(error),
    }
}

/// The place of an object that names a tenant, and its full name there.
async fn placed(
    object: &impl Entity,
    tenant: &str,
    collection: &str,
    context: &Context,
) -> Result<(Place, String)> {
    let namespace = object.namespace().unwrap_or_default();
    let place = of_object(&context.client, &context.connections, &namespace, tenant).await?;
    let full_name = name::child(&place.tenant, collection, object.name_any());
    Ok((place, full_name))
}

impl Entity for DeviceProfile {
    fn status(&self) -> Option<&ObjectStatus> {
        self.status.as_ref()
    }

    fn put<'a>(&'a self, context: &'a Context) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let (place, full_name) = placed(self, &self.spec.tenant, "profiles", context).await?;
            let wanted = convert::profile(full_name.clone(), &self.spec)?;
            let mut stub = ProfileServiceClient::new(place.channel.clone());
            let get = place.request(GetProfileRequest { name: full_name.clone() });
            let by = self.keeper();
            match if_found(stub.get_profile(get).await)?.and_then(|found| found.into_inner().profile) {
                None => {
                    let create = CreateProfileRequest {
                        parent: name::tenant(&place.tenant),
                        profile_id: self.name_any(),
                        profile: Some(wanted),
                        managed_by: by,
                        ..CreateProfileRequest::default()
                    };
                    stub.create_profile(place.request(create)).await.map_err(from_status)?;
                }
                Some(found) if found.managed_by != by && !(found.managed_by.is_empty() && self.adopts()) => {
                    return Err(not_ours(&full_name, &found.managed_by, &adoptable()));
                }
                Some(_) => {
                    let update_mask = with_keeper(&["metrics", "time", "gateway"]);
                    let update = UpdateProfileRequest { profile: Some(wanted), update_mask, managed_by: by };
                    stub.update_profile(place.request(update)).await.map_err(from_status)?;
                }
            }
            Ok(full_name)
        })
    }

    fn let_go<'a>(&'a self, context: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (place, full_name) = placed(self, &self.spec.tenant, "profiles", context).await?;
            let mut stub = ProfileServiceClient::new(place.channel.clone());
            let get = place.request(GetProfileRequest { name: full_name.clone() });
            let found = if_found(stub.get_profile(get).await)?.and_then(|found| found.into_inner().profile);
            let Some(found) = found.filter(|found| found.managed_by == self.keeper()) else { return Ok(()) };
            if self.spec.deletion_policy == Deletion::Delete {
                let delete =
                    DeleteProfileRequest { name: full_name, managed_by: self.keeper(), etag: String::new() };
                return stub.delete_profile(place.request(delete)).await.map(drop).map_err(from_status);
            }
            let update = UpdateProfileRequest {
                profile: Some(found),
                update_mask: with_keeper(&[]),
                managed_by: String::new(),
            };
            stub.update_profile(place.request(update)).await.map(drop).map_err(from_status)
        })
    }
}

/// What of a rule an update changes.
const RULE_FIELDS: [&str; 12] = [
    "display_name",
    "label_selector",
    "condition",
    "for_duration",
    "clear_when",
    "clear_for_duration",
    "max_gap",
    "severity",
    "severities",
    "labels",
    "actions",
    "disabled",
];

impl Entity for Rule {
    fn status(&self) -> Option<&ObjectStatus> {
        self.status.as_ref()
    }

    fn put<'a>(&'a self, context: &'a Context) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let (place, full_name) = placed(self, &self.spec.tenant, "rules", context).await?;
            let wanted = convert::rule(full_name.clone(), &self.spec)?;
            let mut stub = RuleServiceClient::new(place.channel.clone());
            let get = place.request(GetRuleRequest { name: full_name.clone() });
            let by = self.keeper();
            match if_found(stub.get_rule(get).await)?.and_then(|found| found.into_inner().rule) {
                None => {
                    let create = CreateRuleRequest {
                        parent: name::tenant(&place.tenant),
                        rule_id: self.name_any(),
                        rule: Some(wanted),
                        managed_by: by,
                        ..CreateRuleRequest::default()
                    };
                    stub.create_rule(place.request(create)).await.map_err(from_status)?;
                }
                Some(found) if found.managed_by != by && !(found.managed_by.is_empty() && self.adopts()) => {
                    return Err(not_ours(&full_name, &found.managed_by, &adoptable()));
                }
                Some(_) => {
                    let update = UpdateRuleRequest {
                        rule: Some(wanted),
                        update_mask: with_keeper(&RULE_FIELDS),
                        managed_by: by,
                        ..UpdateRuleRequest::default()
                    };
                    stub.update_rule(place.request(update)).await.map_err(from_status)?;
                }
            }
            Ok(full_name)
        })
    }

    fn let_go<'a>(&'a self, context: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (place, full_name) = placed(self, &self.spec.tenant, "rules", context).await?;
            let mut stub = RuleServiceClient::new(place.channel.clone());
            let get = place.request(GetRuleRequest { name: full_name.clone() });
            let found = if_found(stub.get_rule(get).await)?.and_then(|found| found.into_inner().rule);
            let Some(found) = found.filter(|found| found.managed_by == self.keeper()) else { return Ok(()) };
            if self.spec.deletion_policy == Deletion::Delete {
                let delete =
                    DeleteRuleRequest { name: full_name, managed_by: self.keeper(), etag: String::new() };
                return stub.delete_rule(place.request(delete)).await.map(drop).map_err(from_status);
            }
            let update = UpdateRuleRequest {
                rule: Some(found),
                update_mask: with_keeper(&[]),
                managed_by: String::new(),
                ..UpdateRuleRequest::default()
            };
            stub.update_rule(place.request(update)).await.map(drop).map_err(from_status)
        })
    }
}
