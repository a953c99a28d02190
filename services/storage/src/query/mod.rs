//! What can be asked: points, aggregates, newest values. Each answer is pulled page by page and holds no more than one
//! page, so a caller that goes away stops the reading.

mod admission;
mod aggregate;
mod devices;
mod latest;
mod points;

use std::{collections::HashSet, sync::Arc};

pub(crate) use admission::{Admission, Permit};
pub(crate) use aggregate::{AggregatePage, AggregateRequest, AggregateRow, Aggregates, Function, Spacing};
pub(crate) use devices::{Devices, device_matches, resolve};
pub(crate) use latest::{Latest, PageToken};
pub(crate) use points::{PointPage, PointRequest, Points};
use weir_core::{DeviceId, Error, Position, Result, Timestamp, Value};

use crate::read::ReadStats;

/// Metrics that one request may name.
const METRICS_MAX: usize = 256;
/// What a point weighs on the wire beside its names and value, about.
const POINT_BYTES: usize = 96;

/// One value of one metric at one instant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    pub(crate) device: DeviceId,
    pub(crate) ts: Timestamp,
    pub(crate) metric: Arc<str>,
    pub(crate) value: Value,
    pub(crate) received_at: Timestamp,
    pub(crate) position: Position,
}

impl Point {
    /// Bytes on the wire, about.
    pub(crate) fn weight(&self) -> usize {
        let value = match &self.value {
            Value::String(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::Double(_) | Value::Int64(_) | Value::Bool(_) => 0,
        };
        POINT_BYTES + self.device.as_str().len() + self.metric.len() + value
    }
}

/// Which metrics are wanted; all if none is named.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wants(Option<Arc<HashSet<Arc<str>>>>);

impl Wants {
    /// # Errors
    /// `TOO_MANY_METRICS` above 256.
    pub(crate) fn new(metrics: Vec<String>) -> Result<Self> {
        if metrics.len() > METRICS_MAX {
            return Err(Error::invalid(
                "metrics",
                "TOO_MANY_METRICS",
                format!("metrics has {} names, the limit is {METRICS_MAX}", metrics.len()),
            )
            .with_limit(METRICS_MAX));
        }
        Ok(Self((!metrics.is_empty()).then(|| Arc::new(metrics.into_iter().map(Arc::from).collect()))))
    }

    pub(crate) fn metric(&self, metric: &str) -> bool {
        self.0.as_ref().is_none_or(|wanted| wanted.contains(metric))
    }

    pub(crate) fn names(&self) -> Option<Arc<HashSet<Arc<str>>>> {
        self.0.clone()
    }
}

/// What a call read and gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stats {
    pub(crate) rows_read: u64,
    pub(crate) bytes_read: u64,
    pub(crate) points: u64,
}

impl Stats {
    fn of(read: &ReadStats, points: u64) -> Self {
        Self { rows_read: read.rows(), bytes_read: read.bytes(), points }
    }
}
