//! The port suites: one for each engine port, run against every engine.

pub mod board;
pub mod log;
pub mod progress;
pub mod records;
pub mod signals;
pub mod telemetry;
