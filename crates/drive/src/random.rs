//! Numbers that look random and follow from a seed: SplitMix64 (G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom
//! Number Generators", OOPSLA 2014). Not for secrets.

/// The odd number closest to 2^64 / φ: the step of SplitMix64.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Scatters the bits of one number; different numbers give different results.
pub const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A sequence of numbers that follows from its seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another sequence for the part of the work with that number, whatever this one has given so far by then.
    #[must_use]
    pub const fn fork(seed: u64, part: u64) -> Self {
        Self(mix(seed ^ mix(part)))
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        let number = mix(self.0);
        self.0 = self.0.wrapping_add(STEP);
        number
    }

    /// The next number below `bound`; 0 where `bound` is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        // The bias of a remainder is below bound / 2^64: nothing here can tell.
        match self.next().checked_rem(bound) {
            Some(number) => number,
            None => 0,
        }
    }

    /// True once in `times`, on average.
    pub const fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_and_its_forks_differ() {
        let sequence = |mut random: Random| (0..100).map(|_| random.below(1_000)).collect::<Vec<_>>();
        assert_eq!(sequence(Random::new(7)), sequence(Random::new(7)));
        assert_ne!(sequence(Random::new(7)), sequence(Random::new(8)));
        assert_ne!(sequence(Random::fork(7, 1)), sequence(Random::fork(7, 2)));
        assert_eq!(Random::new(7).below(0), 0);
    }
}
