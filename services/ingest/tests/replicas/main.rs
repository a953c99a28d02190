//! Several replicas of the edge over one log, one store and one commands service, each with real connections on its own
//! ports: what a device sees that moves from one to the other, and what is left where one dies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // in the helpers too, a panic is the report

#[allow(dead_code)] // what only the tests of one replica use
#[path = "../mqtt/client.rs"]
mod client;
mod commands;
mod edge;
#[allow(dead_code)] // what only the tests of one replica use
#[path = "../mqtt/ports.rs"]
mod ports;
mod sessions;
mod start;
