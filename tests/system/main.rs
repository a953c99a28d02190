//! System tests: the real binary, started as a stranger would start it, and talked to by real clients.

mod bad_input;
mod commands;
mod demo;
mod durability;
mod rules;
mod start;
mod telemetry;
mod tenants;
