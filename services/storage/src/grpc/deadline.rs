//! The caller's deadline, for answers that go on after their headers.

use std::{future::Future, time::Duration};

use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use weir_core::{Error, ErrorKind, Result};

/// When the caller stops to wait; none if it did not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    /// From `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Requests").
    pub(super) fn of(metadata: &MetadataMap) -> Self {
        let timeout = metadata.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(parse);
        Self(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    pub(super) fn at(self) -> Option<Instant> {
        self.0
    }

    /// # Errors
    /// Those of `work`; `DeadlineExceeded` where it is not done in time.
    pub(super) async fn limit<T>(self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(at) = self.0 else { return work.await };
        tokio::time::timeout_at(at, work).await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::DeadlineExceeded,
                "DEADLINE_EXCEEDED",
                "the call's deadline has passed",
            ))
        })
    }
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_of_grpc_is_read() {
        for (text, expected) in [
            ("2H", Some(Duration::from_secs(7_200))),
            ("3M", Some(Duration::from_secs(180))),
            ("4S", Some(Duration::from_secs(4))),
            ("500m", Some(Duration::from_millis(500))),
            ("6u", Some(Duration::from_micros(6))),
            ("7n", Some(Duration::from_nanos(7))),
            ("", None),
            ("S", None),
            ("-1S", None),
            ("123456789S", None),
            ("1é", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
