//! The port suites: one for each engine port, run against every engine.

pub mod records;
pub mod telemetry;
