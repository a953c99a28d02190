//! The store on one node of Cassandra.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests fail as tests do"
)]

#[path = "../support/conformance.rs"]
mod conformance;
#[path = "../support/mod.rs"]
mod support;

fn server() -> Option<&'static support::Server> {
    support::server(1)
}
