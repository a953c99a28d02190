//! The engine ports, measured: each wraps an engine and is one. So every engine is measured alike, where it is bound, and
//! no service knows of it.

mod log;
mod records;
mod store;
mod telemetry;

pub use log::{LogMetrics, MeasuredLog};
pub use records::MeasuredRecords;
pub use store::StoreMetrics;
pub use telemetry::MeasuredTelemetry;
