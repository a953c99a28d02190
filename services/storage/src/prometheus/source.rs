//! Stored telemetry as series.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use weir_core::{
    DeviceId, Error, Result, TenantId, Timestamp,
    device::Device,
    port::{Registry, ScanOrder, SeriesKey},
    selector::{Selector, is_label_value},
};
use weir_promql::{Budget, Labels, METRIC_NAME, Matcher, Sample, Selection, Series, Source, accepts_all};

use super::names::{self, DEVICE};
use crate::read::{Instants, Range, Reader};

/// Devices that a selector may match: as many as a label selector of the gRPC API.
const DEVICES_MAX: usize = 10_000;
/// Devices in one question to the registry.
const PAGE: usize = 1_000;
/// Devices read at once: reads of one wait for the store, and each holds a page of rows.
pub(super) const READS: usize = 8;
/// Samples after which the budget is asked whether there may be more.
const CHUNK: usize = 1_024;

/// The telemetry of one tenant.
pub(super) struct Stored<'a> {
    pub(super) registry: &'a dyn Registry,
    pub(super) reader: Reader,
    pub(super) tenant: TenantId,
}

/// A device, and the labels of its series but for the name of the metric.
pub(super) struct Labelled {
    pub(super) device: Arc<Device>,
    pub(super) labels: Labels,
}

impl Labelled {
    fn new(device: Arc<Device>) -> Self {
        let own = names::labels(&device.labels);
        let own = own.iter().map(|(name, value)| (name.as_str(), *value));
        let labels = Labels::new(own.chain([(DEVICE, device.id.as_str())]));
        Self { device, labels }
    }

    pub(super) fn series(&self) -> SeriesKey {
        SeriesKey { tenant: self.device.tenant.clone(), uid: self.device.uid }
    }

    /// The labels of one of its series.
    pub(super) fn of(&self, metric: &str) -> Labels {
        self.labels.with(METRIC_NAME, metric)
    }
}

/// Matchers of the name of the metric, and the others.
pub(super) fn split(matchers: &[Matcher]) -> (Vec<Matcher>, Vec<Matcher>) {
    matchers.iter().cloned().partition(|matcher| matcher.name == METRIC_NAME)
}

impl Stored<'_> {
    /// The devices whose labels meet `matchers`, in order of their ids.
    ///
    /// # Errors
    /// `TOO_MANY_DEVICES` for more than 10,000; those of the registry.
    pub(super) async fn devices(&self, matchers: &[Matcher]) -> Result<Vec<Labelled>> {
        let meets = |labelled: &Labelled| accepts_all(matchers, &labelled.labels);
        if let Some(id) = only(matchers, DEVICE) {
            // What cannot be an id is the id of no device.
            let Ok(id) = DeviceId::new(id) else { return Ok(vec![]) };
            return match self.registry.device(&self.tenant, &id).await {
                Ok(device) => Ok([Labelled::new(device)].into_iter().filter(meets).collect()),
                Err(error) if error.kind() == weir_core::ErrorKind::NotFound => Ok(vec![]),
                Err(error) => Err(error),
            };
        }
        let selector = narrowed(matchers)?;
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = self.registry.select(&self.tenant, &selector, after.as_ref(), PAGE).await?;
            let complete = page.len() < PAGE;
            after = page.last().map(|device| device.id.clone());
            found.extend(page.into_iter().map(Labelled::new).filter(meets));
            if found.len() > DEVICES_MAX {
                let message =
                    format!("the query matches more than {DEVICES_MAX} devices: narrow it by their labels");
                return Err(Error::invalid("query", "TOO_MANY_DEVICES", message).with_limit(DEVICES_MAX));
            }
            if complete {
                return Ok(found);
            }
        }
    }

    /// The series of one device.
    async fn read(&self, device: &Labelled, ask: &Ask<'_>, budget: &Budget) -> Result<Vec<Series>> {
        let range = Range {
            series: device.series(),
            from: Timestamp::from_micros(ask.start.saturating_mul(1_000)),
            to: Timestamp::from_micros(ask.end.saturating_add(1).saturating_mul(1_000)),
            order: ScanOrder::Ascending,
        };
        let mut instants = Instants::new(self.reader.clone(), range, ask.wanted.clone());
        let mut series: BTreeMap<Arc<str>, Option<Vec<Sample>>> = BTreeMap::new();
        let mut since = 0;
        while let Some((ts, values)) = instants.next().await? {
            let t = ts.as_micros().div_euclid(1_000);
            for (metric, winner) in values {
                let Some(v) = winner.value.as_f64() else { continue };
                let samples = match series.get_mut(&metric) {
                    Some(samples) => samples,
                    None => {
                        let is_asked = ask.names.iter().all(|matcher| matcher.accepts(&metric));
                        budget.take(usize::from(is_asked), 0)?;
                        series.entry(metric).or_insert_with(|| is_asked.then(Vec::new))
                    }
                };
                let Some(samples) = samples else { continue };
                match samples.last_mut() {
                    Some(last) if last.t == t => last.v = v, // of one millisecond the last counts
                    _ => {
                        samples.push(Sample { t, v });
                        since += 1;
                    }
                }
            }
            if since >= CHUNK {
                budget.take(0, std::mem::take(&mut since))?;
            }
        }
        budget.take(0, since)?;
        let series = series.into_iter().filter_map(|(metric, samples)| {
            let samples = samples.filter(|samples| !samples.is_empty())?;
            Some(Series { labels: device.of(&metric), samples })
        });
        Ok(series.collect())
    }
}

/// What is asked of each device.
struct Ask<'a> {
    names: &'a [Matcher],
    /// Only these metrics are looked at; all if none.
    wanted: Option<Arc<HashSet<Arc<str>>>>,
    start: i64,
    end: i64,
}

#[async_trait]
impl Source for Stored<'_> {
    async fn select(&self, selection: &Selection, budget: &Budget) -> Result<Vec<Series>> {
        let (names, others) = split(&selection.matchers);
        let wanted = only(&names, METRIC_NAME).map(|name| Arc::new(HashSet::from([Arc::from(name)])));
        let ask = Ask { names: &names, wanted, start: selection.start, end: selection.end };
        let devices = self.devices(&others).await?;
        let reads: Vec<_> = devices.iter().map(|device| self.read(device, &ask, budget)).collect();
        let series: Vec<Vec<Series>> = stream::iter(reads).buffered(READS).try_collect().await?;
        Ok(series.into_iter().flatten().collect())
    }
}

/// The value that a label must have, where a matcher says so.
fn only<'a>(matchers: &'a [Matcher], name: &str) -> Option<&'a str> {
    matchers.iter().filter(|matcher| matcher.name == name).find_map(Matcher::only_value)
}

/// A selector that every device meets whose labels meet `matchers`: what the registry can leave out, it does.
fn narrowed(matchers: &[Matcher]) -> Result<Selector> {
    let requirements: Vec<String> = matchers
        .iter()
        .filter_map(|matcher| Some((names::only_key(&matcher.name)?, matcher.only_value()?)))
        .filter(|(_, value)| !value.is_empty() && is_label_value(value))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let text = requirements.join(",");
    if text.len() > weir_core::selector::MAX_LEN { Ok(Selector::default()) } else { text.parse() }
}
