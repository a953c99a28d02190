//! Reading a range and giving its aggregates in order of (device, metric, start), in bounded memory.
//!
//! Rows come in ts order with all metrics side by side, answers go out metric by metric. So the rows of a device are read
//! once and the finished steps of every metric kept; where that is more than the memory of a call, the last metrics are
//! dropped, and the range is read again for them when the others are given.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use weir_core::{
    DeviceId, Result, Timestamp, Value,
    device::Device,
    port::{ScanOrder, SeriesKey},
};

use super::{
    super::{Permit, Stats},
    AggregateRequest,
    step::Step,
};
use crate::read::{Instants, Range, Reader};

/// Rows of a page at most.
const ROWS_MAX: usize = 500;
/// Bytes of a page after which it is full: with one largest row more, below gRPC's 4 MiB.
const PAGE_BYTES: usize = 1 << 20;
/// What a finished value weighs.
const VALUE_BYTES: usize = size_of::<Option<Value>>();

/// The aggregates of one step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AggregateRow {
    pub(crate) device: DeviceId,
    pub(crate) metric: Arc<str>,
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) values: Vec<Option<Value>>,
    pub(crate) percentiles: Vec<f64>,
}

impl AggregateRow {
    fn weight(&self) -> usize {
        let text = |value: &Option<Value>| match value {
            Some(Value::String(text)) => text.len(),
            Some(Value::Bytes(bytes)) => bytes.len(),
            _ => 0,
        };
        let values: usize = self.values.iter().map(|value| VALUE_BYTES + text(value)).sum();
        size_of::<Self>() + values + self.percentiles.len() * size_of::<f64>()
    }
}

/// Some of the rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AggregatePage {
    pub(crate) rows: Vec<AggregateRow>,
    /// On the last page.
    pub(crate) stats: Option<Stats>,
}

/// An answer, page by page.
pub(crate) struct Aggregates {
    reader: Reader,
    request: AggregateRequest,
    devices: VecDeque<Arc<Device>>,
    memory: usize,
    /// Finished rows of the first device, in order.
    ahead: VecDeque<AggregateRow>,
    /// Metrics of the first device from here on were dropped and are still to be read.
    dropped_from: Option<Arc<str>>,
    given: u64,
    ended: bool,
    _permit: Permit,
}

/// One metric of the device that is being read.
#[derive(Default)]
struct Series {
    done: Vec<AggregateRow>,
    open: Option<Step>,
    weight: usize,
}

impl Aggregates {
    /// `devices`: those that the request means, in order of their ids; `memory`: bytes that may be held.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub(crate) fn new(
        reader: Reader,
        request: AggregateRequest,
        devices: Vec<Arc<Device>>,
        memory: usize,
        permit: Permit,
    ) -> Result<Self> {
        request.check()?;
        Ok(Self {
            reader,
            request,
            devices: devices.into(),
            memory,
            ahead: VecDeque::new(),
            dropped_from: None,
            given: 0,
            ended: false,
            _permit: permit,
        })
    }

    /// The next page; none after the last, which has the statistics.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn next(&mut self) -> Result<Option<AggregatePage>> {
        if self.ended {
            return Ok(None);
        }
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while rows.len() < ROWS_MAX && bytes < PAGE_BYTES {
            if let Some(row) = self.ahead.pop_front() {
                bytes += row.weight();
                self.given += 1;
                rows.push(row);
                continue;
            }
            let Some(device) = self.devices.front().cloned() else {
                self.ended = true;
                break;
            };
            self.read(&device).await?;
            if self.dropped_from.is_none() {
                self.devices.pop_front();
            }
        }
        let stats = self.ended.then(|| Stats::of(&self.reader.read, self.given));
        Ok(Some(AggregatePage { rows, stats }))
    }

    /// Reads the device's range once, and finishes as many of its metrics as fit.
    async fn read(&mut self, device: &Device) -> Result<()> {
        let range = Range {
            series: SeriesKey { tenant: device.tenant.clone(), uid: device.uid },
            from: self.request.from,
            to: self.request.to,
            order: ScanOrder::Ascending,
        };
        let mut instants = Instants::new(self.reader.clone(), range, self.request.wants.names());
        let from = self.dropped_from.take();
        let mut metrics: BTreeMap<Arc<str>, Series> = BTreeMap::new();
        let mut weight = 0;
        while let Some((ts, values)) = instants.next().await? {
            for (metric, winner) in values {
                let too_early = from.as_ref().is_some_and(|from| metric < *from);
                if too_early || self.dropped_from.as_ref().is_some_and(|dropped| metric >= *dropped) {
                    continue;
                }
                let series = metrics.entry(Arc::clone(&metric)).or_default();
                weight -= series.weight;
                self.take_in(device, &metric, series, ts, winner.value)?;
                weight += series.weight;
            }
            while weight > self.memory && metrics.len() > 1 {
                let Some((metric, series)) = metrics.pop_last() else { break };
                weight -= series.weight;
                self.dropped_from = Some(metric);
            }
        }
        for (metric, mut series) in metrics {
            if let Some(step) = series.open.take() {
                let row = self.finish(device, &metric, step)?;
                series.done.push(row);
            }
            self.ahead.extend(series.done);
        }
        Ok(())
    }

    fn take_in(
        &self,
        device: &Device,
        metric: &Arc<str>,
        series: &mut Series,
        ts: Timestamp,
        value: Value,
    ) -> Result<()> {
        let request = &self.request;
        match &mut series.open {
            Some(step) if step.start <= ts && ts < step.end => {
                series.weight -= step.weight();
                step.push(ts, value);
                series.weight += step.weight();
            }
            open => {
                if let Some(step) = open.take() {
                    series.weight -= step.weight();
                    let row = self.finish(device, metric, step)?;
                    series.weight += row.weight();
                    series.done.push(row);
                }
                let bounds = request.spacing.step_of(ts, (request.from, request.to))?;
                let step = Step::new(bounds, ts, value, !request.percentiles.is_empty());
                series.weight += step.weight();
                *open = Some(step);
            }
        }
        Ok(())
    }

    fn finish(&self, device: &Device, metric: &Arc<str>, step: Step) -> Result<AggregateRow> {
        let (start, end) = (step.start, step.end);
        let (values, percentiles) = step.finish(&self.request.functions, &self.request.percentiles)?;
        Ok(AggregateRow {
            device: device.id.clone(),
            metric: Arc::clone(metric),
            start,
            end,
            values,
            percentiles,
        })
    }
}
