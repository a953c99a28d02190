//! What each reading says: a function of run, tenant, device, sequence and version, so that the ledger need not keep it.
//!
//! A value that comes back is compared with what it must be, bit for bit and with its type. The chance that a foreign value
//! passes for the right one is 2^-53.

use weir_core::{Timestamp, Value};

use crate::{Reading, random::mix};

/// The time from one sequence number to the next: a power of two of them fills no bucket, and none shares a millisecond.
const STEP_MICROS: i64 = 100_000;
/// The metric of numbers.
const NUMBER: &str = "n";
/// The metric of texts.
const TEXT: &str = "s";
/// The metric of truth values; every fourth reading has one.
const TRUTH: &str = "b";

/// Whose readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The run.
    pub run: u64,
    /// The tenant's number in the run.
    pub tenant: u32,
    /// The device's number in the tenant.
    pub device: u32,
}

impl Source {
    /// Event time of a sequence number.
    pub fn ts(self, epoch: Timestamp, sequence: u32) -> Timestamp {
        Timestamp::from_micros(epoch.as_micros().saturating_add(i64::from(sequence) * STEP_MICROS))
    }

    /// The sequence number at an event time; none where no reading of this run can be.
    pub fn sequence(self, epoch: Timestamp, ts: Timestamp) -> Option<u32> {
        let after = ts.as_micros().checked_sub(epoch.as_micros())?;
        if after % STEP_MICROS != 0 {
            return None;
        }
        u32::try_from(after / STEP_MICROS).ok()
    }

    /// The values of one version of a reading, in order of their metrics.
    pub fn values(self, sequence: u32, version: u8) -> Vec<(&'static str, Value)> {
        let who = mix(self.run ^ mix((u64::from(self.tenant) << 32) | u64::from(self.device)));
        let bits = mix(who ^ mix((u64::from(sequence) << 8) | u64::from(version)));
        let mut values = Vec::with_capacity(3);
        if sequence % 4 == 3 {
            values.push((TRUTH, Value::Bool(bits & 1 == 1)));
        }
        values.push((NUMBER, Value::Double((bits >> 11) as f64))); // 53 bits: exact as a double
        values.push((TEXT, Value::String(format!("{:016x}", mix(bits)))));
        values
    }

    /// One version of a reading, to be sent.
    pub fn reading(self, epoch: Timestamp, sequence: u32, version: u8) -> Reading {
        let values = self.values(sequence, version);
        Reading {
            ts: Some(self.ts(epoch, sequence)),
            values: values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Source = Source { run: 1, tenant: 2, device: 3 };

    #[test]
    fn a_time_gives_its_sequence_back_and_others_give_none() {
        let epoch = Timestamp::from_micros(1_700_000_000_000_000);
        assert_eq!(SOURCE.sequence(epoch, SOURCE.ts(epoch, 77)), Some(77));
        assert_eq!(SOURCE.sequence(epoch, Timestamp::from_micros(epoch.as_micros() + 1)), None);
        assert_eq!(SOURCE.sequence(epoch, Timestamp::from_micros(epoch.as_micros() - STEP_MICROS)), None);
    }

    #[test]
    fn every_part_of_the_source_changes_the_values() {
        let base = SOURCE.values(5, 0);
        assert_eq!(base, SOURCE.values(5, 0));
        for other in
            [Source { run: 9, ..SOURCE }, Source { tenant: 9, ..SOURCE }, Source { device: 9, ..SOURCE }]
        {
            assert_ne!(base, other.values(5, 0));
        }
        assert_ne!(base, SOURCE.values(6, 0));
        assert_ne!(base, SOURCE.values(5, 1));
    }
}
