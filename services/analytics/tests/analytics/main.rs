//! The service over real engines: log and store of the embedded kind, gRPC without a network.

mod actions;
mod alarms;
mod crash;
mod ports;
mod rules;
mod world;
