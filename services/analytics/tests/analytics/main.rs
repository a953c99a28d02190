//! The service over real engines: log and store of the embedded kind, gRPC without a network.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // in the helpers too, a panic is the report

mod actions;
mod alarms;
mod crash;
mod ports;
mod replicas;
mod rules;
mod world;
