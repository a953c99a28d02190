//! `DirectoryService`: the call port, for other services.

use std::sync::Arc;

use prost::Message as _;
use tonic::Request;
use weir_core::{DeviceId, Error, Result, TenantId, port::Registry, selector::Selector};
use weir_grpc::{
    Answer,
    internal::{open, registry as convert},
};
use weir_proto::registry::v1::{
    AuthenticateRequest, AuthenticateResponse, FindDeviceRequest, FindDeviceResponse, FindProfileRequest,
    FindProfileResponse, SelectDevicesRequest, SelectDevicesResponse,
    directory_service_server::DirectoryService,
};

use super::reply;

/// Devices in one answer at most: what the callers ask for at once, and few enough to be read in one go.
const DEVICES_MAX: usize = 1_000;
/// Bytes of one answer, about: half of what a client of gRPC takes by default, since a device has at most a few KiB.
const BYTES_MAX: usize = 2 << 20;

/// Answers by the port.
pub(super) struct Directory(pub(super) Arc<dyn Registry>);

#[tonic::async_trait]
impl DirectoryService for Directory {
    async fn authenticate(&self, request: Request<AuthenticateRequest>) -> Answer<AuthenticateResponse> {
        let asked = open(request)?;
        reply(async { convert::from_authenticated(self.0.authenticate(&asked.token).await) }).await
    }

    async fn find_device(&self, request: Request<FindDeviceRequest>) -> Answer<FindDeviceResponse> {
        let asked = open(request)?;
        reply(async {
            let (tenant, device) = (TenantId::new(&asked.tenant)?, DeviceId::new(&asked.device)?);
            let device = self.0.device(&tenant, &device).await?;
            Ok(FindDeviceResponse { device: Some(convert::from_device(&device)) })
        })
        .await
    }

    async fn find_profile(&self, request: Request<FindProfileRequest>) -> Answer<FindProfileResponse> {
        let asked = open(request)?;
        reply(async {
            let tenant = TenantId::new(&asked.tenant)?;
            let profile = self.0.profile(&tenant, &asked.profile).await?;
            Ok(FindProfileResponse { profile: Some(convert::from_profile(&tenant, &profile)) })
        })
        .await
    }

    async fn select_devices(&self, request: Request<SelectDevicesRequest>) -> Answer<SelectDevicesResponse> {
        let asked = open(request)?;
        reply(self.select(asked)).await
    }
}

impl Directory {
    async fn select(&self, asked: SelectDevicesRequest) -> Result<SelectDevicesResponse> {
        let tenant = TenantId::new(&asked.tenant)?;
        let selector: Selector = asked.label_selector.parse()?;
        let after = match asked.after.as_str() {
            "" => None,
            after => Some(DeviceId::new(after).map_err(|error| error.with_field("after"))?),
        };
        let wanted = usize::try_from(asked.limit).unwrap_or(usize::MAX);
        if wanted == 0 {
            return Err(Error::invalid("limit", "LIMIT_INVALID", "limit is 0, it must be 1 or more"));
        }
        let limit = wanted.min(DEVICES_MAX);
        let found = self.0.select(&tenant, &selector, after.as_ref(), limit).await?;
        let full = found.len() == limit;
        let mut bytes = 0;
        let devices: Vec<_> = found
            .iter()
            .map(|device| convert::from_device(device))
            .take_while(|device| {
                let room = bytes < BYTES_MAX; // so there is one device at least
                bytes += device.encoded_len();
                room
            })
            .collect();
        let more = devices.len() < found.len() || (full && limit < wanted);
        Ok(SelectDevicesResponse { devices, more })
    }
}
