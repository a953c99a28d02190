//! The registry's domain as it is written on the wire.

use weir_core::{
    DeviceId, Error, Result, TenantId, ValueType,
    device::{self, Device, OnBadTime, Profile},
    name,
    principal::Scope,
};
use weir_grpc::{
    convert::{from_timestamp, to_duration},
    internal::registry as internal,
};
use weir_proto::registry::v1 as pb;

use crate::{
    devices::DeviceSpec,
    edit::etag,
    store::{CredentialRecord, ProfileRecord, Tenant, TokenRecord, Versioned},
    tenants::TenantSpec,
    validate,
};

/// More are a document, not a kind of device.
const METRICS_MAX: usize = 256;
/// UCUM's longest in practice are half of it.
const UNIT_MAX: usize = 32;
const DESCRIPTION_MAX: usize = 1_024;

/// The etag of a record; none of one that was only checked or is in no store.
fn etag_of(version: u64) -> String {
    if version == 0 { String::new() } else { etag(version) }
}

pub(super) fn to_tenant_spec(tenant: pb::Tenant) -> TenantSpec {
    TenantSpec { display_name: tenant.display_name, disabled: tenant.disabled }
}

pub(super) fn from_tenant(tenant: Versioned<Tenant>) -> pb::Tenant {
    let Versioned { value, version } = tenant;
    pb::Tenant {
        name: name::tenant(&value.id),
        display_name: value.display_name,
        disabled: value.disabled,
        etag: etag_of(version),
        create_time: Some(from_timestamp(value.created_at)),
        update_time: Some(from_timestamp(value.updated_at)),
        managed_by: value.managed_by.to_string(),
    }
}

pub(super) fn to_scopes(scopes: &[i32]) -> Result<Vec<Scope>> {
    let to_scope = |(index, scope): (usize, &i32)| match pb::Scope::try_from(*scope) {
        Ok(pb::Scope::Platform) => Ok(Scope::Platform),
        Ok(pb::Scope::Admin) => Ok(Scope::Admin),
        Ok(pb::Scope::Provision) => Ok(Scope::Provision),
        Ok(pb::Scope::Write) => Ok(Scope::Write),
        Ok(pb::Scope::Read) => Ok(Scope::Read),
        Ok(pb::Scope::Unspecified) | Err(_) => {
            let known = Scope::ALL.map(Scope::as_str).join(", ");
            let what = format!("scope {scope} must be one of {known}");
            Err(Error::invalid(format!("scopes[{index}]"), "SCOPE_INVALID", what))
        }
    };
    scopes.iter().enumerate().map(to_scope).collect()
}

pub(super) fn from_token(tenant: &TenantId, token: TokenRecord) -> pb::Token {
    pb::Token {
        name: name::child(tenant, "tokens", &token.id),
        scopes: token.scopes.into_iter().map(|scope| internal::from_scope(scope) as i32).collect(),
        display_name: token.display_name,
        expire_time: token.expires_at.map(from_timestamp),
        create_time: Some(from_timestamp(token.created_at)),
    }
}

pub(super) fn from_credential(
    tenant: &TenantId,
    device: &DeviceId,
    credential: CredentialRecord,
) -> pb::Credential {
    pb::Credential {
        name: name::credential(tenant, device, &credential.id),
        expire_time: credential.expires_at.map(from_timestamp),
        create_time: Some(from_timestamp(credential.created_at)),
    }
}

pub(super) fn to_device_spec(tenant: &TenantId, device: pb::Device) -> Result<DeviceSpec> {
    let profile = match device.profile.as_str() {
        "" => Profile::DEFAULT_ID.to_owned(),
        full_name => {
            let (of, id) = name::parse_child("device.profile", full_name, "profiles")?;
            if of != *tenant {
                return Err(Error::permission_denied(format!("tenants/{of} is another tenant"))
                    .with_field("device.profile"));
            }
            id.to_owned()
        }
    };
    Ok(DeviceSpec {
        profile,
        labels: device.labels.into_iter().collect(),
        attributes: device.attributes.into_iter().collect(),
        disabled: device.disabled,
        gateway: device.gateway,
    })
}

pub(super) fn from_device(device: Versioned<Device>) -> pb::Device {
    let Versioned { value, version } = device;
    let mut device = internal::from_device(&value);
    if version == 0 {
        device.uid.clear(); // one that was only checked has no uid yet
    }
    pb::Device { etag: etag_of(version), ..device }
}

/// A profile from the wire; what this release does not enforce is refused by name.
pub(super) fn to_profile(id: &str, profile: pb::Profile) -> Result<Profile> {
    refuse_not_built(&profile)?;
    if profile.metrics.len() > METRICS_MAX {
        return Err(validate::too_many("profile.metrics", profile.metrics.len(), METRICS_MAX));
    }
    let mut made = Profile { id: id.to_owned(), gateway: profile.gateway, ..Profile::default() };
    for (index, metric) in profile.metrics.into_iter().enumerate() {
        let path = format!("profile.metrics[{index}]");
        let (name, metric) = to_metric(&path, metric)?;
        if made.metrics.contains_key(name.as_str()) {
            let what = format!("metric {name:?} is declared twice");
            return Err(Error::invalid(format!("{path}.name"), "METRIC_DUPLICATE", what));
        }
        made.metrics.insert(name.into(), metric);
    }
    if let Some(time) = profile.time {
        made.past = time.past.as_ref().map(|past| to_duration("profile.time.past", past)).transpose()?;
        if let Some(future) = &time.future {
            made.future = to_duration("profile.time.future", future)?;
        }
        made.on_bad_time = match known("profile.time.on_bad_time", time.on_bad_time)? {
            pb::OnBadTime::Unspecified | pb::OnBadTime::Refuse => OnBadTime::Refuse,
            pb::OnBadTime::Arrival => OnBadTime::Arrival,
        };
    }
    Ok(made)
}

fn refuse_not_built(profile: &pb::Profile) -> Result<()> {
    let unknown_metrics: pb::UnknownMetrics = known("profile.unknown_metrics", profile.unknown_metrics)?;
    if unknown_metrics == pb::UnknownMetrics::Refuse {
        return Err(Error::not_built("profile.unknown_metrics", "refusing metrics that are not declared"));
    }
    let on_error: pb::OnError = known("profile.on_error", profile.on_error)?;
    if on_error == pb::OnError::DeadLetter {
        return Err(Error::not_built("profile.on_error", "keeping bad payloads by profile"));
    }
    if profile.retention.is_some() {
        return Err(Error::not_built("profile.retention", "retention"));
    }
    if !profile.commands.is_empty() {
        return Err(Error::not_built("profile.commands", "declaring commands"));
    }
    for (index, metric) in profile.metrics.iter().enumerate() {
        let bounds = [("min", metric.min), ("max", metric.max)];
        if let Some((bound, _)) = bounds.iter().find(|(_, value)| value.is_some()) {
            let field = format!("profile.metrics[{index}].{bound}");
            return Err(Error::not_built(field, format!("the bound {bound} of a metric")));
        }
    }
    Ok(())
}

fn known<E: TryFrom<i32>>(field: &str, number: i32) -> Result<E> {
    E::try_from(number).map_err(|_| {
        Error::invalid(field, "ENUM_INVALID", format!("{field} has the number {number}, which is not known"))
    })
}

fn to_metric(path: &str, metric: pb::Metric) -> Result<(String, device::Metric)> {
    validate::metric_name(&format!("{path}.name"), &metric.name)?;
    validate::text(&format!("{path}.unit"), &metric.unit, UNIT_MAX)?;
    validate::text(&format!("{path}.description"), &metric.description, DESCRIPTION_MAX)?;
    let field = format!("{path}.type");
    let value_type = match known(&field, metric.r#type)? {
        pb::MetricType::Double => ValueType::Double,
        pb::MetricType::Int64 => ValueType::Int64,
        pb::MetricType::Bool => ValueType::Bool,
        pb::MetricType::String => ValueType::String,
        pb::MetricType::Bytes => ValueType::Bytes,
        pb::MetricType::Unspecified => {
            let what = format!("metric {:?} has no type", metric.name);
            return Err(Error::invalid(field, "METRIC_TYPE_MISSING", what));
        }
    };
    let made = device::Metric { value_type, unit: metric.unit, description: metric.description };
    Ok((metric.name, made))
}

pub(super) fn from_profile(tenant: &TenantId, profile: Versioned<ProfileRecord>) -> pb::Profile {
    let Versioned { value, version } = profile;
    let ProfileRecord { profile, revision, created_at, updated_at, managed_by, .. } = value;
    let is_default = profile.id == Profile::DEFAULT_ID;
    pb::Profile {
        revision,
        etag: etag_of(version),
        // `default` was never made: it is part of Weir
        create_time: (!is_default).then(|| from_timestamp(created_at)),
        update_time: (!is_default).then(|| from_timestamp(updated_at)),
        managed_by: managed_by.to_string(),
        ..internal::from_profile(tenant, &profile)
    }
}
