//! Which devices a request means.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use weir_core::{DeviceId, Error, Result, TenantId, device::Device, port::Registry, selector::Selector};

/// Devices that a request may name.
const IDS_MAX: usize = 1_000;
/// Devices that a selector may match.
const MATCHES_MAX: usize = 10_000;
/// Devices in one question to the registry.
const PAGE: usize = 1_000;
/// Questions to the registry under way at once.
const LOOKUPS: usize = 16;

/// By id or by label.
#[derive(Debug, Clone)]
pub(crate) enum Devices {
    /// These, sorted, none twice.
    Ids(Vec<DeviceId>),
    /// Those that match.
    Selector(Selector),
}

impl Devices {
    /// # Errors
    /// `FILTER_INVALID` for neither or both; `TOO_MANY_DEVICES` above 1,000 ids; what is wrong with an id or selector.
    pub(crate) fn new(ids: &[String], selector: &str) -> Result<Self> {
        let invalid = |message: &str| Error::invalid("filter", "FILTER_INVALID", message);
        match (ids, selector) {
            ([], "") => Err(invalid("filter must have devices or a label_selector")),
            ([], selector) => {
                let selector =
                    selector.parse().map_err(|error: Error| error.with_field("filter.label_selector"))?;
                Ok(Self::Selector(selector))
            }
            (ids, "") if ids.len() > IDS_MAX => Err(Error::invalid(
                "filter.devices",
                "TOO_MANY_DEVICES",
                format!("filter.devices has {} ids, the limit is {IDS_MAX}", ids.len()),
            )
            .with_limit(IDS_MAX)),
            (ids, "") => {
                let parse = |(index, id)| {
                    DeviceId::new(id).map_err(|e| e.with_field(format!("filter.devices[{index}]")))
                };
                let mut ids = ids.iter().enumerate().map(parse).collect::<Result<Vec<_>>>()?;
                ids.sort_unstable();
                ids.dedup();
                Ok(Self::Ids(ids))
            }
            _ => Err(invalid("filter must have devices or a label_selector, not both")),
        }
    }
}

/// Whether a selector matches a device.
pub(crate) fn device_matches(selector: &Selector, device: &Device) -> bool {
    selector.matches(&device.labels)
}

/// The devices, in order of their ids.
///
/// # Errors
/// `NotFound` for an id that does not exist; `TOO_MANY_DEVICES` where a selector matches more than 10,000; those of the
/// registry.
pub(crate) async fn resolve(
    registry: &dyn Registry,
    tenant: &TenantId,
    devices: &Devices,
) -> Result<Vec<Arc<Device>>> {
    let selector = match devices {
        Devices::Ids(ids) => {
            let lookups: Vec<_> = ids.iter().map(|id| registry.device(tenant, id)).collect();
            return stream::iter(lookups).buffered(LOOKUPS).try_collect().await;
        }
        Devices::Selector(selector) => selector,
    };
    let mut found: Vec<Arc<Device>> = Vec::new();
    loop {
        let after = found.last().map(|device| device.id.clone());
        let page = registry.select(tenant, selector, after.as_ref(), PAGE).await?;
        let complete = page.len() < PAGE;
        found.extend(page);
        if found.len() > MATCHES_MAX {
            return Err(Error::invalid(
                "filter.label_selector",
                "TOO_MANY_DEVICES",
                format!("label selector {selector} matches more than {MATCHES_MAX} devices: narrow it"),
            )
            .with_limit(MATCHES_MAX));
        }
        if complete {
            return Ok(found);
        }
    }
}
