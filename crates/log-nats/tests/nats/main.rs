//! The engine on real servers: the port suites on one node and on three, and what only a bus can do to a log.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)] // in the helpers too, a panic is the report

mod conformance;
mod fall_back;
mod full;
mod leases;
mod reading;
mod reconcile;
mod replicas;
mod signals;
mod world;
