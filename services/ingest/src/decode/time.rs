//! Event times: how they are written, and which are taken.

use weir_core::{
    Error, Result, Timestamp,
    device::{OnBadTime, Profile},
};

use super::scalar::{Raw, shown};

/// An event time as it was claimed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Claimed {
    At(Timestamp),
    /// Beyond what 64 bits of microseconds hold.
    Beyond,
}

/// Epoch milliseconds, whole or with a fraction (to the microsecond), or RFC 3339 with an offset; none for `null`.
///
/// # Errors
/// In words, where it is neither.
#[allow(clippy::cast_possible_truncation)] // checked to be within the range
pub(super) fn parse(raw: &Raw<'_>) -> Result<Option<Claimed>, String> {
    match raw {
        Raw::Null => Ok(None),
        Raw::Int(millis) => {
            let ts = i64::try_from(*millis).ok().and_then(Timestamp::from_millis);
            Ok(Some(ts.map_or(Claimed::Beyond, Claimed::At)))
        }
        Raw::Float(millis) => {
            let micros = (millis * 1_000.0).round();
            Ok(Some(if micros.abs() < 9.2e18 {
                Claimed::At(Timestamp::from_micros(micros as i64))
            } else {
                Claimed::Beyond
            }))
        }
        Raw::Text(text) if text.len() <= 64 => {
            Timestamp::parse_rfc3339(text).map(|ts| Some(Claimed::At(ts))).map_err(|e| e.message().to_owned())
        }
        Raw::Text(text) => Err(format!("a text of {} bytes is not an RFC 3339 time", text.len())),
        Raw::Bool(_) | Raw::Bytes(_) => {
            Err("ts must be epoch milliseconds or RFC 3339 with an offset".to_owned())
        }
    }
}

/// What a reading is stamped with (`None`: arrival), and the claim that was set aside.
pub(super) type Admitted = (Option<Timestamp>, Option<Timestamp>);

/// Takes, refuses or sets aside an event time by the profile's policy. Never clamps: that would make readings overwrite
/// each other.
///
/// # Errors
/// `TIMESTAMP_OUT_OF_RANGE`.
pub(super) fn admit(profile: &Profile, now: Timestamp, claimed: Claimed, raw: &Raw<'_>) -> Result<Admitted> {
    let earliest = profile.past.map_or(Profile::EARLIEST, |past| now.saturating_sub(past));
    let latest = now.saturating_add(profile.future);
    if let Claimed::At(ts) = claimed
        && (earliest..=latest).contains(&ts)
    {
        return Ok((Some(ts), None));
    }
    if profile.on_bad_time == OnBadTime::Arrival {
        let kept = match claimed {
            Claimed::At(ts) => ts,
            Claimed::Beyond => Timestamp::MAX,
        };
        return Ok((None, Some(kept)));
    }
    let late = matches!(claimed, Claimed::At(ts) if ts < earliest);
    let limit = if late { earliest } else { latest };
    let text = format!("{}; it must be from {earliest} to {latest}", told(claimed, raw));
    Err(Error::invalid("ts", "TIMESTAMP_OUT_OF_RANGE", text).with_limit(limit))
}

fn told(claimed: Claimed, raw: &Raw<'_>) -> String {
    let day = match claimed {
        Claimed::At(ts) => {
            let text = ts.to_string();
            // Beyond the years that RFC 3339 can write there is no day to name.
            text.split_once('T').map_or("beyond the year 9999".to_owned(), |(day, _)| day.to_owned())
        }
        Claimed::Beyond => "beyond the year 9999".to_owned(),
    };
    match raw {
        Raw::Int(millis) => format!("{millis} is {day}; ts is in milliseconds"),
        Raw::Float(millis) => format!("{} is {day}; ts is in milliseconds", shown(*millis)),
        Raw::Text(text) => format!("ts {text:?} is out of range"),
        Raw::Null | Raw::Bool(_) | Raw::Bytes(_) => format!("ts is {day}"),
    }
}
