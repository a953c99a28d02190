//! Adding up in one fixed order: values into their epoch-aligned minute in ts order, minutes into hours, hours into days,
//! days into the step, each cut at the step's ends. So a sum is the same to the last bit however the rows are kept, and
//! whoever keeps the sums of minutes comes to the same.

use weir_core::Timestamp;

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// What is added up of a set of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Sums {
    pub(super) count: u64,
    pub(super) sum: f64,
    /// Welford's running mean and sum of squared distances from it.
    mean: f64,
    squares: f64,
    /// How much a counter rose up to each of these numbers from the one before.
    pub(super) increase: f64,
}

impl Sums {
    #[allow(clippy::cast_precision_loss)] // a count beyond 2^53 is out of reach
    fn push(&mut self, value: f64, increase: f64) {
        self.count += 1;
        self.sum = if self.count == 1 { value } else { self.sum + value };
        let distance = value - self.mean;
        self.mean += distance / self.count as f64;
        self.squares += distance * (value - self.mean);
        self.increase += increase;
    }

    /// Takes in the sums of what follows (Chan, Golub, `LeVeque` 1983).
    #[allow(clippy::cast_precision_loss)] // a count beyond 2^53 is out of reach
    fn merge(&mut self, later: &Self) {
        if later.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *later;
            return;
        }
        let (before, after) = (self.count as f64, later.count as f64);
        let distance = later.mean - self.mean;
        self.count += later.count;
        let all = self.count as f64;
        self.sum += later.sum;
        self.mean += distance * (after / all);
        self.squares += later.squares + distance * distance * (before * after / all);
        self.increase += later.increase;
    }

    /// The population standard deviation.
    #[allow(clippy::cast_precision_loss)] // a count beyond 2^53 is out of reach
    pub(super) fn stddev(&self) -> Option<f64> {
        (self.count > 0).then(|| (self.squares / self.count as f64).max(0.0).sqrt())
    }

    #[allow(clippy::cast_precision_loss)] // a count beyond 2^53 is out of reach
    pub(super) fn avg(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

/// The sums of one step, as they grow.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    minute: (i64, Sums),
    hour: (i64, Sums),
    day: (i64, Sums),
    step: Sums,
}

impl Tree {
    /// Takes in the next value in ts order.
    pub(super) fn push(&mut self, ts: Timestamp, value: f64, increase: f64) {
        let micros = ts.as_micros();
        let (minute, hour, day) =
            (micros.div_euclid(MINUTE), micros.div_euclid(HOUR), micros.div_euclid(DAY));
        if self.minute.0 != minute {
            self.hour.1.merge(&self.minute.1);
            self.minute = (minute, Sums::default());
        }
        if self.hour.0 != hour {
            self.day.1.merge(&self.hour.1);
            self.hour = (hour, Sums::default());
        }
        if self.day.0 != day {
            self.step.merge(&self.day.1);
            self.day = (day, Sums::default());
        }
        self.minute.1.push(value, increase);
    }

    /// The sums of everything.
    pub(super) fn finish(mut self) -> Sums {
        self.hour.1.merge(&self.minute.1);
        self.day.1.merge(&self.hour.1);
        self.step.merge(&self.day.1);
        self.step
    }
}
