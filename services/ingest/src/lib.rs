//! Ingest: the device edge over MQTT, HTTP and gRPC.
//!
//! What a device sends is decoded and checked here, put into frames with what others sent, and acknowledged only when
//! the log has it. What is for a device leaves from here: commands, pulled from the commands service.
//!
//! Not here: where telemetry is stored (storage), who a device is (registry), what a command's state is (commands).
//!
//! Rejected: one log record a message (a log that syncs once a record does about 1.3 k/s of them, frames of 100 readings
//! 53–101 k readings/s), and a timer that closes frames (it asks a slow log for more syncs than it can do; the log's own
//! latency is the batching). Sources: MQTT 3.1.1 and 5.0 (OASIS), RFC 9457 (problem documents), RFC 8949 (CBOR), deficit
//! round robin (Shreedhar and Varghese, SIGCOMM 1995).

mod access;
mod answer;
#[doc(hidden)]
pub mod bench;
mod config;
mod dead_letters;
mod decode;
mod doorbell;
mod edge;
mod explain;
mod grpc;
mod http;
mod intake;
mod metrics;
mod mqtt;
mod publish;
mod service;
mod sessions;
#[cfg(test)]
mod testing;
mod unauthenticated;

pub use config::Config;
pub use service::Service;

/// Registers every metric of this service, for the inventory.
///
/// # Errors
/// `Internal` where one is registered already.
pub fn register_metrics(registrar: &weir_metrics::Registrar<'_>) -> weir_core::Result<()> {
    metrics::Metrics::register(registrar, "power-loss").map(drop)
}
