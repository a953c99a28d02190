//! Parts of a date in UTC, from seconds since the Unix epoch.
//!
//! Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.

const DAY: i64 = 86_400;
/// Days of the 400 years after which the calendar repeats.
const ERA: i64 = 146_097;

/// Whole seconds, and no further than a million years from now: beyond that a date means nothing.
fn seconds(value: f64) -> i64 {
    (value as i64).clamp(-31_556_952_000_000, 31_556_952_000_000)
}

struct Date {
    year: i64,
    month: i64,
    day: i64,
}

fn date(days: i64) -> Date {
    let shifted = days + 719_468; // days since 1 March of the year 0
    let (era, of_era) = (shifted.div_euclid(ERA), shifted.rem_euclid(ERA));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Date { year, month, day: of_year - (153 * from_march + 2) / 5 + 1 }
}

fn days(value: f64) -> i64 {
    seconds(value).div_euclid(DAY)
}

fn is_leap(year: i64) -> bool {
    year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
}

pub(crate) fn minute(value: f64) -> f64 {
    (seconds(value).rem_euclid(3_600) / 60) as f64
}

pub(crate) fn hour(value: f64) -> f64 {
    (seconds(value).rem_euclid(DAY) / 3_600) as f64
}

/// Sunday is 0.
pub(crate) fn day_of_week(value: f64) -> f64 {
    (days(value) + 4).rem_euclid(7) as f64 // the epoch was a Thursday
}

pub(crate) fn day_of_month(value: f64) -> f64 {
    date(days(value)).day as f64
}

pub(crate) fn day_of_year(value: f64) -> f64 {
    let days = days(value);
    let Date { year, month, day } = date(days);
    let before: i64 = (1..month).map(|month| month_days(year, month)).sum();
    (before + day) as f64
}

pub(crate) fn days_in_month(value: f64) -> f64 {
    let Date { year, month, .. } = date(days(value));
    month_days(year, month) as f64
}

pub(crate) fn month(value: f64) -> f64 {
    date(days(value)).month as f64
}

pub(crate) fn year(value: f64) -> f64 {
    date(days(value)).year as f64
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_known_dates() {
        let leap_day = 1_709_209_799.0; // 2024-02-29T12:29:59Z, a Thursday
        let parts = [year, month, day_of_month, day_of_week, day_of_year, days_in_month, hour, minute];
        assert_eq!(parts.map(|part| part(leap_day)), [2024.0, 2.0, 29.0, 4.0, 60.0, 29.0, 12.0, 29.0]);
        assert_eq!(parts.map(|part| part(-1.0)), [1969.0, 12.0, 31.0, 3.0, 365.0, 31.0, 23.0, 59.0]);
        assert!(parts.iter().all(|part| part(f64::NAN).is_finite() && part(1e300).is_finite()));
    }
}
