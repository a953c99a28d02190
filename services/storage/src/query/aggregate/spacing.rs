//! Where steps begin and end.

use std::time::Duration;

use jiff::{ToSpan as _, civil, tz::TimeZone};
use weir_core::{Error, Result, Timestamp};

/// Steps of one request: ten weeks of minutes, three years of quarters of an hour.
const STEPS_MAX: i64 = 100_000;
const STEP_MIN: Duration = Duration::from_secs(1);
const DAY_SECONDS: u64 = 86_400;
const DAY: i64 = 86_400_000_000;
const EPOCH: civil::Date = civil::date(1970, 1, 1);

/// How a range is cut into steps.
#[derive(Debug, Clone)]
pub(crate) enum Spacing {
    /// One step over the whole range.
    Whole,
    /// So many microseconds, aligned to the epoch.
    Every(i64),
    /// So many days of a time zone, each from midnight to midnight, counted from 1970-01-01.
    Days(i64, TimeZone),
}

impl Spacing {
    /// From a step's length and the IANA name of a zone.
    ///
    /// # Errors
    /// `STEP_INVALID` below 1 s or finer than a microsecond; `TIME_ZONE_INVALID` for a zone that is not known, or a step
    /// that is not of whole days.
    pub(crate) fn new(step: Option<Duration>, time_zone: &str) -> Result<Self> {
        let zone_invalid = |message: String| Error::invalid("time_zone", "TIME_ZONE_INVALID", message);
        let Some(step) = step else {
            return match time_zone {
                "" => Ok(Self::Whole),
                _ => {
                    Err(zone_invalid("time_zone is for steps of whole days, and there is no step".to_owned()))
                }
            };
        };
        let micros =
            i64::try_from(step.as_micros()).ok().filter(|_| step.subsec_nanos().is_multiple_of(1_000));
        let Some(micros) = micros.filter(|_| step >= STEP_MIN) else {
            let message = format!("step {step:?} must be at least 1 s, in whole microseconds");
            return Err(Error::invalid("step", "STEP_INVALID", message).with_limit("1s"));
        };
        if time_zone.is_empty() {
            return Ok(Self::Every(micros));
        }
        if step.subsec_nanos() != 0 || !step.as_secs().is_multiple_of(DAY_SECONDS) {
            return Err(zone_invalid(format!("time_zone is for steps of whole days, and step is {step:?}")));
        }
        let zone = TimeZone::get(time_zone).map_err(|source| {
            let shown: String = time_zone.chars().take(64).collect();
            zone_invalid(format!("time zone {shown:?} is not known; give an IANA name such as Europe/Vienna"))
                .with_source(source)
        })?;
        Ok(Self::Days(micros / DAY, zone))
    }

    /// # Errors
    /// `TOO_MANY_STEPS` above 100,000.
    pub(crate) fn check(&self, from: Timestamp, to: Timestamp) -> Result<()> {
        let micros = match self {
            Self::Whole => return Ok(()),
            Self::Every(micros) => *micros,
            Self::Days(days, _) => days.saturating_mul(DAY),
        };
        let first = from.as_micros().div_euclid(micros);
        let last = to.as_micros().saturating_sub(1).div_euclid(micros);
        let steps = last.saturating_sub(first).saturating_add(1);
        if steps > STEPS_MAX {
            return Err(Error::invalid(
                "step",
                "TOO_MANY_STEPS",
                format!("the range has {steps} steps, the limit is {STEPS_MAX}: take a longer step or a shorter range"),
            )
            .with_limit(STEPS_MAX));
        }
        Ok(())
    }

    /// The step that holds `ts`: [start, end), within the request's range only where the step is the whole of it.
    ///
    /// # Errors
    /// `OUT_OF_RANGE` for an instant that a calendar cannot hold.
    pub(crate) fn step_of(
        &self,
        ts: Timestamp,
        range: (Timestamp, Timestamp),
    ) -> Result<(Timestamp, Timestamp)> {
        match self {
            Self::Whole => Ok(range),
            Self::Every(micros) => {
                let start = ts.as_micros().div_euclid(*micros).saturating_mul(*micros);
                Ok((Timestamp::from_micros(start), Timestamp::from_micros(start.saturating_add(*micros))))
            }
            Self::Days(days, zone) => civil_step(ts, *days, zone).map_err(|source| {
                Error::invalid(
                    "step",
                    "OUT_OF_RANGE",
                    format!("the step that holds {ts} is outside of the calendar"),
                )
                .with_source(source)
            }),
        }
    }
}

fn civil_step(ts: Timestamp, days: i64, zone: &TimeZone) -> Result<(Timestamp, Timestamp), jiff::Error> {
    let date = jiff::Timestamp::from_microsecond(ts.as_micros())?.to_zoned(zone.clone()).date();
    let since = i64::from(EPOCH.until(date)?.get_days());
    let first = since.div_euclid(days).saturating_mul(days);
    let midnight = |day: i64| -> Result<Timestamp, jiff::Error> {
        let date = EPOCH.checked_add(day.days())?;
        // Where midnight does not exist, the day begins with its first instant.
        let start = date.to_zoned(zone.clone())?.start_of_day()?;
        Ok(Timestamp::from_micros(start.timestamp().as_microsecond()))
    };
    Ok((midnight(first)?, midnight(first.saturating_add(days))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn step(spacing: &Spacing, ts: &str) -> (String, String) {
        let (start, end) = spacing.step_of(at(ts), (at(ts), at(ts))).unwrap();
        (start.to_string(), end.to_string())
    }

    #[test]
    fn steps_are_aligned_to_the_epoch() {
        let spacing = Spacing::new(Some(Duration::from_secs(300)), "").unwrap();
        assert_eq!(
            step(&spacing, "2024-03-31T12:04:59.9Z"),
            ("2024-03-31T12:00:00Z".into(), "2024-03-31T12:05:00Z".into())
        );
    }

    #[test]
    fn days_of_a_zone_follow_its_clock_changes() {
        let spacing = Spacing::new(Some(Duration::from_secs(86_400)), "Europe/Vienna").unwrap();
        assert_eq!(
            step(&spacing, "2024-03-31T12:00:00Z"), // 23 hours
            ("2024-03-30T23:00:00Z".into(), "2024-03-31T22:00:00Z".into())
        );
        assert_eq!(
            step(&spacing, "2024-10-27T12:00:00Z"), // 25 hours
            ("2024-10-26T22:00:00Z".into(), "2024-10-27T23:00:00Z".into())
        );
    }

    #[test]
    fn a_bad_step_or_zone_is_refused_by_name() {
        let refused = |step: Option<u64>, zone: &str| {
            let error = Spacing::new(step.map(Duration::from_millis), zone).unwrap_err();
            (error.field().unwrap().to_owned(), error.reason().to_owned())
        };
        assert_eq!(refused(Some(999), ""), ("step".into(), "STEP_INVALID".into()));
        assert_eq!(
            refused(Some(3_600_000), "Europe/Vienna"),
            ("time_zone".into(), "TIME_ZONE_INVALID".into())
        );
        assert_eq!(
            refused(Some(86_400_000), "Europe/Atlantis"),
            ("time_zone".into(), "TIME_ZONE_INVALID".into())
        );
        assert_eq!(refused(None, "UTC"), ("time_zone".into(), "TIME_ZONE_INVALID".into()));
    }

    #[test]
    fn too_many_steps_are_refused_with_the_limit() {
        let spacing = Spacing::new(Some(Duration::from_secs(1)), "").unwrap();
        let end = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        assert!(spacing.check(end(0), end(100_000)).is_ok());
        let error = spacing.check(end(0), end(100_001)).unwrap_err();
        assert_eq!((error.reason(), error.limit()), ("TOO_MANY_STEPS", Some("100000")));
        assert!(error.message().contains("100000"));
    }
}
