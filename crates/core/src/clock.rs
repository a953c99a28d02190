//! The wall clock as a port, so that a test can hold it still.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::Timestamp;

/// Tells the time of day. Only the edge (arrival), time-outs and logs read it; nothing behind the log does.
pub trait Clock: Send + Sync {
    /// Now, in UTC.
    fn now(&self) -> Timestamp;
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}
