//! Which series there are, without their samples; and what profiles say of metrics.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use weir_core::{Result, Timestamp, device::Profile, port::ScanOrder};
use weir_frame::row::decode_latest;
use weir_promql::{Budget, Labels, Matcher};

use super::{
    request::Listed,
    source::{Labelled, READS, Stored, split},
};
use crate::read::{Range, Rows};

/// What a profile says of a metric, as Prometheus writes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Metadata {
    #[serde(rename = "type")]
    kind: &'static str,
    help: String,
    unit: String,
}

impl Stored<'_> {
    /// The labels of the series that have values in the range, as far as their newest value and the rows of their device
    /// tell: of a device that has rows in the range a metric may have none.
    ///
    /// # Errors
    /// `TOO_MANY_DEVICES`; `QUERY_TOO_LARGE` for more series than the budget has; those of the store.
    pub(super) async fn series(&self, listed: &Listed, budget: &Budget) -> Result<BTreeSet<Labels>> {
        let everything = [vec![]];
        let selectors = if listed.selectors.is_empty() { &everything[..] } else { &listed.selectors };
        let mut found = BTreeSet::new();
        for selector in selectors {
            let (names, others) = split(selector);
            let devices = self.devices(&others).await?;
            let reads: Vec<_> =
                devices.iter().map(|device| self.series_of(device, &names, listed, budget)).collect();
            let mut reads = stream::iter(reads).buffered(READS);
            while let Some(series) = reads.try_next().await? {
                found.extend(series);
            }
        }
        Ok(found)
    }

    async fn series_of(
        &self,
        device: &Labelled,
        names: &[Matcher],
        listed: &Listed,
        budget: &Budget,
    ) -> Result<Vec<Labels>> {
        let (from, to) =
            (listed.start.saturating_mul(1_000), listed.end.saturating_add(1).saturating_mul(1_000));
        let mut has_rows = None;
        let mut found = vec![];
        for cell in self.reader.store.latest(&device.series()).await? {
            let is_asked = names.iter().all(|matcher| matcher.accepts(&cell.metric));
            if !is_asked || cell.ts.as_micros() < from || decode_latest(&cell.body)?.value.as_f64().is_none()
            {
                continue;
            }
            if cell.ts.as_micros() >= to {
                if has_rows.is_none() {
                    has_rows = Some(self.has_rows(device, from, to).await?);
                }
                if has_rows == Some(false) {
                    continue;
                }
            }
            budget.take(1, 0)?;
            found.push(device.of(&cell.metric));
        }
        Ok(found)
    }

    async fn has_rows(&self, device: &Labelled, from: i64, to: i64) -> Result<bool> {
        let range = Range {
            series: device.series(),
            from: Timestamp::from_micros(from),
            to: Timestamp::from_micros(to),
            order: ScanOrder::Ascending,
        };
        Ok(Rows::new(self.reader.clone(), range).next().await?.is_some())
    }

    /// What the profiles of the tenant's devices say of their metrics, by metric.
    ///
    /// # Errors
    /// `TOO_MANY_DEVICES`; those of the registry.
    pub(super) async fn metadata(&self) -> Result<BTreeMap<String, BTreeSet<Metadata>>> {
        let devices = self.devices(&[]).await?;
        let ids: BTreeSet<&str> = devices.iter().map(|labelled| labelled.device.profile.as_str()).collect();
        let mut found: BTreeMap<String, BTreeSet<Metadata>> = BTreeMap::new();
        for id in ids {
            for (name, metadata) in described(&*self.registry.profile(&self.tenant, id).await?) {
                found.entry(name).or_default().insert(metadata);
            }
        }
        Ok(found)
    }
}

fn described(profile: &Profile) -> impl Iterator<Item = (String, Metadata)> + '_ {
    profile.metrics.iter().map(|(name, metric)| {
        let metadata =
            Metadata { kind: "gauge", help: metric.description.clone(), unit: metric.unit.clone() };
        (name.to_string(), metadata)
    })
}
