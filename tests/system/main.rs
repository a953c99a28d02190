//! System tests: the real binary, started as a stranger would start it, and talked to by real clients.

// A panic is a test's report, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod bad_input;
mod commands;
mod demo;
mod durability;
mod metrics;
mod rules;
mod start;
mod telemetry;
mod tenants;
