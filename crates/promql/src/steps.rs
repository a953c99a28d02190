//! The instants at which a query is evaluated, and which samples an instant sees.
//!
//! The windows are those of Prometheus 2: closed on both sides. Prometheus 3 leaves the older end out; [`first_of`] is the
//! one place to change for that.

use weir_core::Result;

use crate::{
    errors::{invalid, too_much},
    source::Budget,
};

/// How long a sample holds where no newer one comes, in milliseconds: the default of Prometheus.
pub const LOOKBACK_MS: i64 = 300_000;
/// Steps of a range query beyond the first: the limit of Prometheus.
pub const STEPS_MAX: i64 = 11_000;
/// The step of a subquery that names none, in milliseconds: the default evaluation interval of Prometheus.
pub(crate) const SUBQUERY_STEP_MS: i64 = 60_000;
/// What the samples of a window that spans `[end - length, end]` begin with (Prometheus 3: one millisecond later).
pub(crate) fn first_of(end: i64, length: i64) -> i64 {
    end.saturating_sub(length)
}

/// Evenly spaced instants, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Steps {
    pub(crate) start: i64,
    interval: i64,
    pub(crate) count: usize,
}

impl Steps {
    /// One instant.
    pub(crate) fn one(at: i64) -> Self {
        Self { start: at, interval: 1, count: 1 }
    }

    /// The steps of a range query, with Prometheus' conditions.
    ///
    /// # Errors
    /// `QUERY_INVALID` for an end before the start, a step that is not positive; `QUERY_TOO_LARGE` above 11,000 steps.
    pub(crate) fn range(start: i64, end: i64, interval: i64) -> Result<Self> {
        if end < start {
            return Err(invalid("invalid parameter \"end\": end timestamp must not be before start time")
                .with_field("end"));
        }
        if interval <= 0 {
            let message = "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. \
                           Try a positive integer";
            return Err(invalid(message).with_field("step"));
        }
        let more = end.saturating_sub(start) / interval;
        if more > STEPS_MAX {
            let message = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query \
                           resolution (?step=XX)";
            return Err(invalid(message).with_field("step").with_limit(STEPS_MAX));
        }
        Ok(Self { start, interval, count: usize::try_from(more).unwrap_or(0) + 1 })
    }

    /// The multiples of `interval` from `from` to `to`.
    ///
    /// # Errors
    /// `QUERY_TOO_LARGE` for more than fit into the budget.
    pub(crate) fn aligned(from: i64, to: i64, interval: i64, budget: &Budget) -> Result<Self> {
        let interval = interval.max(1);
        let down = (from / interval).saturating_mul(interval);
        let start = if down < from { down.saturating_add(interval) } else { down };
        if start > to {
            return Ok(Self { start, interval, count: 0 });
        }
        let count = usize::try_from(to.saturating_sub(start) / interval).unwrap_or(usize::MAX);
        if count >= budget.limit() {
            let message =
                format!("a subquery has {count} steps, the limit is {} samples for a query", budget.limit());
            return Err(too_much(message, budget.limit()));
        }
        Ok(Self { start, interval, count: count + 1 })
    }

    /// The last one.
    pub(crate) fn end(&self) -> i64 {
        self.at(self.count.saturating_sub(1))
    }

    /// Number `step`, from 0.
    pub(crate) fn at(&self, step: usize) -> i64 {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        self.start.saturating_add(step.saturating_mul(self.interval))
    }

    /// All of them.
    pub(crate) fn iter(self) -> impl Iterator<Item = i64> {
        (0..self.count).map(move |step| self.at(step))
    }

    /// The first of them alone.
    pub(crate) fn first(self) -> Self {
        Self { count: self.count.min(1), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_its_ends_and_a_limit() {
        let steps = Steps::range(0, 10, 5).unwrap();
        assert_eq!(steps.iter().collect::<Vec<_>>(), [0, 5, 10]);
        assert_eq!(Steps::range(0, 11_000, 1).unwrap().count, 11_001);
        assert_eq!(Steps::range(0, 11_001, 1).unwrap_err().limit(), Some("11000"));
        assert!(Steps::range(1, 0, 1).is_err() && Steps::range(0, 1, 0).is_err());
    }

    #[test]
    fn a_subquery_steps_on_multiples_whatever_its_beginning() {
        let budget = Budget::new(100);
        let aligned =
            |from, to| Steps::aligned(from, to, 60, &budget).map(|steps| steps.iter().collect::<Vec<_>>());
        assert_eq!(aligned(1, 130).unwrap(), [60, 120]);
        assert_eq!(aligned(-90, 0).unwrap(), [-60, 0]);
        assert_eq!(aligned(1, 59).unwrap(), [] as [i64; 0]);
        assert!(aligned(0, i64::MAX).is_err());
    }
}
