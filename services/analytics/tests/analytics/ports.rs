//! What other services answer, as small as it can be and still true.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use weir_core::{
    DeviceId, Error, Partition, Position, Result, Stream, TenantId, Timestamp, Uid,
    device::{Device, Profile},
    event_clock::EventClock,
    port::{CommandSender, Log, Registry, RuleRows, RuleScan, SendCommand, TelemetryReader},
    principal::{Principal, Scope},
    selector::Selector,
};
use weir_frame::Frame;

use crate::world::PARTITIONS;

/// Devices by (tenant, id); any token `scope@tenant` is good.
#[derive(Default)]
pub(crate) struct Devices(Mutex<BTreeMap<(TenantId, DeviceId), Arc<Device>>>);

impl Devices {
    pub(crate) fn put(&self, tenant: &str, id: &str, labels: &[(&str, &str)]) -> Uid {
        let (tenant, id) = (TenantId::new(tenant).unwrap(), DeviceId::new(id).unwrap());
        let uid = Uid::hash(&[b"device", tenant.as_str().as_bytes(), id.as_str().as_bytes()]);
        let device = Device {
            tenant: tenant.clone(),
            id: id.clone(),
            uid,
            profile: Profile::DEFAULT_ID.to_owned(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            attributes: BTreeMap::new(),
            enabled: true,
            gateway: false,
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
        };
        self.0.lock().insert((tenant, id), Arc::new(device));
        uid
    }

    pub(crate) fn remove(&self, tenant: &str, id: &str) {
        self.0.lock().remove(&(TenantId::new(tenant).unwrap(), DeviceId::new(id).unwrap()));
    }
}

#[async_trait]
impl Registry for Devices {
    async fn authenticate(&self, token: &str) -> Result<Principal> {
        let (scope, tenant) = token.split_once('@').ok_or_else(|| Error::unauthenticated("no such token"))?;
        let scope = Scope::ALL.into_iter().find(|known| known.as_str() == scope);
        Ok(Principal::Token {
            id: token.to_owned(),
            tenant: Some(TenantId::new(tenant)?),
            scopes: scope.into_iter().collect(),
        })
    }

    async fn device(&self, tenant: &TenantId, device: &DeviceId) -> Result<Arc<Device>> {
        let found = self.0.lock().get(&(tenant.clone(), device.clone())).cloned();
        found.ok_or_else(|| Error::not_found(device))
    }

    async fn profile(&self, _: &TenantId, _: &str) -> Result<Arc<Profile>> {
        Ok(Arc::default())
    }

    async fn select(
        &self,
        tenant: &TenantId,
        selector: &Selector,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<Arc<Device>>> {
        let devices = self.0.lock();
        let matching = devices.values().filter(|device| {
            device.tenant == *tenant
                && selector.matches(&device.labels)
                && after.is_none_or(|after| device.id > *after)
        });
        Ok(matching.take(limit).cloned().collect())
    }
}

/// Keeps each command once by its request id, and counts how often it was sent.
#[derive(Default)]
pub(crate) struct Commands {
    pub(crate) sent: Mutex<BTreeMap<String, SendCommand>>,
    pub(crate) calls: Mutex<HashMap<String, u32>>,
}

#[async_trait]
impl CommandSender for Commands {
    async fn send(&self, send: SendCommand) -> Result<(Uid, Position)> {
        *self.calls.lock().entry(send.request_id.clone()).or_default() += 1;
        let id = Uid::hash(&[send.request_id.as_bytes()]);
        self.sent.lock().entry(send.request_id.clone()).or_insert(send);
        let position = Position {
            stream: Stream::Commands,
            generation: 1,
            sequence: 1,
            index: 0,
            partition: Partition(0),
        };
        Ok((id, position))
    }
}

/// Stored telemetry, as storage would have it: read from the log, with late values left out.
pub(crate) struct Telemetry(pub(crate) Arc<dyn Log>);

#[async_trait]
impl TelemetryReader for Telemetry {
    async fn scan_for_rules(&self, scan: RuleScan) -> Result<RuleRows> {
        let partition = Partition::of(scan.uid, PARTITIONS);
        let mut reader = self.0.read_from(Stream::Readings, partition, 1).await?;
        let (mut clock, mut rows) = (EventClock::default(), Vec::new());
        loop {
            let batch = reader.next(1 << 20, Duration::ZERO).await?;
            if batch.records.is_empty() {
                return Ok(stream::iter(rows).map(Ok).boxed());
            }
            for record in batch.records {
                let frame = Frame::decode(record.bytes)?;
                for message in frame.messages().filter(|message| message.uid() == scan.uid) {
                    for (index, reading) in message.readings() {
                        let position = Position {
                            stream: Stream::Readings,
                            generation: 1,
                            sequence: record.sequence,
                            index,
                            partition,
                        };
                        let row = weir_rules::rule_row(&mut clock, position, &reading);
                        let wanted = !row.values.is_empty()
                            && scan.after.is_none_or(|after| position > after)
                            && scan.through.is_none_or(|through| position <= through)
                            && (scan.from..scan.to).contains(&row.ts);
                        rows.extend(wanted.then_some(row));
                    }
                }
            }
        }
    }
}
