//! Spans of time, as people write them: `500ms`, `10s`, `5m`, `1h`, `7d`, or several in a row (`1h30m`).
//!
//! Use `#[serde(with = "weir_config::duration")]` and `#[schemars(with = "String")]` on a `std::time::Duration`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error as _};
use weir_core::{Error, Result};

const UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("ms", 1_000),
    ("us", 1),
    ("m", 60_000_000),
    ("s", 1_000_000),
];

/// Parses a span.
///
/// # Errors
/// `DURATION_INVALID` where the text has no unit or a wrong one.
pub fn parse(text: &str) -> Result<Duration> {
    let bad = || {
        Error::invalid(
            "duration",
            "DURATION_INVALID",
            format!("{text:?} is not a duration such as 500ms, 10s, 5m, 1h or 7d"),
        )
    };
    let mut rest = text.trim();
    let mut micros = 0_u64;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let (unit, scale) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit)).ok_or_else(bad)?;
        micros = number.checked_mul(*scale).and_then(|part| micros.checked_add(part)).ok_or_else(bad)?;
        rest = tail.get(unit.len()..).unwrap_or_default();
    }
    Ok(Duration::from_micros(micros))
}

/// Writes a span so that [`parse`] reads it back, to the microsecond.
pub fn format(duration: Duration) -> String {
    let mut micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, scale) in [
        ("d", 86_400_000_000_u64),
        ("h", 3_600_000_000),
        ("m", 60_000_000),
        ("s", 1_000_000),
        ("ms", 1_000),
        ("us", 1),
    ] {
        if micros >= scale {
            text.push_str(&format!("{}{unit}", micros / scale));
            micros %= scale;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// For serde.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// For serde.
///
/// # Errors
/// `DURATION_INVALID` as text.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_and_written_with_its_units() {
        for (text, millis) in
            [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("1h30m", 5_400_000), ("7d", 604_800_000)]
        {
            let span = parse(text).unwrap();
            assert_eq!(span, Duration::from_millis(millis), "{text}");
            assert_eq!(format(span), text);
        }
        for bad in ["", "10", "s", "-1s", "1 fortnight", "99999999999999d"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(format(Duration::ZERO), "0s");
    }
}
