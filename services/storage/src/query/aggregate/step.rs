//! The values of one metric in one step.

use std::cmp::Ordering;

use sketches_ddsketch::{Config, DDSketch};
use weir_core::{Error, Result, Timestamp, Value};

use super::{Function, tree::Tree};

/// Relative error of a percentile.
const SKETCH_ERROR: f64 = 0.01;
/// Bins of a sketch: at 1 % they span twenty decades, more than any sensor.
const SKETCH_BINS: u32 = 2_048;
/// Numbers nearer to 0 than this count as 0.
const SKETCH_LEAST: f64 = 1e-9;
/// What a sketch weighs at most: its bins, for either sign.
const SKETCH_BYTES: usize = SKETCH_BINS as usize * 8 * 2;

/// What is kept of a step while its values come in ts order.
pub(super) struct Step {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    count: u64,
    first: Value,
    last: Value,
    least: Option<Value>,
    greatest: Option<Value>,
    numbers: Tree,
    /// The first and the last number with their ts.
    span: Option<((Timestamp, f64), (Timestamp, f64))>,
    sketch: Option<Box<DDSketch>>,
}

impl Step {
    /// Begins with its first value.
    pub(super) fn new(
        (start, end): (Timestamp, Timestamp),
        ts: Timestamp,
        value: Value,
        percentiles: bool,
    ) -> Self {
        let sketch = || Box::new(DDSketch::new(Config::new(SKETCH_ERROR, SKETCH_BINS, SKETCH_LEAST)));
        let mut step = Self {
            start,
            end,
            count: 0,
            first: value.clone(),
            last: value.clone(),
            least: None,
            greatest: None,
            numbers: Tree::default(),
            span: None,
            sketch: percentiles.then(sketch),
        };
        step.push(ts, value);
        step
    }

    /// Takes in the next value.
    pub(super) fn push(&mut self, ts: Timestamp, value: Value) {
        self.count += 1;
        if let Some(number) = value.as_f64() {
            let before = self.span.map(|(_, (_, before))| before);
            // A counter that fell began again at 0.
            let increase =
                before.map_or(0.0, |before| if number >= before { number - before } else { number });
            self.numbers.push(ts, number, increase);
            self.span = Some((self.span.map_or((ts, number), |(first, _)| first), (ts, number)));
            if let Some(sketch) = &mut self.sketch {
                sketch.add(number);
            }
            keep(&mut self.least, &value, Ordering::Less);
            keep(&mut self.greatest, &value, Ordering::Greater);
        }
        self.last = value;
    }

    /// What was asked for.
    ///
    /// # Errors
    /// `Internal` where a percentile is out of bounds, which the request's check refuses.
    pub(super) fn finish(
        self,
        functions: &[Function],
        percentiles: &[f64],
    ) -> Result<(Vec<Option<Value>>, Vec<f64>)> {
        let sums = self.numbers.finish();
        let double = |number: Option<f64>| number.map(Value::Double);
        let values = functions.iter().map(|function| match function {
            Function::Count => Some(Value::Int64(i64::try_from(self.count).unwrap_or(i64::MAX))),
            Function::Min => self.least.clone(),
            Function::Max => self.greatest.clone(),
            Function::Avg => double(sums.avg()),
            Function::Sum => double((sums.count > 0).then_some(sums.sum)),
            Function::First => Some(self.first.clone()),
            Function::Last => Some(self.last.clone()),
            Function::Stddev => double(sums.stddev()),
            Function::Rate => {
                double(self.span.and_then(|((first, _), (last, _))| rate(first, last, sums.increase)))
            }
        });
        let values = values.collect();
        let Some(sketch) = self.sketch.filter(|_| sums.count > 0) else { return Ok((values, vec![])) };
        let quantile = |percentile: &f64| {
            let found = sketch.quantile(percentile / 100.0);
            found
                .ok()
                .flatten()
                .ok_or_else(|| Error::internal(format!("no percentile {percentile} of a sketch")))
        };
        Ok((values, percentiles.iter().map(quantile).collect::<Result<_>>()?))
    }

    /// Bytes in memory at most, about.
    pub(super) fn weight(&self) -> usize {
        let text = |value: &Value| match value {
            Value::String(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::Double(_) | Value::Int64(_) | Value::Bool(_) => 0,
        };
        let sketch = if self.sketch.is_some() { SKETCH_BYTES } else { 0 };
        size_of::<Self>() + sketch + text(&self.first) + text(&self.last)
    }
}

#[allow(clippy::cast_precision_loss)] // 285 years of microseconds are exact
fn rate(first: Timestamp, last: Timestamp, increase: f64) -> Option<f64> {
    let micros = last.as_micros().saturating_sub(first.as_micros());
    (micros > 0).then(|| increase / (micros as f64 / 1e6))
}

/// Replaces where the value is on that side of the known one; of equals the first stays.
fn keep(known: &mut Option<Value>, value: &Value, side: Ordering) {
    if known.as_ref().is_none_or(|known| compare(value, known) == side) {
        *known = Some(value.clone());
    }
}

/// Integers among each other exactly, everything else as doubles.
fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Int64(a), Value::Int64(b)) => a.cmp(b),
        _ => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
    }
}
