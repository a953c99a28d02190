//! How each kind is told.

use futures::future::BoxFuture;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{ListParams, ObjectMeta, Patch, PatchParams},
};
use prost_types::FieldMask;
use weir_core::{Error, ErrorKind, Result, managed, name};
use weir_crd::{Deletion, DeviceProfile, ObjectStatus, Rule, Tenant, TenantDeletion};
use weir_grpc::from_status;
use weir_proto::{
    analytics::v1::{
        self as analytics, CreateRuleRequest, DeleteRuleRequest, GetRuleRequest, UpdateRuleRequest,
        rule_service_client::RuleServiceClient,
    },
    registry::v1::{
        self as registry, CreateProfileRequest, CreateTenantRequest, CreateTokenRequest,
        DeleteProfileRequest, GetProfileRequest, GetSelfRequest, GetTenantRequest, RevokeTokenRequest, Scope,
        UpdateProfileRequest, UpdateTenantRequest, profile_service_client::ProfileServiceClient,
        tenant_service_client::TenantServiceClient, token_service_client::TokenServiceClient,
    },
};

use super::{
    ADOPT, Context, Entity, convert,
    place::{self, Place, of_object, of_tenant},
};
use crate::{MANAGER, error::of_kube};

/// The mask of an update that takes an object over, or lets it go.
fn with_keeper(fields: &[&str]) -> FieldMask {
    let paths = fields.iter().chain(&[managed::FIELD]).map(|field| (*field).to_owned()).collect();
    FieldMask { paths }
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

    fn needed_by<'a>(&'a self, context: &'a Context) -> BoxFuture<'a, Result<Option<String>>> {
        Box::pin(async move {
            let (namespace, own) = (self.namespace().unwrap_or_default(), self.name_any());
            let rules = naming::<Rule>(context, &namespace, |rule| rule.spec.tenant == own).await?;
            let profiles =
                naming::<DeviceProfile>(context, &namespace, |profile| profile.spec.tenant == own).await?;
            Ok((rules + profiles > 0).then(|| {
                format!(
                    "{rules} Rules and {profiles} DeviceProfiles name it; it ends after them, delete them too"
                )
            }))
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
            revoke(self, &place, context).await?;
            found.disabled |= self.spec.deletion_policy == TenantDeletion::Disable;
            let update = UpdateTenantRequest {
                tenant: Some(found),
                update_mask: Some(with_keeper(&["disabled"])),
                managed_by: String::new(),
            };
            stub.update_tenant(place.request(update)).await.map(drop).map_err(from_status)
        })
    }
}

/// How many objects of a kind in a namespace name a tenant.
async fn naming<K>(context: &Context, namespace: &str, names: impl Fn(&K) -> bool) -> Result<usize>
where
    K: Entity,
{
    let api: Api<K> = Api::namespaced(context.client.clone(), namespace);
    let found = api.list(&ListParams::default()).await;
    let found = found.map_err(|error| of_kube(&K::plural(&()), error))?;
    Ok(found.iter().filter(|object| names(object)).count())
}

/// Puts a token of the tenant into its Secret, where there is none that works.
async fn token(tenant: &Tenant, place: &Place, context: &Context) -> Result<()> {
    let namespace = tenant.namespace().unwrap_or_default();
    let secret_name = place::token_secret(tenant);
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &namespace);
    let failed = |error| of_kube(&format!("Secret {namespace}/{secret_name}"), error);
    let found = api.get_opt(&secret_name).await.map_err(failed)?;
    let (mut stub, mut old) = (TokenServiceClient::new(place.channel.clone()), None);
    if let Some(found) = &found {
        if !place::is_of(found, tenant) {
            let message = format!(
                "Secret {namespace}/{secret_name} is not this tenant's; choose another spec.tokenSecretName"
            );
            return Err(Error::new(ErrorKind::FailedPrecondition, "SECRET_NOT_OURS", message));
        }
        let value =
            |key: &str| found.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.clone());
        let text = |key: &str| value(key).map(|value| String::from_utf8_lossy(&value).into_owned());
        if let Some(known) = text("token")
            && works(place, &known).await?
        {
            return Ok(());
        }
        old = text(TOKEN_NAME).filter(|name| !name.is_empty());
    }
    // First what may be refused, then the token: it is not made again and again for nobody.
    let write = async |token: &str, name: &str| {
        let entry = |key: &str, value: &str| (key.to_owned(), ByteString(value.as_bytes().to_vec()));
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(secret_name.clone()),
                owner_references: Some(tenant.controller_owner_ref(&()).into_iter().collect()),
                ..ObjectMeta::default()
            },
            data: Some([entry("token", token), entry(TOKEN_NAME, name)].into()),
            ..Secret::default()
        };
        let params = PatchParams::apply(MANAGER).force();
        api.patch(&secret_name, &params, &Patch::Apply(secret)).await.map(drop).map_err(failed)
    };
    if found.is_none() {
        write("", "").await?;
    }
    let create = CreateTokenRequest {
        parent: name::tenant(&place.tenant),
        scopes: vec![Scope::Admin.into()],
        display_name: tenant.keeper(),
        ttl: None,
    };
    let made = stub.create_token(place.request(create)).await.map_err(from_status)?.into_inner();
    let made_name = made.token.map(|token| token.name).unwrap_or_default();
    let written = write(&made.secret, &made_name).await;
    // The one that nobody has any more: the old one, or the new one where it could not be written.
    let unused = if written.is_ok() { old } else { Some(made_name) };
    if let Some(name) = unused
        && let Err(status) = stub.revoke_token(place.request(RevokeTokenRequest { name: name.clone() })).await
    {
        tracing::warn!(token = name, error = %from_status(status), "a token that nobody uses was not revoked");
    }
    written
}

/// The key of a Secret with the token's name, by which it is revoked.
const TOKEN_NAME: &str = "name";

/// Revokes a tenant's token, where its Secret is there still.
async fn revoke(tenant: &Tenant, place: &Place, context: &Context) -> Result<()> {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &tenant.namespace().unwrap_or_default());
    let secret_name = place::token_secret(tenant);
    let found = api.get_opt(&secret_name).await.map_err(|error| of_kube(&secret_name, error))?;
    let Some(found) = found.filter(|found| place::is_of(found, tenant)) else { return Ok(()) };
    let name = found.data.and_then(|mut data| data.remove(TOKEN_NAME)).unwrap_or_default().0;
    let request = RevokeTokenRequest { name: String::from_utf8_lossy(&name).into_owned() };
    if request.name.is_empty() {
        return Ok(());
    }
    let mut stub = TokenServiceClient::new(place.channel.clone());
    if_found(stub.revoke_token(place.request(request)).await).map(drop)
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
                Some(found) => {
                    let is_new = found.managed_by.is_empty();
                    let update_mask = is_new.then(|| with_keeper(&["metrics", "time", "gateway"]));
                    let profile = registry::Profile { etag: found.etag, ..wanted };
                    let update = UpdateProfileRequest { profile: Some(profile), update_mask, managed_by: by };
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
                let done = stub.delete_profile(place.request(delete)).await.map(drop).map_err(from_status);
                // It goes when the last device has another one; until then this says why not.
                return done.map_err(|error| match error.reason() {
                    "PROFILE_IN_USE" => {
                        Error::new(ErrorKind::Unavailable, "PROFILE_IN_USE", error.message().to_owned())
                    }
                    _ => error,
                });
            }
            let update = UpdateProfileRequest {
                profile: Some(found),
                update_mask: Some(with_keeper(&[])),
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
                Some(found) => {
                    let is_new = found.managed_by.is_empty();
                    let update = UpdateRuleRequest {
                        rule: Some(analytics::Rule { etag: found.etag, ..wanted }),
                        update_mask: is_new.then(|| with_keeper(&RULE_FIELDS)),
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
                update_mask: Some(with_keeper(&[])),
                managed_by: String::new(),
                ..UpdateRuleRequest::default()
            };
            stub.update_rule(place.request(update)).await.map(drop).map_err(from_status)
        })
    }
}
