//! What rules remember of one metric of one device: its newest value, and the samples of its windows.
//!
//! Samples are kept once for all windows. A window is where it begins in them and what it adds up; both follow from the
//! samples alone, so a checkpoint holds only the samples.

use std::{collections::VecDeque, sync::Arc};

use weir_core::{Timestamp, Value};

use crate::{
    exact::Exact,
    expr::{Aggregate, Needs},
};

/// A window with more samples than this is unknown: 24 bytes each, so a metric costs at most 1.2 MB, and a sample a second
/// fills a window of almost 14 hours.
pub const MAX_SAMPLES_PER_METRIC: usize = 50_000;

/// The newest value of a metric that was not late.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Last {
    pub(crate) ts: Timestamp,
    pub(crate) received_at: Timestamp,
    pub(crate) value: Value,
}

/// One metric.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: Arc<str>,
    pub(crate) last: Option<Last>,
    /// Event times rise strictly: a second value at one ts is late.
    samples: VecDeque<(Timestamp, f64)>,
    /// How many samples were taken off the front so far.
    base: u64,
    /// The longest window, µs.
    keep: i64,
    /// The newest sample that was dropped at a bound: a window that reaches back to it is unknown.
    pub(crate) lost: Timestamp,
    windows: Vec<Window>,
}

/// One stretch (t − duration, t] of a series, without what stands at or before `floor`.
#[derive(Debug, Clone, PartialEq)]
struct Window {
    duration: i64,
    floor: Timestamp,
    needs: Needs,
    /// The absolute index of its first sample.
    start: u64,
    sum: Exact,
    squares: Exact,
    /// Samples whose square is no finite number.
    overflowing: u64,
    /// Absolute indices; the value at the front is the least, those behind it rise.
    least: VecDeque<u64>,
    /// Absolute indices; the value at the front is the greatest, those behind it fall.
    greatest: VecDeque<u64>,
}

impl Series {
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            last: None,
            samples: VecDeque::new(),
            base: 0,
            keep: 0,
            lost: Timestamp::MIN,
            windows: Vec::new(),
        }
    }

    /// As a checkpoint has it.
    pub(crate) fn restore(
        name: Arc<str>,
        last: Option<Last>,
        lost: Timestamp,
        samples: VecDeque<(Timestamp, f64)>,
    ) -> Self {
        Self { last, lost, samples, ..Self::new(name) }
    }

    pub(crate) fn samples(&self) -> &VecDeque<(Timestamp, f64)> {
        &self.samples
    }

    /// Forgets its windows, before they are opened anew.
    pub(crate) fn close_windows(&mut self) {
        self.windows.clear();
        self.keep = 0;
    }

    /// The window of that duration and floor at `now`, one for all rules that ask for it.
    pub(crate) fn open_window(
        &mut self,
        duration: i64,
        floor: Timestamp,
        needs: Needs,
        now: Timestamp,
    ) -> usize {
        // What the window has left behind need not be told apart any more.
        let floor = if floor <= before(now, duration) { Timestamp::MIN } else { floor };
        self.keep = self.keep.max(duration);
        let at = match self.windows.iter().position(|w| w.duration == duration && w.floor == floor) {
            Some(at) => at,
            None => {
                self.windows.push(Window::new(duration, floor));
                self.windows.len() - 1
            }
        };
        let (samples, base) = (&self.samples, self.base);
        if let Some(window) = self.windows.get_mut(at) {
            let needs = window.needs.union(needs);
            *window = Window { needs, ..Window::new(duration, floor) };
            window.start = base;
            for (index, (_, value)) in samples.iter().enumerate() {
                window.push(base + index as u64, *value, samples, base);
            }
            window.advance(now, samples, base);
        }
        at
    }

    /// Takes in a value that was not late.
    pub(crate) fn push(&mut self, last: Last) {
        let number = last.value.as_f64().filter(|number| number.is_finite());
        let ts = last.ts;
        self.last = Some(last);
        let Some(number) = number.filter(|_| !self.windows.is_empty()) else { return };
        if self.samples.len() >= MAX_SAMPLES_PER_METRIC {
            self.drop_oldest();
        }
        let index = self.base + self.samples.len() as u64;
        self.samples.push_back((ts, number));
        for window in &mut self.windows {
            window.push(index, number, &self.samples, self.base);
        }
    }

    /// Drops the oldest sample, at a bound.
    pub(crate) fn drop_oldest(&mut self) {
        let Some((ts, _)) = self.samples.front().copied() else { return };
        for window in &mut self.windows {
            window.drop_through(self.base, &self.samples, self.base);
        }
        self.samples.pop_front();
        self.base += 1;
        self.lost = ts;
    }

    /// Moves every window to end at `now`, and forgets the samples that none of them holds.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        for window in &mut self.windows {
            window.advance(now, &self.samples, self.base);
        }
        let horizon = before(now, self.keep);
        while self.samples.front().is_some_and(|(ts, _)| *ts <= horizon) {
            self.samples.pop_front();
            self.base += 1;
        }
    }

    /// The value of a window that ends at `now`; none where it is unknown.
    pub(crate) fn aggregate(&self, window: usize, aggregate: Aggregate, now: Timestamp) -> Option<f64> {
        let window = self.windows.get(window)?;
        let end = self.base + self.samples.len() as u64;
        let count = end.checked_sub(window.start).filter(|count| *count > 0)?;
        if self.lost > window.floor && self.lost > before(now, window.duration) {
            return None;
        }
        let sample =
            |index: u64| self.samples.get(usize::try_from(index.checked_sub(self.base)?).ok()?).copied();
        let value = match aggregate {
            Aggregate::Count => count as f64,
            Aggregate::Sum => window.sum.to_f64(),
            Aggregate::Avg => window.sum.to_f64() / count as f64,
            Aggregate::Min => sample(*window.least.front()?)?.1,
            Aggregate::Max => sample(*window.greatest.front()?)?.1,
            Aggregate::Last => sample(end - 1)?.1,
            Aggregate::Delta | Aggregate::Rate if count < 2 => return None,
            Aggregate::Delta => sample(end - 1)?.1 - sample(window.start)?.1,
            Aggregate::Rate => {
                let ((from, first), (to, last)) = (sample(window.start)?, sample(end - 1)?);
                (last - first) / to.since(from).as_secs_f64()
            }
            Aggregate::Stddev => window.stddev(count)?,
        };
        value.is_finite().then_some(value)
    }
}

/// The instant before which a window that ends at `now` sees nothing; it is not in the window itself.
fn before(now: Timestamp, duration: i64) -> Timestamp {
    Timestamp::from_micros(now.as_micros().saturating_sub(duration))
}

impl Window {
    fn new(duration: i64, floor: Timestamp) -> Self {
        Self {
            duration,
            floor,
            needs: Needs::default(),
            start: 0,
            sum: Exact::ZERO,
            squares: Exact::ZERO,
            overflowing: 0,
            least: VecDeque::new(),
            greatest: VecDeque::new(),
        }
    }

    fn push(&mut self, index: u64, value: f64, samples: &VecDeque<(Timestamp, f64)>, base: u64) {
        if self.needs.sum {
            self.sum.add(value);
        }
        if self.needs.squares {
            let (square, rest) = squared(value);
            if square.is_finite() {
                self.squares.add(square);
                self.squares.add(rest);
            } else {
                self.overflowing += 1;
            }
        }
        let at = |index: u64| samples.get((index - base) as usize).map(|(_, value)| *value);
        if self.needs.min {
            while self.least.back().is_some_and(|last| at(*last).is_some_and(|last| last >= value)) {
                self.least.pop_back();
            }
            self.least.push_back(index);
        }
        if self.needs.max {
            while self.greatest.back().is_some_and(|last| at(*last).is_some_and(|last| last <= value)) {
                self.greatest.pop_back();
            }
            self.greatest.push_back(index);
        }
    }

    fn advance(&mut self, now: Timestamp, samples: &VecDeque<(Timestamp, f64)>, base: u64) {
        let horizon = before(now, self.duration).max(self.floor);
        while samples.get((self.start - base) as usize).is_some_and(|(ts, _)| *ts <= horizon) {
            self.drop_through(self.start, samples, base);
        }
    }

    /// Leaves behind everything up to the sample of that index.
    fn drop_through(&mut self, index: u64, samples: &VecDeque<(Timestamp, f64)>, base: u64) {
        while self.start <= index {
            let Some((_, value)) = samples.get((self.start - base) as usize).copied() else { return };
            if self.needs.sum {
                self.sum.subtract(value);
            }
            if self.needs.squares {
                let (square, rest) = squared(value);
                if square.is_finite() {
                    self.squares.subtract(square);
                    self.squares.subtract(rest);
                } else {
                    self.overflowing -= 1;
                }
            }
            for extremes in [&mut self.least, &mut self.greatest] {
                if extremes.front() == Some(&self.start) {
                    extremes.pop_front();
                }
            }
            self.start += 1;
        }
    }

    /// Of the population: √(n·Σx² − (Σx)²) / n, with 106 bits until the root, so that a small spread around a large mean
    /// is not lost.
    fn stddev(&self, count: u64) -> Option<f64> {
        if self.overflowing > 0 {
            return None;
        }
        let n = count as f64;
        let (sum, sum_rest) = self.sum.to_pair();
        let (squares, squares_rest) = self.squares.to_pair();
        let (left, left_rest) = product(n, squares);
        let (right, right_rest) = squared(sum);
        let spread = (left - right) + (left_rest - right_rest + n * squares_rest - 2.0 * sum * sum_rest);
        Some(spread.max(0.0).sqrt() / n)
    }
}

fn squared(value: f64) -> (f64, f64) {
    product(value, value)
}

/// The product and what its rounding lost.
fn product(a: f64, b: f64) -> (f64, f64) {
    let high = a * b;
    (high, a.mul_add(b, -high))
}
