//! Instants as people type them.

use std::time::{SystemTime, UNIX_EPOCH};

use weir_core::{Result, Timestamp};

use crate::exit::usage;

/// Parses an instant: RFC 3339 with an offset, a naive `YYYY-MM-DD[ HH:MM[:SS]]` taken as UTC, epoch seconds or
/// milliseconds, `now`, or a span before now such as `1h` or `-1h`.
pub(crate) fn parse(flag: &str, text: &str) -> Result<prost_types::Timestamp> {
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
        // Seconds until the year 5138, else milliseconds: both are read as what they can only be.
        let micros = if number.abs() < 100_000_000_000 {
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
}
