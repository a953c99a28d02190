//! The domain of Weir: what a reading, a device, a position, an error is, and the ports behind which engines and other
//! services live.
//!
//! It is deliberately free of I/O: no tokio, tonic, fjall or kube. Every other crate may depend on it; it depends on
//! none of ours. Engines implement [`port::Log`], [`port::Signals`], [`port::Records`] and [`port::TelemetryStore`];
//! services implement the call ports ([`port::Registry`], [`port::TelemetryReader`], [`port::CommandSender`],
//! [`port::CommandQueue`]).
//!
//! Rejected: one typed store port for each service. The ten of them would each be written again for each engine,
//! though all need the same thing: rows in a partition, compare-and-set by version, bounded scans with a cursor. That is
//! [`port::Records`]; services keep their typed view of it in their own `store.rs`.

pub mod cache;
pub mod clock;
pub mod command;
pub mod device;
pub mod error;
pub mod event_clock;
pub mod id;
pub mod json;
pub mod managed;
pub mod name;
pub mod ownership;
pub mod port;
pub mod position;
pub mod principal;
pub mod progress;
pub mod reading;
pub mod selector;
pub mod time;
pub mod value;

pub use clock::{Clock, SystemClock};
pub use error::{Error, ErrorKind, Result};
pub use id::{DeviceId, Partition, TenantId, Uid};
pub use position::{Position, Stream};
pub use reading::{Message, Reading};
pub use time::Timestamp;
pub use value::{Value, ValueType};
