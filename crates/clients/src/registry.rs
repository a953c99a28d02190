//! The registry in another process.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use weir_core::{
    DeviceId, Error, ErrorKind, Result, TenantId,
    device::{Device, Profile},
    name,
    port::Registry,
    principal::Principal,
    selector::Selector,
};
use weir_grpc::internal::{registry as convert, required};
use weir_proto::registry::v1::{
    AuthenticateRequest, FindDeviceRequest, FindProfileRequest, SelectDevicesRequest,
    directory_service_client::DirectoryServiceClient as Client,
};

use crate::{Peer, not_an_answer};

/// A few reads of the store at most.
const FIND_MAX: Duration = Duration::from_secs(5);
/// A selection may read every device of a tenant.
const SELECT_MAX: Duration = Duration::from_secs(30);

/// [`Registry`] over gRPC.
#[derive(Debug, Clone)]
pub struct RegistryClient {
    peer: Peer,
}

impl RegistryClient {
    /// Asks `peer`.
    pub fn new(peer: Peer) -> Self {
        Self { peer }
    }
}

#[async_trait]
impl Registry for RegistryClient {
    async fn authenticate(&self, token: &str) -> Result<Principal> {
        let request = AuthenticateRequest { token: token.to_owned() };
        let answer = self.peer.call(FIND_MAX, request, async |channel, request| {
            Client::new(channel).authenticate(request).await
        });
        match convert::to_authenticated(answer.await?) {
            Err(error) if error.kind() != ErrorKind::Unauthenticated => Err(not_an_answer(error)),
            answer => answer,
        }
    }

    async fn device(&self, tenant: &TenantId, device: &DeviceId) -> Result<Arc<Device>> {
        let request =
            FindDeviceRequest { tenant: tenant.as_str().to_owned(), device: device.as_str().to_owned() };
        let answer = self.peer.call(FIND_MAX, request, async |channel, request| {
            Client::new(channel).find_device(request).await
        });
        let found = required("device", answer.await?.device).and_then(convert::to_device);
        found.map(Arc::new).map_err(not_an_answer)
    }

    async fn profile(&self, tenant: &TenantId, profile: &str) -> Result<Arc<Profile>> {
        if profile == Profile::DEFAULT_ID {
            return Ok(Arc::default()); // part of Weir, the same in every process
        }
        let request = FindProfileRequest { tenant: tenant.as_str().to_owned(), profile: profile.to_owned() };
        let answer = self.peer.call(FIND_MAX, request, async |channel, request| {
            Client::new(channel).find_profile(request).await
        });
        let found = required("profile", answer.await?.profile).and_then(convert::to_profile);
        found.map(Arc::new).map_err(not_an_answer)
    }

    async fn select(
        &self,
        tenant: &TenantId,
        selector: &Selector,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<Arc<Device>>> {
        let mut found: Vec<Arc<Device>> = Vec::new();
        while found.len() < limit {
            let after = found.last().map_or(after, |last| Some(&last.id));
            let request = SelectDevicesRequest {
                tenant: tenant.as_str().to_owned(),
                label_selector: selector.to_string(),
                after: after.map(|after| after.as_str().to_owned()).unwrap_or_default(),
                limit: u32::try_from(limit - found.len()).unwrap_or(u32::MAX),
            };
            let answer = self.peer.call(SELECT_MAX, request, async |channel, request| {
                Client::new(channel).select_devices(request).await
            });
            let page = answer.await?;
            if page.more && page.devices.is_empty() {
                let what = format!("{} has devices that were not given", name::tenant(tenant));
                return Err(Error::internal(what));
            }
            for device in page.devices {
                found.push(Arc::new(convert::to_device(device).map_err(not_an_answer)?));
            }
            if !page.more {
                break;
            }
        }
        Ok(found)
    }
}
