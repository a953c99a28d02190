//! Functions of the samples of a window: each as Prometheus 2.42 computes it.
//!
//! Source: Prometheus, "Query functions", and the behaviour of `promql/functions.go` at v2.42.0.

use crate::{
    number::{self, Sum},
    source::Sample,
};

/// The samples of a window, never none, and where it stands.
pub(crate) struct Window<'a> {
    pub(crate) samples: &'a [Sample],
    /// Where it begins, in milliseconds.
    pub(crate) start: i64,
    /// Where it ends, in milliseconds.
    pub(crate) end: i64,
    /// The instant of the evaluation, in milliseconds.
    pub(crate) at: i64,
    /// The scalar beside the window; 0 where the function has none.
    pub(crate) param: f64,
}

/// A function of a window; none where it has no value there.
pub(crate) type OverTime = fn(&Window<'_>) -> Option<f64>;

impl Window<'_> {
    fn values(&self) -> impl Iterator<Item = f64> + '_ {
        self.samples.iter().map(|sample| sample.v)
    }

    /// The first and the last of at least two samples.
    fn ends(&self) -> Option<(Sample, Sample)> {
        match self.samples {
            [first, .., last] => Some((*first, *last)),
            _ => None,
        }
    }

    fn pairs(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.values().zip(self.values().skip(1))
    }
}

fn seconds(millis: i64) -> f64 {
    millis as f64 / 1_000.0
}

pub(crate) fn avg(window: &Window<'_>) -> Option<f64> {
    let mut mean = Sum::default();
    let mut count = 0.0;
    for value in window.values() {
        count += 1.0;
        // An infinite mean stays, unless the infinity of the other sign or NaN comes.
        if mean.plain.is_infinite() && stays_infinite(mean.plain, value) {
            continue;
        }
        mean.add(value / count - mean.plain / count);
    }
    Some(mean.value_or_infinite())
}

/// Whether adding `value` to a mean that is infinite leaves it as it is.
pub(super) fn stays_infinite(mean: f64, value: f64) -> bool {
    if value.is_infinite() { (mean > 0.0) == (value > 0.0) } else { !value.is_nan() }
}

pub(crate) fn sum(window: &Window<'_>) -> Option<f64> {
    let mut sum = Sum::default();
    window.values().for_each(|value| sum.add(value));
    Some(sum.value_or_infinite())
}

pub(crate) fn count(window: &Window<'_>) -> Option<f64> {
    Some(window.samples.len() as f64)
}

pub(crate) fn last(window: &Window<'_>) -> Option<f64> {
    window.samples.last().map(|sample| sample.v)
}

pub(crate) fn present(_: &Window<'_>) -> Option<f64> {
    Some(1.0)
}

pub(crate) fn min(window: &Window<'_>) -> Option<f64> {
    window.values().reduce(|least, value| if value < least || least.is_nan() { value } else { least })
}

pub(crate) fn max(window: &Window<'_>) -> Option<f64> {
    window
        .values()
        .reduce(|greatest, value| if value > greatest || greatest.is_nan() { value } else { greatest })
}

pub(crate) fn quantile(window: &Window<'_>) -> Option<f64> {
    let mut values: Vec<f64> = window.values().collect();
    Some(number::quantile(window.param, &mut values))
}

pub(crate) fn stddev(window: &Window<'_>) -> Option<f64> {
    stdvar(window).map(f64::sqrt)
}

/// Welford's algorithm with corrected sums.
pub(crate) fn stdvar(window: &Window<'_>) -> Option<f64> {
    let (mut mean, mut squares) = (Sum::default(), Sum::default());
    let mut count = 0.0;
    for value in window.values() {
        count += 1.0;
        let delta = value - mean.value();
        mean.add(delta / count);
        squares.add(delta * (value - mean.value()));
    }
    Some(squares.value() / count)
}

pub(crate) fn rate(window: &Window<'_>) -> Option<f64> {
    let (increase, factor) = extrapolated(window, true)?;
    // Prometheus divides the factor, not the result.
    Some(increase * (factor / seconds(window.end - window.start)))
}

pub(crate) fn increase(window: &Window<'_>) -> Option<f64> {
    extrapolated(window, true).map(|(increase, factor)| increase * factor)
}

pub(crate) fn delta(window: &Window<'_>) -> Option<f64> {
    extrapolated(window, false).map(|(difference, factor)| difference * factor)
}

/// The difference between the last and the first sample, a counter's resets made good, and the factor by which the window
/// is longer than the span of the samples: up to the window's ends where they are no further than a sample's usual
/// distance (with a tenth more), else by half of that distance; and never back beyond where a counter would be 0.
fn extrapolated(window: &Window<'_>, is_counter: bool) -> Option<(f64, f64)> {
    let (first, last) = window.ends()?;
    let mut difference = last.v - first.v;
    if is_counter {
        for (before, _) in window.pairs().filter(|(before, after)| after < before) {
            difference += before;
        }
    }
    let mut to_start = seconds(first.t - window.start);
    let to_end = seconds(window.end - last.t);
    let sampled = seconds(last.t - first.t);
    let usual = sampled / (window.samples.len() - 1) as f64;
    if is_counter && difference > 0.0 && first.v >= 0.0 {
        to_start = to_start.min(sampled * (first.v / difference));
    }
    let reach = |distance: f64| if distance < usual * 1.1 { distance } else { usual / 2.0 };
    let span = sampled + reach(to_start) + reach(to_end);
    Some((difference, span / sampled))
}

pub(crate) fn irate(window: &Window<'_>) -> Option<f64> {
    let (before, last) = last_two(window)?;
    let difference = if last.v < before.v { last.v } else { last.v - before.v };
    Some(difference / seconds(last.t - before.t))
}

pub(crate) fn idelta(window: &Window<'_>) -> Option<f64> {
    last_two(window).map(|(before, last)| last.v - before.v)
}

fn last_two(window: &Window<'_>) -> Option<(Sample, Sample)> {
    match window.samples {
        [.., before, last] if last.t > before.t => Some((*before, *last)),
        _ => None,
    }
}

pub(crate) fn deriv(window: &Window<'_>) -> Option<f64> {
    let (first, _) = window.ends()?;
    Some(regression(window.samples, first.t).0)
}

pub(crate) fn predict_linear(window: &Window<'_>) -> Option<f64> {
    window.ends()?;
    let (slope, intercept) = regression(window.samples, window.at);
    Some(slope * window.param + intercept)
}

/// Slope by second, and value at `origin`, of the line through the samples by least squares.
fn regression(samples: &[Sample], origin: i64) -> (f64, f64) {
    let first = samples.first().map_or(f64::NAN, |sample| sample.v);
    if samples.iter().skip(1).all(|sample| sample.v == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let mut sums = [Sum::default(); 4];
    for sample in samples {
        let x = (sample.t - origin) as f64 / 1e3;
        for (sum, term) in sums.iter_mut().zip([x, sample.v, x * sample.v, x * x]) {
            sum.add(term);
        }
    }
    let n = samples.len() as f64;
    let [x, y, xy, xx] = sums.map(Sum::value);
    let slope = (xy - x * y / n) / (xx - x * x / n);
    (slope, y / n - slope * x / n)
}

pub(crate) fn changes(window: &Window<'_>) -> Option<f64> {
    let differ = |(before, after): &(f64, f64)| before != after && !(before.is_nan() && after.is_nan());
    Some(window.pairs().filter(differ).count() as f64)
}

pub(crate) fn resets(window: &Window<'_>) -> Option<f64> {
    Some(window.pairs().filter(|(before, after)| after < before).count() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(values: &[(i64, f64)], start: i64, end: i64) -> (Vec<Sample>, i64, i64) {
        (values.iter().map(|(t, v)| Sample { t: *t, v: *v }).collect(), start, end)
    }

    fn of(function: OverTime, (samples, start, end): &(Vec<Sample>, i64, i64)) -> Option<f64> {
        function(&Window { samples, start: *start, end: *end, at: *end, param: 0.5 })
    }

    #[test]
    fn an_increase_reaches_to_the_ends_of_the_window_and_over_a_reset() {
        let steady = window(&[(10_000, 10.0), (20_000, 20.0), (30_000, 30.0)], 0, 40_000);
        assert_eq!(of(increase, &steady), Some(40.0));
        assert_eq!(of(rate, &steady), Some(1.0));
        let reset = window(&[(0, 100.0), (10_000, 110.0), (20_000, 5.0), (30_000, 15.0)], 0, 30_000);
        assert_eq!(of(increase, &reset), Some(25.0));
        assert_eq!(of(delta, &reset), Some(-85.0));
        assert_eq!((of(resets, &reset), of(changes, &reset)), (Some(1.0), Some(3.0)));
    }

    #[test]
    fn a_counter_is_not_taken_back_below_zero() {
        let young = window(&[(20_000, 1.0), (30_000, 11.0)], 10_000, 30_000);
        assert_eq!(of(increase, &young), Some(11.0));
        assert_eq!(of(delta, &young), Some(20.0));
    }

    #[test]
    fn one_sample_has_no_rate_and_every_other_value() {
        let one = window(&[(5, 3.0)], 0, 10);
        for function in [rate, increase, delta, irate, idelta, deriv, predict_linear] {
            assert_eq!(of(function, &one), None);
        }
        for (function, value) in
            [(avg as OverTime, 3.0), (sum, 3.0), (stddev, 0.0), (quantile, 3.0), (last, 3.0)]
        {
            assert_eq!(of(function, &one), Some(value));
        }
    }

    #[test]
    fn a_line_has_its_slope() {
        let line = window(&[(1_000, 1.0), (3_000, 5.0), (4_000, 7.0)], 0, 5_000);
        assert_eq!(of(deriv, &line), Some(2.0));
        assert!(of(predict_linear, &line).is_some_and(|value| (value - 10.0).abs() < 1e-12));
        let flat = window(&[(1_000, 4.0), (3_000, 4.0)], 0, 5_000);
        assert_eq!(of(deriv, &flat), Some(0.0));
    }
}
