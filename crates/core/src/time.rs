//! Instants: UTC, signed 64-bit microseconds since the Unix epoch.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// An instant, in microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest instant.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest instant.
    pub const MAX: Self = Self(i64::MAX);

    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From milliseconds since the Unix epoch, the number that the wire takes; `None` where it does not fit.
    pub fn from_millis(millis: i64) -> Option<Self> {
        millis.checked_mul(1_000).map(Self)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// This instant and `duration` more, at most [`Timestamp::MAX`].
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    /// This instant less `duration`, at least [`Timestamp::MIN`].
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }

    /// The time since `earlier`; zero where `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Parses RFC 3339 with an offset (`2015-02-04T17:51:00Z`, `2015-02-04T18:51:00.5+01:00`).
    ///
    /// # Errors
    /// `TIMESTAMP_INVALID` where the text is not RFC 3339 or has no offset.
    pub fn parse_rfc3339(text: &str) -> Result<Self> {
        let instant: jiff::Timestamp = text.parse().map_err(|source| {
            Error::invalid(
                "ts",
                "TIMESTAMP_INVALID",
                format!("{text:?} is not an RFC 3339 time with an offset, such as 2015-02-04T17:51:00Z"),
            )
            .with_source(source)
        })?;
        Ok(Self(instant.as_microsecond()))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC; fractions of a second as far as needed, up to microseconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(instant) => write!(f, "{instant}"),
            Err(_) => write!(f, "{}us", self.0), // beyond the years that RFC 3339 can write
        }
    }
}

impl FromStr for Timestamp {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse_rfc3339(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_with_as_many_digits_as_it_needs() {
        let time = |micros| Timestamp::from_micros(micros).to_string();
        assert_eq!(time(1_424_044_800_000_000), "2015-02-16T00:00:00Z");
        assert_eq!(time(1_424_044_800_500_000), "2015-02-16T00:00:00.5Z");
        assert_eq!(time(1_424_044_800_000_001), "2015-02-16T00:00:00.000001Z");
    }

    #[test]
    fn an_offset_is_honoured_and_its_absence_refused() {
        assert_eq!(
            Timestamp::parse_rfc3339("2015-02-16T01:00:00+01:00").unwrap().as_micros(),
            1_424_044_800_000_000
        );
        assert!(Timestamp::parse_rfc3339("2015-02-16T01:00:00").is_err());
    }
}
