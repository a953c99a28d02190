//! Times and durations as the parameters of the HTTP API have them.
//!
//! Source: Prometheus, "HTTP API": a time is RFC 3339 or seconds since the Unix epoch, a duration is seconds or in
//! Prometheus' own format.

use weir_core::{Error, Result, Timestamp};

/// The earliest instant that a parameter can name, in milliseconds since the Unix epoch: what Prometheus takes for "from
/// the first" fits, and its microseconds fit into 64 bits.
pub const TIME_MIN: i64 = -9_000_000_000_000_000;
/// The latest instant that a parameter can name, in milliseconds since the Unix epoch.
pub const TIME_MAX: i64 = 9_000_000_000_000_000;
/// How Prometheus writes the earliest and latest instant that it knows.
const PROMETHEUS_MIN: &str = "-292273086-05-16T16:47:06Z";
const PROMETHEUS_MAX: &str = "292277025-08-18T07:12:54.999999999Z";
/// The units of a duration, from the greatest, in milliseconds.
const UNITS: [(&str, i64); 7] = [
    ("y", 31_536_000_000),
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The instant that `text` names, in milliseconds since the Unix epoch; what is further away is taken for the earliest or
/// latest.
///
/// # Errors
/// `PARAMETER_INVALID` that names `field`.
pub fn parse_time(field: &str, text: &str) -> Result<i64> {
    if let Ok(seconds) = text.parse::<f64>()
        && seconds.is_finite()
    {
        let (whole, rest) = (seconds.trunc(), seconds.fract());
        let millis = whole * 1_000.0 + (rest * 1_000.0).round();
        return Ok((millis as i64).clamp(TIME_MIN, TIME_MAX));
    }
    match text {
        PROMETHEUS_MIN => return Ok(TIME_MIN),
        PROMETHEUS_MAX => return Ok(TIME_MAX),
        _ => {}
    }
    let at = Timestamp::parse_rfc3339(text)
        .map_err(|_| invalid(field, format!("cannot parse {text:?} to a valid timestamp")))?;
    Ok(at.as_micros().div_euclid(1_000))
}

/// The duration that `text` names, in milliseconds; less than one is none.
///
/// # Errors
/// `PARAMETER_INVALID` that names `field`.
pub fn parse_duration(field: &str, text: &str) -> Result<i64> {
    let wrong = || invalid(field, format!("cannot parse {text:?} to a valid duration"));
    let millis = match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() => (seconds * 1_000.0) as i64,
        _ => in_units(text).ok_or_else(wrong)?,
    };
    if millis.unsigned_abs() > TIME_MAX.unsigned_abs() { Err(wrong()) } else { Ok(millis) }
}

/// `1h30m`: each unit once, the greater first.
fn in_units(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut millis, mut units) = (text, 0_i64, UNITS.iter());
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at_checked(digits)?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(end)?;
        let (_, size) = units.find(|(known, _)| *known == unit)?;
        millis = number.parse::<i64>().ok()?.checked_mul(*size)?.checked_add(millis)?;
        rest = after;
    }
    (!text.is_empty()).then_some(millis)
}

fn invalid(field: &str, message: String) -> Error {
    Error::invalid(field, "PARAMETER_INVALID", format!("invalid parameter {field:?}: {message}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_is_seconds_or_rfc_3339() {
        let time = |text: &str| parse_time("time", text);
        assert_eq!(time("1424044800.5").unwrap(), 1_424_044_800_500);
        assert_eq!(time("-1.25").unwrap(), -1_250);
        assert_eq!(time("1e9").unwrap(), 1_000_000_000_000);
        assert_eq!(time("2015-02-16T00:00:00.123Z").unwrap(), 1_424_044_800_123);
        assert_eq!(time(PROMETHEUS_MIN).unwrap(), TIME_MIN);
        assert_eq!(time("1e300").unwrap(), TIME_MAX);
        assert_eq!(time("yesterday").unwrap_err().field(), Some("time"));
        assert!(time("NaN").is_err() && time("").is_err());
    }

    #[test]
    fn a_duration_is_seconds_or_units() {
        let duration = |text: &str| parse_duration("step", text);
        for (text, millis) in [
            ("15", 15_000),
            ("0.5", 500),
            ("1h30m", 5_400_000),
            ("5m", 300_000),
            ("100ms", 100),
            ("1d2ms", 86_400_002),
        ] {
            assert_eq!(duration(text).unwrap(), millis, "{text}");
        }
        for bad in ["", "m", "1m1h", "1h1h", "1x", "5m ", "99999999999999y", "NaN", "1e300"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_parameter_or_an_error(text in ".{0,30}") {
            drop(parse_time("time", &text));
            drop(parse_duration("step", &text));
        }

        #[test]
        fn any_number_is_a_time(seconds in any::<f64>()) {
            if let Ok(millis) = parse_time("time", &seconds.to_string()) {
                prop_assert!((TIME_MIN..=TIME_MAX).contains(&millis));
            }
        }
    }
}
