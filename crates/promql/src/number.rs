//! Numbers as Prometheus computes and writes them.

/// `math.Min` of Go: NaN spreads, unless the other is −∞.
pub(crate) fn go_min(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY {
        f64::NEG_INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.min(b)
    }
}

/// `math.Max` of Go: NaN spreads, unless the other is +∞.
pub(crate) fn go_max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}

/// A sum that keeps what rounding takes away (Kahan's algorithm with Neumaier's improvement).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sum {
    /// Without the correction.
    pub(crate) plain: f64,
    correction: f64,
}

impl Sum {
    pub(crate) fn add(&mut self, more: f64) {
        let sum = self.plain + more;
        self.correction += match self.plain.abs() >= more.abs() {
            true => (self.plain - sum) + more,
            false => (more - sum) + self.plain,
        };
        self.plain = sum;
    }

    pub(crate) fn value(self) -> f64 {
        self.plain + self.correction
    }

    /// As [`Sum::value`], where an infinite sum stays what it is.
    pub(crate) fn value_or_infinite(self) -> f64 {
        if self.plain.is_infinite() { self.plain } else { self.value() }
    }
}

/// The value `phi` of the way through `values`, by linear interpolation; NaN orders first. `values` are sorted.
pub(crate) fn quantile(phi: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || phi.is_nan() {
        return f64::NAN;
    }
    if phi < 0.0 {
        return f64::NEG_INFINITY;
    }
    if phi > 1.0 {
        return f64::INFINITY;
    }
    values.sort_unstable_by(|a, b| b.is_nan().cmp(&a.is_nan()).then(a.total_cmp(b)));
    let last = values.len() - 1;
    let rank = phi * last as f64;
    let (lower, weight) = (rank.floor(), rank - rank.floor());
    let at = |index: usize| values.get(index.min(last)).copied().unwrap_or(f64::NAN);
    let index = lower.max(0.0) as usize;
    at(index) * (1.0 - weight) + at(index + 1) * weight
}

/// A value as the JSON of Prometheus has it, without quotes: the shortest decimal that is this double, with an exponent
/// below 1e-6 and from 1e21 on; `NaN`, `+Inf`, `-Inf`.
pub fn format_value(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let size = value.abs();
    if size == 0.0 || (1e-6..1e21).contains(&size) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        // Go writes a sign and at least two digits.
        Some((digits, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        },
        None => text,
    }
}

/// A value as `count_values` makes a label of it: never with an exponent.
pub(crate) fn format_plain(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { format_value(value) }
}

/// Milliseconds since the Unix epoch, in seconds with as many digits as needed.
pub fn format_time(millis: i64) -> String {
    let sign = if millis < 0 { "-" } else { "" };
    let (seconds, rest) = (millis.unsigned_abs() / 1_000, millis.unsigned_abs() % 1_000);
    if rest == 0 { format!("{sign}{seconds}") } else { format!("{sign}{seconds}.{rest:03}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_prometheus_does() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (-1234567.5, "-1234567.5"),
            (1e-6, "0.000001"),
            (9.5e-7, "9.5e-07"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-2.5e-300, "-2.5e-300"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(format_value(value), text);
        }
        assert_eq!(format_plain(1e21), "1000000000000000000000");
    }

    #[test]
    fn times_have_milliseconds_where_they_need_them() {
        assert_eq!([1_500, 2_000, -1_005, 7].map(format_time), ["1.500", "2", "-1.005", "0.007"]);
    }

    #[test]
    fn a_quantile_lies_between_its_neighbours() {
        assert_eq!(quantile(0.5, &mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(quantile(1.0, &mut [4.0, 1.0]), 4.0);
        assert!(quantile(0.0, &mut [4.0, f64::NAN]).is_nan());
        assert_eq!(quantile(-0.1, &mut [4.0]), f64::NEG_INFINITY);
        assert_eq!(quantile(1.1, &mut [4.0]), f64::INFINITY);
    }

    #[test]
    fn a_sum_keeps_what_rounding_takes() {
        let mut sum = Sum::default();
        [1.0, 1e100, 1.0, -1e100].into_iter().for_each(|value| sum.add(value));
        assert_eq!(sum.value(), 2.0);
    }
}
