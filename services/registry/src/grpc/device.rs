//! `DeviceService`.

use futures::{StreamExt, stream};
use tonic::Request;
use weir_core::{DeviceId, Error, Result, TenantId, name, principal::Scope, selector::Selector};
use weir_grpc::{Answer, page, to_item};
use weir_proto::registry::v1::{
    BatchCreateDevicesItem, BatchCreateDevicesRequest, BatchCreateDevicesResponse, CreateDeviceRequest,
    CreateDeviceResponse, DeleteDeviceRequest, DeleteDeviceResponse, Device, GetDeviceRequest,
    GetDeviceResponse, ListDevicesRequest, ListDevicesResponse, UpdateDeviceRequest, UpdateDeviceResponse,
    device_service_server::DeviceService,
};

use super::{after, convert, open, reply, require_read, required};
use crate::{Service, devices::DeviceSpec, edit::Mask, store::Versioned, validate};

/// One call's worth of work: some hundred milliseconds.
const BATCH_MAX: usize = 1_000;
/// Devices of a batch that are made at once: an engine syncs them together.
const BATCH_WIDTH: usize = 64;

#[tonic::async_trait]
impl DeviceService for Service {
    async fn create_device(&self, request: Request<CreateDeviceRequest>) -> Answer<CreateDeviceResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let tenant = name::parse_tenant("parent", &request.parent)?;
            caller.require(&tenant, Scope::Provision)?;
            Ok(CreateDeviceResponse { device: Some(self.create_one(&tenant, request).await?) })
        })
        .await
    }

    async fn batch_create_devices(
        &self,
        request: Request<BatchCreateDevicesRequest>,
    ) -> Answer<BatchCreateDevicesResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let tenant = name::parse_tenant("parent", &request.parent)?;
            caller.require(&tenant, Scope::Provision)?;
            if request.requests.is_empty() || request.requests.len() > BATCH_MAX {
                return Err(validate::too_many("requests", request.requests.len(), BATCH_MAX));
            }
            let work = request.requests.into_iter().map(|one| self.create_item(&tenant, one));
            let items = stream::iter(work).buffered(BATCH_WIDTH).collect().await;
            Ok(BatchCreateDevicesResponse { items })
        })
        .await
    }

    async fn get_device(&self, request: Request<GetDeviceRequest>) -> Answer<GetDeviceResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let (tenant, id) = name::parse_device("name", &request.name)?;
            require_read(&caller, &tenant)?;
            let found = self.read_device(&tenant, &id).await?;
            let device = Versioned { value: found.value.device, version: found.version };
            Ok(GetDeviceResponse { device: Some(convert::from_device(device)) })
        })
        .await
    }

    async fn list_devices(&self, request: Request<ListDevicesRequest>) -> Answer<ListDevicesResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let tenant = name::parse_tenant("parent", &request.parent)?;
            require_read(&caller, &tenant)?;
            let selector: Selector = request.label_selector.parse()?;
            let (size, after) = (page::size(request.page_size)?, after(&request.page_token)?);
            let found = self.list_devices(&tenant, &selector, after, size).await?;
            Ok(ListDevicesResponse {
                devices: found.devices.into_iter().map(convert::from_device).collect(),
                next_page_token: found.next.map(|id| page::token(id.as_str())).unwrap_or_default(),
            })
        })
        .await
    }

    async fn update_device(&self, request: Request<UpdateDeviceRequest>) -> Answer<UpdateDeviceResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let device = required("device", request.device)?;
            let (tenant, id) = name::parse_device("device.name", &device.name)?;
            caller.require(&tenant, Scope::Provision)?;
            let mask = Mask::new(request.update_mask.map(|mask| mask.paths), &DeviceSpec::FIELDS)?;
            let etag = device.etag.clone();
            let spec = convert::to_device_spec(&tenant, device)?;
            let device = self.change_device(&tenant, &id, spec, &mask, &etag).await?;
            Ok(UpdateDeviceResponse { device: Some(convert::from_device(device)) })
        })
        .await
    }

    async fn delete_device(&self, request: Request<DeleteDeviceRequest>) -> Answer<DeleteDeviceResponse> {
        let (caller, request) = open(request)?;
        reply(async {
            let (tenant, id) = name::parse_device("name", &request.name)?;
            caller.require(&tenant, Scope::Provision)?;
            self.delete_device(&tenant, &id, &request.etag).await?;
            Ok(DeleteDeviceResponse {})
        })
        .await
    }
}

impl Service {
    async fn create_one(&self, tenant: &TenantId, request: CreateDeviceRequest) -> Result<Device> {
        let id = DeviceId::new(&request.device_id).map_err(|error| error.with_field("device_id"))?;
        let spec = convert::to_device_spec(tenant, request.device.unwrap_or_default())?;
        let device = self.new_device(tenant, &id, spec, &request.request_id, request.validate_only).await?;
        Ok(convert::from_device(device))
    }

    async fn create_item(&self, tenant: &TenantId, request: CreateDeviceRequest) -> BatchCreateDevicesItem {
        let own = name::tenant(tenant);
        let made = if request.parent.is_empty() || request.parent == own {
            self.create_one(tenant, request).await
        } else {
            Err(Error::invalid("parent", "PARENT_INVALID", format!("parent must be empty or {own}")))
        };
        match made {
            Ok(device) => BatchCreateDevicesItem { status: Some(to_item(Ok(()))), device: Some(device) },
            Err(error) => BatchCreateDevicesItem { status: Some(to_item(Err(&error))), device: None },
        }
    }
}
