//! What tests of this crate share: real engines in a directory of their own.

use std::{path::Path, sync::Arc, time::Duration};

use weir_core::{
    DeviceId, Message, Reading, TenantId, Timestamp, Uid, Value,
    device::{Device, Profile},
    port::Records,
};
use weir_log_embedded::EmbeddedLog;
use weir_store_embedded::EmbeddedStore;

use crate::access::DeviceAccess;

/// Long enough for a loaded machine; a test that waits so long fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A device of the default profile.
pub(crate) fn device(tenant: &str, id: &str, uid: Uid) -> DeviceAccess {
    let at = Timestamp::from_micros(0);
    let device = Device {
        tenant: TenantId::new(tenant).unwrap(),
        id: DeviceId::new(id).unwrap(),
        uid,
        profile: Profile::DEFAULT_ID.to_owned(),
        labels: Default::default(),
        attributes: Default::default(),
        enabled: true,
        gateway: false,
        created_at: at,
        updated_at: at,
    };
    DeviceAccess { device: Arc::new(device), profile: Arc::new(Profile::default()) }
}

/// A message of `count` readings with one metric.
pub(crate) fn message(tenant: &str, uid: u128, first: i64, count: usize) -> Message {
    let name: Arc<str> = "temp".into();
    let readings = (0..count as i64).map(|n| {
        let ts = Timestamp::from_micros(1_700_000_000_000_000 + first + n);
        Reading {
            ts,
            received_at: ts,
            claimed_ts: None,
            values: vec![(Arc::clone(&name), Value::Double(n as f64))],
        }
    });
    device(tenant, &format!("d{uid}"), Uid::from_u128(uid)).message(readings.collect(), None)
}

/// A log that does not wait for the disk.
pub(crate) fn log(dir: &Path) -> EmbeddedLog {
    let options =
        weir_log_embedded::Options { durability: weir_config::Durability::Process, ..Default::default() };
    EmbeddedLog::open(&dir.join("log"), options).unwrap()
}

/// Records that do not wait for the disk.
pub(crate) fn records(dir: &Path) -> Arc<dyn Records> {
    let options =
        weir_store_embedded::Options { durability: weir_config::Durability::Process, ..Default::default() };
    EmbeddedStore::open(dir.join("store"), options).unwrap()
}
