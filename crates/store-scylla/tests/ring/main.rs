//! The store on three nodes of Cassandra, each of which holds every row.

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
    support::server(3)
}
