//! Exact sums of doubles: a fixed-point number wide enough for every double, so that adding and taking away never round
//! and the sum depends on what is in it, not on how it got there.
//!
//! Source: U. Kulisch, "Computer Arithmetic and Validity" (long accumulator).

/// A double is a multiple of 2^-1074 below 2^1024: 2,098 bits, and 34 words leave 2^77 of head room for carries.
const WORDS: usize = 34;
/// The weight of the lowest bit.
const LOWEST: i32 = -1074;

/// A sum of finite doubles, in two's complement, lowest word first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exact([u64; WORDS]);

impl Exact {
    pub(crate) const ZERO: Self = Self([0; WORDS]);

    /// Adds a finite double.
    pub(crate) fn add(&mut self, value: f64) {
        self.accumulate(value, value.is_sign_negative());
    }

    /// Takes a finite double away.
    pub(crate) fn subtract(&mut self, value: f64) {
        self.accumulate(value, !value.is_sign_negative());
    }

    fn accumulate(&mut self, value: f64, negative: bool) {
        let bits = value.to_bits();
        let exponent = (bits >> 52) & 0x7ff;
        let fraction = bits & ((1 << 52) - 1);
        let mantissa = if exponent == 0 { fraction } else { fraction | (1 << 52) };
        let shift = exponent.max(1) - 1;
        let wide = u128::from(mantissa) << (shift % 64);
        let halves = [wide as u64, (wide >> 64) as u64];
        let mut carry = false;
        for (index, word) in self.0.iter_mut().skip((shift / 64) as usize).enumerate() {
            let half = halves.get(index).copied();
            if half.is_none() && !carry {
                break;
            }
            let half = half.unwrap_or(0);
            let (first, second) = if negative {
                (word.overflowing_sub(half), u64::from(carry))
            } else {
                (word.overflowing_add(half), u64::from(carry))
            };
            let last =
                if negative { first.0.overflowing_sub(second) } else { first.0.overflowing_add(second) };
            *word = last.0;
            carry = first.1 || last.1;
        }
    }

    /// The nearest double (ties to even); infinite where the sum is beyond the largest.
    pub(crate) fn to_f64(&self) -> f64 {
        let negative = self.0.last().is_some_and(|top| top >> 63 == 1);
        let magnitude = if negative { self.negated() } else { self.clone() };
        let Some(top) = magnitude.0.iter().rposition(|word| *word != 0) else { return 0.0 };
        let low = top.saturating_sub(1);
        let word = |index: usize| u128::from(magnitude.0.get(index).copied().unwrap_or(0));
        let mut leading = if top == 0 { word(0) } else { word(top) << 64 | word(low) };
        if magnitude.0.iter().take(low).any(|word| *word != 0) {
            leading |= 1; // sticky: at least 65 bits lead, so it only breaks ties
        }
        let value = leading as f64 * power_of_two(LOWEST + 64 * low as i32);
        if negative { -value } else { value }
    }

    /// The sum as an unevaluated sum of two doubles: about 106 bits of it.
    pub(crate) fn to_pair(&self) -> (f64, f64) {
        let high = self.to_f64();
        if !high.is_finite() {
            return (high, 0.0);
        }
        let mut rest = self.clone();
        rest.subtract(high);
        (high, rest.to_f64())
    }

    fn negated(&self) -> Self {
        let mut carry = true;
        let mut words = self.0;
        for word in &mut words {
            (*word, carry) = (!*word).overflowing_add(u64::from(carry));
        }
        Self(words)
    }
}

/// 2^exponent for −1074 ≤ exponent ≤ 1023.
fn power_of_two(exponent: i32) -> f64 {
    if exponent < -1022 {
        f64::from_bits(1 << (exponent - LOWEST))
    } else {
        f64::from_bits(((exponent + 1023) as u64) << 52)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn finite() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>().prop_filter("finite", |value| value.is_finite()),
            -1e6_f64..1e6,
            Just(f64::MAX),
            Just(-f64::MIN_POSITIVE),
            Just(5e-324),
        ]
    }

    #[test]
    fn what_a_running_sum_of_doubles_loses_is_kept() {
        let mut sum = Exact::ZERO;
        for value in [1e300, 1.0, -1e300, 5e-324] {
            sum.add(value);
        }
        assert_eq!(sum.to_f64(), 1.0);
        sum.subtract(1.0);
        assert_eq!(sum.to_f64(), 5e-324);
    }

    #[test]
    fn a_sum_beyond_the_largest_double_is_infinite_and_comes_back() {
        let mut sum = Exact::ZERO;
        sum.add(f64::MAX);
        sum.add(f64::MAX);
        assert_eq!(sum.to_f64(), f64::INFINITY);
        sum.subtract(f64::MAX);
        assert_eq!(sum.to_f64(), f64::MAX);
    }

    proptest! {
        #[test]
        fn one_double_is_itself_and_two_are_rounded_as_the_processor_does(a in finite(), b in finite()) {
            let mut sum = Exact::ZERO;
            sum.add(a);
            prop_assert_eq!(sum.to_f64(), a);
            sum.add(b);
            prop_assert_eq!(sum.to_f64(), a + b);
        }

        #[test]
        fn a_sum_does_not_know_its_history(
            kept in prop::collection::vec(finite(), 0..20),
            gone in prop::collection::vec(finite(), 0..20),
        ) {
            let mut direct = Exact::ZERO;
            kept.iter().for_each(|value| direct.add(*value));
            let mut roundabout = Exact::ZERO;
            gone.iter().chain(kept.iter().rev()).for_each(|value| roundabout.add(*value));
            gone.iter().for_each(|value| roundabout.subtract(*value));
            prop_assert_eq!(direct, roundabout);
        }
    }
}
