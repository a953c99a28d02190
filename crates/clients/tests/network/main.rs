//! Peers and the gateway over real connections on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is the report

mod gateway;
mod peer;
mod support;
