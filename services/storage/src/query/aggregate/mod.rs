//! Aggregates of a range by step.
//!
//! [`spacing`] cuts the range into steps, [`tree`] adds numbers up in one fixed order, [`step`] makes of the values of a step
//! what was asked for, [`run`] reads.

mod run;
mod spacing;
mod step;
mod tree;

#[cfg(test)]
mod tests;

pub(crate) use run::{AggregatePage, AggregateRow, Aggregates};
pub(crate) use spacing::Spacing;
use weir_core::{Error, Result, TenantId, Timestamp};

use super::{Devices, Wants};

/// Percentiles that one request may name.
const PERCENTILES_MAX: usize = 16;
/// Functions that one request may name: each once, and some again for a client that repeats itself.
const FUNCTIONS_MAX: usize = 32;

/// What to make of the values in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Count,
    Min,
    Max,
    Avg,
    Sum,
    First,
    Last,
    Stddev,
    Rate,
}

/// Asks for aggregates.
pub(crate) struct AggregateRequest {
    pub(crate) tenant: TenantId,
    pub(crate) devices: Devices,
    pub(crate) wants: Wants,
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    pub(crate) spacing: Spacing,
    pub(crate) functions: Vec<Function>,
    pub(crate) percentiles: Vec<f64>,
}

impl AggregateRequest {
    /// # Errors
    /// `InvalidArgument` that names the field: an empty range, nothing to compute, more than 16 percentiles, one out of
    /// [0, 100], more than 100,000 steps.
    pub(crate) fn check(&self) -> Result<()> {
        if self.from >= self.to {
            return Err(Error::invalid("end_time", "RANGE_EMPTY", "end_time must be after start_time"));
        }
        if self.functions.is_empty() && self.percentiles.is_empty() {
            return Err(Error::invalid(
                "functions",
                "FUNCTIONS_MISSING",
                "functions and percentiles are both empty",
            ));
        }
        if self.functions.len() > FUNCTIONS_MAX {
            return Err(too_many("functions", self.functions.len(), FUNCTIONS_MAX));
        }
        if self.percentiles.len() > PERCENTILES_MAX {
            return Err(too_many("percentiles", self.percentiles.len(), PERCENTILES_MAX));
        }
        if let Some(bad) = self.percentiles.iter().find(|percentile| !(0.0..=100.0).contains(*percentile)) {
            return Err(Error::invalid(
                "percentiles",
                "PERCENTILE_INVALID",
                format!("percentile {bad} must be between 0 and 100"),
            )
            .with_limit(100));
        }
        self.spacing.check(self.from, self.to)
    }
}

fn too_many(field: &str, count: usize, limit: usize) -> Error {
    let message = format!("{field} has {count} entries, the limit is {limit}");
    Error::invalid(field, format!("TOO_MANY_{}", field.to_uppercase()), message).with_limit(limit)
}
