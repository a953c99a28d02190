//! The engine of the store ports on CQL: ScyllaDB and Apache Cassandra.

mod backoff;
mod client;
mod config;
mod durability;
mod failure;
mod known;
pub mod migrate;
mod records;
mod schema;
mod store;
mod telemetry;
mod tls;

pub use config::{Config, TlsConfig};
pub use store::ScyllaStore;
pub use weir_config::Durability;
