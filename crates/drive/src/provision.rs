//! Devices and tokens for those who send.

use std::{collections::HashMap, time::Duration};

use weir_core::{Error, ErrorKind, Result, name};
use weir_grpc::{convert::from_duration, from_status, status::from_item};
use weir_proto::registry::v1 as pb;

use crate::Place;

/// A token made for one run works no longer than this, should the run not get to revoke it.
const TOKEN_TTL: Duration = Duration::from_secs(86_400);
/// What one batch call takes.
const BATCH_MAX: usize = 1_000;

/// A device's token and the credential's full name, to revoke it by.
#[derive(Debug, Clone)]
pub struct Token {
    /// `wd_<id>_<secret>`.
    pub secret: String,
    /// The credential.
    pub name: String,
}

/// Creates the devices that are not there yet.
///
/// # Errors
/// What the first refused one says.
pub async fn create(place: &Place, devices: &[String], labels: &HashMap<String, String>) -> Result<()> {
    let mut stub = place.connection.devices();
    for devices in devices.chunks(BATCH_MAX) {
        let requests = devices.iter().map(|device| pb::CreateDeviceRequest {
            device_id: device.clone(),
            device: Some(pb::Device { labels: labels.clone(), ..Default::default() }),
            ..Default::default()
        });
        let request = pb::BatchCreateDevicesRequest {
            parent: name::tenant(&place.tenant),
            requests: requests.collect(),
        };
        let answer = stub.batch_create_devices(request).await.map_err(from_status)?.into_inner();
        for (item, device) in answer.items.iter().zip(devices) {
            match from_item(&item.status.clone().unwrap_or_default()) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                created => created.map_err(|error| error.context(format!("device {device}")))?,
            }
        }
    }
    Ok(())
}

/// Checks that a device exists.
///
/// # Errors
/// `NotFound` with what to do.
pub async fn check(place: &Place, device: &str) -> Result<()> {
    let request = pb::GetDeviceRequest { name: name::child(&place.tenant, "devices", device) };
    match place.connection.devices().get_device(request).await.map_err(from_status) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::new(
            ErrorKind::NotFound,
            "NOT_FOUND",
            format!("device {device} does not exist; create it, or give --create"),
        )),
        found => found.map(drop),
    }
}

/// Issues a token.
///
/// # Errors
/// What the registry says.
pub async fn token(place: &Place, device: &str) -> Result<Token> {
    let parent = name::child(&place.tenant, "devices", device);
    let request = pb::IssueCredentialRequest { parent, ttl: Some(from_duration(TOKEN_TTL)) };
    let answer =
        place.connection.credentials().issue_credential(request).await.map_err(from_status)?.into_inner();
    Ok(Token { secret: answer.secret, name: answer.credential.unwrap_or_default().name })
}

/// Revokes a token.
///
/// # Errors
/// What the registry says.
pub async fn revoke(place: &Place, token: &Token) -> Result<()> {
    let request = pb::RevokeCredentialRequest { name: token.name.clone() };
    place.connection.credentials().revoke_credential(request).await.map_err(from_status).map(drop)
}

/// Deletes a device with everything of it.
///
/// # Errors
/// What the registry says.
pub async fn delete(place: &Place, device: &str) -> Result<()> {
    let name = name::child(&place.tenant, "devices", device);
    let request = pb::DeleteDeviceRequest { name, etag: String::new() };
    place.connection.devices().delete_device(request).await.map_err(from_status).map(drop)
}
