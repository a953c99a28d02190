//! The HTTP device API and the gRPC services of the edge over real sockets, with the embedded log and store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // in the helpers too, a panic is the report

mod backpressure;
#[allow(dead_code)] // what only the MQTT tests use
#[path = "../mqtt/client.rs"]
mod client;
mod commands;
mod edge;
mod grpc;
mod http;
#[allow(dead_code)] // what only the MQTT tests use
#[path = "../mqtt/ports.rs"]
mod ports;
mod stream;
