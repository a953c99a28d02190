//! The storage service over its ports: frames go into a real log, answers come out of gRPC, on the embedded engines.

// A panic is a test's report, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod crash;
mod exactly_once;
mod failures;
mod harness;
mod limits;
mod replicas;
mod rules;
mod tail;
mod widths;
