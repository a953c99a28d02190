//! Forgetting what is too old: revisions of deleted rules, and cleared alarms.

use std::{sync::Weak, time::Duration};

use weir_core::{
    Partition, Result, TenantId,
    port::{KeyRange, Stored},
};

use crate::{
    Service,
    alarm::{ALARMS, Op, key},
    rules::forgotten_before,
};

/// Ages are counted in days.
const EVERY: Duration = Duration::from_secs(3_600);
/// Record partitions of one page, and alarms that are looked at in one of them each time.
const PAGE: usize = 100;
const ALARMS_MAX: usize = 1_000;

/// Looks once an hour, as long as the service is there, where this replica is the first in its view.
pub(crate) async fn keep(service: Weak<Service>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(service) = service.upgrade() else { return };
        if !service.ownership.is_first() {
            continue; // one of the replicas is enough
        }
        if let Err(error) = service.forget().await {
            tracing::warn!(%error, "cannot forget old alarms and rules; trying again in an hour");
        }
    }
}

impl Service {
    pub(crate) async fn forget(&self) -> Result<()> {
        self.rules.purge(forgotten_before(self.clock.now())).await?;
        let mut after = None;
        loop {
            let page = self.shared.records.partitions(ALARMS, after.as_deref(), PAGE).await?;
            for place in &page {
                let parsed = std::str::from_utf8(place).ok().and_then(|place| place.split_once('/'));
                if let Some((partition, tenant)) = parsed
                    && let (Ok(partition), Ok(tenant)) = (partition.parse(), TenantId::new(tenant))
                {
                    self.forget_alarms(Partition(partition), &tenant, place).await?;
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.clone()),
                _ => return Ok(()),
            }
        }
    }

    async fn forget_alarms(&self, partition: Partition, tenant: &TenantId, place: &[u8]) -> Result<()> {
        let before = self.clock.now().saturating_sub(self.config.alarms_keep);
        let until = [key::ALL, &key::suffix(before, weir_core::Uid::from_u128(0))].concat();
        let range = KeyRange::prefix(key::ALL).before(&until);
        let old = self.shared.records.scan(ALARMS, place, range, ALARMS_MAX).await?;
        let forget = |stored: &Stored| key::uid_of(&stored.key).map(Op::Forget);
        let ops: Vec<Op> = old.iter().filter_map(forget).collect();
        if ops.is_empty() { Ok(()) } else { self.alarms.apply(partition, tenant, &ops).await.map(drop) }
    }
}
