//! The port suites: one for each engine port, run against every engine; and the call ports over the network, for theirs.

pub mod board;
pub mod calls;
pub mod log;
pub mod progress;
pub mod records;
pub mod signals;
pub mod telemetry;
