//! Full resource names: `tenants/{tenant}`, `tenants/{tenant}/{collection}/{id}`, and one level below a device.

use crate::{DeviceId, Error, Result, TenantId};

/// `tenants/{tenant}`.
pub fn tenant(tenant: &TenantId) -> String {
    format!("tenants/{tenant}")
}

/// `tenants/{tenant}/{collection}/{id}`.
pub fn child(tenant: &TenantId, collection: &str, id: impl std::fmt::Display) -> String {
    format!("tenants/{tenant}/{collection}/{id}")
}

/// `tenants/{tenant}/devices/{device}`.
pub fn device(tenant: &TenantId, device: &DeviceId) -> String {
    child(tenant, "devices", device)
}

/// `tenants/{tenant}/devices/{device}/credentials/{credential}`.
pub fn credential(tenant: &TenantId, device: &DeviceId, credential: &str) -> String {
    format!("tenants/{tenant}/devices/{device}/credentials/{credential}")
}

/// Parses `tenants/{tenant}`.
///
/// # Errors
/// `NAME_INVALID` that shows the expected form.
pub fn parse_tenant(field: &str, name: &str) -> Result<TenantId> {
    match name.split('/').collect::<Vec<_>>().as_slice() {
        ["tenants", tenant] => TenantId::new(tenant).map_err(|error| error.with_field(field)),
        _ => Err(invalid(field, name, "tenants/{tenant}")),
    }
}

/// Parses `tenants/{tenant}/{collection}/{id}` and gives tenant and id.
///
/// # Errors
/// `NAME_INVALID` that shows the expected form.
pub fn parse_child<'a>(field: &str, name: &'a str, collection: &str) -> Result<(TenantId, &'a str)> {
    match name.split('/').collect::<Vec<_>>().as_slice() {
        ["tenants", tenant, found, id] if *found == collection && !id.is_empty() => {
            Ok((TenantId::new(tenant).map_err(|error| error.with_field(field))?, id))
        }
        _ => Err(invalid(field, name, &format!("tenants/{{tenant}}/{collection}/{{id}}"))),
    }
}

/// Parses `tenants/{tenant}/devices/{device}`.
///
/// # Errors
/// `NAME_INVALID` that shows the expected form, or what is wrong with the id.
pub fn parse_device(field: &str, name: &str) -> Result<(TenantId, DeviceId)> {
    let (tenant, id) = parse_child(field, name, "devices")?;
    Ok((tenant, DeviceId::new(id).map_err(|error| error.with_field(field))?))
}

/// Parses `tenants/{tenant}/devices/{device}/credentials/{credential}`.
///
/// # Errors
/// `NAME_INVALID` that shows the expected form.
pub fn parse_credential<'a>(field: &str, name: &'a str) -> Result<(TenantId, DeviceId, &'a str)> {
    match name.rsplit_once("/credentials/") {
        Some((parent, id)) if !id.is_empty() && !id.contains('/') => {
            let (tenant, device) = parse_device(field, parent)?;
            Ok((tenant, device, id))
        }
        _ => Err(invalid(field, name, "tenants/{tenant}/devices/{device}/credentials/{id}")),
    }
}

fn invalid(field: &str, name: &str, form: &str) -> Error {
    let shown: String = name.chars().take(200).collect();
    Error::invalid(field, "NAME_INVALID", format!("{field} {shown:?} must have the form {form}"))
}
