//! In which CQL partition of `buckets` a bucket is: a year of the wide ones, a day of the fine ones.
//!
//! A year of days, hours and five minutes is at most 114,000 rows, and a day of ten seconds and seconds 95,000: 5 MB either
//! way, though a device were at every width all the time. Most devices have one row a day, so a query over a year reads
//! one partition of the first class, and of the second only those that `bucket_periods` names.

use weir_core::{
    Timestamp,
    port::{BucketId, Width},
};

const DAY: i64 = Width::Day.micros();

/// Which widths share a CQL partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Days, hours and five minutes, by the year.
    Wide = 0,
    /// Ten seconds and seconds, by the day.
    Fine = 1,
}

impl Class {
    pub(super) const ALL: [Self; 2] = [Self::Wide, Self::Fine];

    pub(super) fn of(width: Width) -> Self {
        match width {
            Width::Day | Width::Hour | Width::FiveMinutes => Self::Wide,
            Width::TenSeconds | Width::Second => Self::Fine,
        }
    }

    /// The period of an instant.
    pub(super) fn period(self, at: Timestamp) -> i32 {
        let day = at.as_micros().div_euclid(DAY);
        // i64 microseconds are 107 million days, either way.
        i32::try_from(match self {
            Self::Wide => year(day),
            Self::Fine => day,
        })
        .unwrap_or_default()
    }
}

/// Class and period of a bucket, as they are stored.
pub(super) fn of(bucket: BucketId) -> (i8, i32) {
    let class = Class::of(bucket.width);
    (class as i8, class.period(bucket.start))
}

/// The year of the proleptic Gregorian calendar that holds a day counted from 1970-01-01 (Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms", `civil_from_days`).
fn year(day: i64) -> i64 {
    const DAYS_OF_400_YEARS: i64 = 146_097;
    let shifted = day + 719_468; // from 0000-03-01
    let era = shifted.div_euclid(DAYS_OF_400_YEARS);
    let day_of_era = shifted.rem_euclid(DAYS_OF_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let after_new_year = day_of_year >= 306; // January and February end the shifted year
    era * 400 + year_of_era + i64::from(after_new_year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_begins_at_its_first_instant() {
        for (day, expected) in [
            (0, 1970),
            (-1, 1969),
            (10_957, 2000),
            (10_956, 1999),
            (11_322, 2000),
            (11_323, 2001),
            (16_482, 2015),
            (-719_162, 1),
            (-719_163, 0),
        ] {
            assert_eq!(year(day), expected, "day {day}");
        }
    }

    #[test]
    fn every_instant_has_a_period() {
        for at in [Timestamp::MIN, Timestamp::MAX] {
            assert_ne!(Class::Wide.period(at), 0);
            assert_ne!(Class::Fine.period(at), 0);
        }
        let last = Timestamp::from_micros(-1);
        assert_eq!((Class::Wide.period(last), Class::Fine.period(last)), (1969, -1));
    }
}
