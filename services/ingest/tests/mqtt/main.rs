//! The MQTT edge over real sockets: a client that speaks the protocol, the embedded log and store, and a registry and a
//! command queue that live in the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // in the helpers too, a panic is the report

mod client;
mod commands;
mod connect;
mod edge;
#[allow(dead_code)] // what only the tests of HTTP use
mod ports;
mod publish;
mod subscribe;
mod unauthenticated;
