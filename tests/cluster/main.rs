//! The chart: what it renders, and what it refuses. `helm` from PATH does it.

// A panic is a test's report, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod chart;
mod tools;
