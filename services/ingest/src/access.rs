//! Who a device is, and for whom it may speak.

use std::sync::Arc;

use tokio::sync::broadcast;
use weir_core::{
    DeviceId, Error, Message, Reading, Result, TenantId, Uid,
    command::DeviceKey,
    device::{Device, Profile},
};

/// A device and what it may send.
#[derive(Debug, Clone)]
pub(crate) struct DeviceAccess {
    pub(crate) device: Arc<Device>,
    pub(crate) profile: Arc<Profile>,
}

/// A device that showed a credential.
#[derive(Debug, Clone)]
pub(crate) struct Authenticated {
    pub(crate) access: DeviceAccess,
    /// The public id of the credential.
    pub(crate) credential: Arc<str>,
    /// What it showed, to be shown again by [`Access::recheck`].
    pub(crate) token: Arc<str>,
}

/// Something about a device changed: whoever holds a connection of it calls [`Access::recheck`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// This device or one of its credentials.
    Device(TenantId, Uid),
    /// Whatever it was, this tenant's.
    Tenant(TenantId),
    /// Hints may have been lost.
    Unknown,
}

impl Change {
    /// Whether it may be about this device.
    pub(crate) fn concerns(&self, device: &Device) -> bool {
        match self {
            Self::Device(tenant, uid) => *tenant == device.tenant && *uid == device.uid,
            Self::Tenant(tenant) => *tenant == device.tenant,
            Self::Unknown => true,
        }
    }
}

/// Resolves devices.
pub(crate) struct Access {
    changes: broadcast::Sender<Change>,
}

impl Access {
    /// The device that holds `token`, which must be a device's (`wd_…`).
    pub(crate) async fn authenticate(&self, _token: &str) -> Result<Authenticated> {
        Err(Error::internal("skeleton"))
    }

    /// Asks the registry again, past every cache: an error says that the connection must end.
    pub(crate) async fn recheck(&self, _known: &Authenticated) -> Result<Authenticated> {
        Err(Error::internal("skeleton"))
    }

    /// A device by its public id; at most 30 s old.
    pub(crate) async fn device(&self, _tenant: &TenantId, _device: &DeviceId) -> Result<DeviceAccess> {
        Err(Error::internal("skeleton"))
    }

    /// The child for which `gateway` speaks.
    pub(crate) async fn child(&self, _gateway: &DeviceAccess, _child: &str) -> Result<DeviceAccess> {
        Err(Error::internal("skeleton"))
    }

    /// What changes from now on. A receiver that lags has lost hints: take it for [`Change::Unknown`].
    pub(crate) fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }
}

impl DeviceAccess {
    /// Whether it may speak for children.
    pub(crate) fn is_gateway(&self) -> bool {
        self.device.gateway || self.profile.gateway
    }

    /// As the key of its commands.
    pub(crate) fn key(&self) -> DeviceKey {
        DeviceKey { tenant: self.device.tenant.clone(), device: self.device.id.clone(), uid: self.device.uid }
    }

    /// Its message.
    pub(crate) fn message(&self, readings: Vec<Reading>, trace_context: Option<Arc<str>>) -> Message {
        Message {
            tenant: self.device.tenant.clone(),
            device: self.device.id.clone(),
            uid: self.device.uid,
            readings,
            trace_context,
        }
    }
}
