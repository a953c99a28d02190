//! Instants as people type them.

use std::time::{SystemTime, UNIX_EPOCH};

use weir_core::{Result, Timestamp};

use crate::exit::usage;

/// Epoch seconds below this (March 1973) are refused, 0 aside: who types 2024 or 20240101 means a date.
const EPOCH_MIN: u64 = 100_000_000;

/// From here on (the year 5138 in seconds, March 1973 in milliseconds) an epoch number counts milliseconds.
const EPOCH_MILLIS_MIN: u64 = 100_000_000_000;

/// Parses an instant: RFC 3339 with an offset, a naive `YYYY-MM-DD[ HH:MM[:SS]]` taken as UTC, epoch seconds or
/// milliseconds, `now`, or a span before now such as `1h` or `-1h`.
pub(crate) fn parse(flag: &str, text: &str) -> Result<prost_types::Timestamp> {
    if let Some(number) = text.trim().parse::<i64>().ok().map(i64::unsigned_abs)
        && number != 0
        && number < EPOCH_MIN
    {
        let date =
            if (1000..=9999).contains(&number) { format!("{number}-01-01") } else { "2024-01-01".to_owned() };
        return Err(usage(format!(
            "{flag} {text:?} is ambiguous: write a date such as {date:?}; epoch seconds are 0, or at least {EPOCH_MIN}"
        )));
    }
    let instant = instant(text).ok_or_else(|| {
        usage(format!(
            "{flag} {text:?} must be a time such as 2015-02-04T17:51:00Z, 2015-02-04 17:51 (UTC), 1423072260000, or 1h for an \
             hour ago"
        ))
    })?;
    Ok(weir_grpc::convert::from_timestamp(instant))
}

/// As [`parse`], where given.
pub(crate) fn parse_opt(flag: &str, text: Option<&String>) -> Result<Option<prost_types::Timestamp>> {
    text.map(|text| parse(flag, text)).transpose()
}

fn instant(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let now = Timestamp::from_micros(i64::try_from(now.as_micros()).ok()?);
    if text == "now" {
        return Some(now);
    }
    if let Ok(instant) = Timestamp::parse_rfc3339(text) {
        return Some(instant);
    }
    if let Ok(number) = text.parse::<i64>() {
        let micros = if number.unsigned_abs() < EPOCH_MILLIS_MIN {
            number.checked_mul(1_000_000)
        } else {
            number.checked_mul(1_000)
        };
        return micros.map(Timestamp::from_micros);
    }
    if let Ok(span) = weir_config::duration::parse(text.trim_start_matches('-')) {
        return Some(now.saturating_sub(span));
    }
    let padded = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        16 => format!("{}:00Z", text.replacen(' ', "T", 1)),
        _ => format!("{}Z", text.replacen(' ', "T", 1)),
    };
    Timestamp::parse_rfc3339(&padded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_can_be_typed_in_every_usual_form() {
        let expected = Timestamp::parse_rfc3339("2015-02-04T17:51:00Z").unwrap();
        for text in
            ["2015-02-04T17:51:00Z", "2015-02-04 17:51:00", "2015-02-04 17:51", "1423072260", "1423072260000"]
        {
            assert_eq!(instant(text), Some(expected), "{text}");
        }
        assert!(instant("2015-02-04").is_some() && instant("1h").is_some() && instant("now").is_some());
        assert_eq!(instant("yesterday"), None);
    }

    #[test]
    fn a_number_that_could_be_a_year_or_a_date_is_refused_with_a_hint() {
        let error = parse("--from", "2024").unwrap_err();
        assert_eq!((error.reason(), error.message().contains("2024-01-01")), ("USAGE", true), "{error}");
        for text in ["1", "-1", "20240101", "99999999", "-2024", " 2024 "] {
            assert!(parse("--from", text).is_err(), "{text}");
        }
    }

    #[test]
    fn epoch_numbers_are_seconds_or_milliseconds_by_their_size() {
        let seconds = |text| parse("--from", text).unwrap().seconds;
        assert_eq!(seconds("0"), 0);
        assert_eq!(seconds("100000000"), 100_000_000);
        assert_eq!(seconds("99999999999"), 99_999_999_999);
        assert_eq!(seconds("100000000000"), 100_000_000);
        assert_eq!(seconds("-100000000"), -100_000_000);
        assert!(parse("--from", "9223372036854775807").is_err(), "past the range of instants");
    }

    #[test]
    fn what_is_no_time_is_refused_and_never_panics() {
        for text in
            ["", " ", "-", "2024-13-01", "2024-02-30", "2024-01-01T25:00:00Z", "1x", "h", "äöüäö", "2024-01"]
        {
            let error = parse("--to", text).unwrap_err();
            assert!(error.message().starts_with("--to"), "{text}: {error}");
        }
    }

    #[test]
    fn a_span_is_before_now_with_or_without_a_sign() {
        let now = parse("--from", "now").unwrap().seconds;
        for text in ["1h30m", "-1h30m"] {
            let then = parse("--from", text).unwrap().seconds;
            assert!((5_400 - 60..=5_400).contains(&(now - then)), "{text}: {} s", now - then);
        }
    }
}
