//! `DirectoryService` of `weir.registry.v1`.

use std::sync::Arc;

use weir_core::{
    DeviceId, Error, Result, TenantId, ValueType,
    device::{Device, Metric, OnBadTime, Profile},
    name,
    principal::{Principal, Scope},
};
use weir_proto::registry::v1::{self as pb, authenticate_response};

use super::{required, unknown};
use crate::{
    convert::{from_duration, from_timestamp, to_duration, to_duration_opt, to_timestamp},
    status::{from_item, to_item},
};

/// The answer to Authenticate: the holder, or why there is none.
///
/// # Errors
/// What is not about the token, such as `Unavailable`: the call itself failed.
pub fn from_authenticated(result: Result<Principal>) -> Result<pb::AuthenticateResponse> {
    use authenticate_response::Result as Outcome;
    let outcome = match result {
        Ok(Principal::Token { id, tenant, scopes }) => Outcome::Token(pb::TokenHolder {
            token_id: id,
            tenant: tenant.map(String::from).unwrap_or_default(),
            scopes: scopes.into_iter().map(|scope| from_scope(scope) as i32).collect(),
        }),
        Ok(Principal::Device { tenant, device, uid, credential }) => Outcome::Device(pb::DeviceHolder {
            tenant: tenant.into(),
            device: device.into(),
            uid: super::from_uid(uid),
            credential_id: credential,
        }),
        Ok(Principal::Service) => return Err(Error::internal("a registry knows no services")),
        Err(error) if error.kind() == weir_core::ErrorKind::Unauthenticated => {
            Outcome::Refused(to_item(Err(&error)))
        }
        Err(error) => return Err(error),
    };
    Ok(pb::AuthenticateResponse { result: Some(outcome) })
}

/// The holder of a token, from the answer to Authenticate.
///
/// # Errors
/// `Unauthenticated` where it is refused; `InvalidArgument` for what cannot be an answer.
pub fn to_authenticated(response: pb::AuthenticateResponse) -> Result<Principal> {
    use authenticate_response::Result as Outcome;
    match required("result", response.result)? {
        Outcome::Token(token) => Ok(Principal::Token {
            id: token.token_id,
            tenant: if token.tenant.is_empty() { None } else { Some(TenantId::new(&token.tenant)?) },
            scopes: token.scopes.into_iter().map(to_scope).collect::<Result<_>>()?,
        }),
        Outcome::Device(device) => Ok(Principal::Device {
            tenant: TenantId::new(&device.tenant)?,
            device: DeviceId::new(&device.device)?,
            uid: super::to_uid("device.uid", &device.uid)?,
            credential: device.credential_id,
        }),
        Outcome::Refused(status) => {
            from_item(&status)?;
            Err(Error::invalid("refused", "STATUS_INVALID", "the token is refused with the status OK"))
        }
    }
}

/// A scope on the wire.
pub fn from_scope(scope: Scope) -> pb::Scope {
    match scope {
        Scope::Platform => pb::Scope::Platform,
        Scope::Admin => pb::Scope::Admin,
        Scope::Provision => pb::Scope::Provision,
        Scope::Write => pb::Scope::Write,
        Scope::Read => pb::Scope::Read,
    }
}

fn to_scope(scope: i32) -> Result<Scope> {
    match pb::Scope::try_from(scope) {
        Ok(pb::Scope::Platform) => Ok(Scope::Platform),
        Ok(pb::Scope::Admin) => Ok(Scope::Admin),
        Ok(pb::Scope::Provision) => Ok(Scope::Provision),
        Ok(pb::Scope::Write) => Ok(Scope::Write),
        Ok(pb::Scope::Read) => Ok(Scope::Read),
        Ok(pb::Scope::Unspecified) | Err(_) => Err(unknown("token.scopes", scope)),
    }
}

/// A device on the wire, without an etag.
pub fn from_device(device: &Device) -> pb::Device {
    let texts = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    pb::Device {
        name: name::device(&device.tenant, &device.id),
        uid: device.uid.to_string(),
        profile: name::child(&device.tenant, "profiles", &device.profile),
        labels: texts(&device.labels),
        attributes: texts(&device.attributes),
        disabled: !device.enabled,
        gateway: device.gateway,
        etag: String::new(),
        create_time: Some(from_timestamp(device.created_at)),
        update_time: Some(from_timestamp(device.updated_at)),
    }
}

/// A device from the wire.
///
/// # Errors
/// `InvalidArgument` for a name, uid or time that is missing or cannot be one.
pub fn to_device(device: pb::Device) -> Result<Device> {
    let (tenant, id) = name::parse_device("device.name", &device.name)?;
    let (of, profile) = name::parse_child("device.profile", &device.profile, "profiles")?;
    if of != tenant {
        let what = format!("the profile of tenants/{tenant} is of tenants/{of}");
        return Err(Error::invalid("device.profile", "TENANT_MISMATCH", what));
    }
    let time = |field: &str, ts: Option<prost_types::Timestamp>| to_timestamp(field, &required(field, ts)?);
    Ok(Device {
        id,
        uid: device.uid.parse().map_err(|error: Error| error.with_field("device.uid"))?,
        profile: profile.to_owned(),
        labels: device.labels.into_iter().collect(),
        attributes: device.attributes.into_iter().collect(),
        enabled: !device.disabled,
        gateway: device.gateway,
        created_at: time("device.create_time", device.create_time)?,
        updated_at: time("device.update_time", device.update_time)?,
        tenant,
    })
}

/// A profile on the wire, without what the registry keeps beside it.
pub fn from_profile(tenant: &TenantId, profile: &Profile) -> pb::Profile {
    let on_bad_time = match profile.on_bad_time {
        OnBadTime::Refuse => pb::OnBadTime::Refuse,
        OnBadTime::Arrival => pb::OnBadTime::Arrival,
    };
    pb::Profile {
        name: name::child(tenant, "profiles", &profile.id),
        metrics: profile.metrics.iter().map(|(name, metric)| from_metric(name, metric)).collect(),
        unknown_metrics: pb::UnknownMetrics::Accept as i32,
        time: Some(pb::TimePolicy {
            past: profile.past.map(from_duration),
            future: Some(from_duration(profile.future)),
            on_bad_time: on_bad_time as i32,
        }),
        on_error: pb::OnError::Refuse as i32,
        gateway: profile.gateway,
        ..Default::default()
    }
}

/// A profile from the wire.
///
/// # Errors
/// `InvalidArgument` for a part that is missing or cannot be one.
pub fn to_profile(profile: pb::Profile) -> Result<Profile> {
    let (_, id) = name::parse_child("profile.name", &profile.name, "profiles")?;
    let time = required("profile.time", profile.time)?;
    let future = required("profile.time.future", time.future)?;
    Ok(Profile {
        id: id.to_owned(),
        metrics: profile.metrics.into_iter().map(to_metric).collect::<Result<_>>()?,
        gateway: profile.gateway,
        past: to_duration_opt("profile.time.past", time.past.as_ref())?,
        future: to_duration("profile.time.future", &future)?,
        on_bad_time: match pb::OnBadTime::try_from(time.on_bad_time) {
            Ok(pb::OnBadTime::Unspecified | pb::OnBadTime::Refuse) => OnBadTime::Refuse,
            Ok(pb::OnBadTime::Arrival) => OnBadTime::Arrival,
            Err(_) => return Err(unknown("profile.time.on_bad_time", time.on_bad_time)),
        },
    })
}

fn from_metric(name: &str, metric: &Metric) -> pb::Metric {
    let value_type = match metric.value_type {
        ValueType::Double => pb::MetricType::Double,
        ValueType::Int64 => pb::MetricType::Int64,
        ValueType::Bool => pb::MetricType::Bool,
        ValueType::String => pb::MetricType::String,
        ValueType::Bytes => pb::MetricType::Bytes,
    };
    pb::Metric {
        name: name.to_owned(),
        r#type: value_type as i32,
        unit: metric.unit.clone(),
        description: metric.description.clone(),
        min: None,
        max: None,
    }
}

fn to_metric(metric: pb::Metric) -> Result<(Arc<str>, Metric)> {
    let value_type = match pb::MetricType::try_from(metric.r#type) {
        Ok(pb::MetricType::Double) => ValueType::Double,
        Ok(pb::MetricType::Int64) => ValueType::Int64,
        Ok(pb::MetricType::Bool) => ValueType::Bool,
        Ok(pb::MetricType::String) => ValueType::String,
        Ok(pb::MetricType::Bytes) => ValueType::Bytes,
        Ok(pb::MetricType::Unspecified) | Err(_) => {
            return Err(unknown("profile.metrics.type", metric.r#type));
        }
    };
    let made = Metric { value_type, unit: metric.unit, description: metric.description };
    Ok((metric.name.into(), made))
}
