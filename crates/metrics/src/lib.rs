//! What Weir measures of itself: how a component registers it, and what is measured alike everywhere.
//!
//! A component makes a struct of handles in its `metrics.rs`, from a [`Registrar`] over the registry that it is given: no
//! global, so that two of them in one process (tests) do not meet. Handles are resolved once; nothing looks a label up on
//! the path of a reading. What stands in some structure anyway is not counted again but read at each scrape ([`Sampled`]).
//! The ports are measured where they are bound ([`port`]), for every engine alike.
//!
//! The inventory in `docs/metrics.md` is what registrars were told ([`Registrar::descriptions`]), so it cannot be forgotten.
//!
//! Labels are bounded: partitions, methods, reasons, states, and [`Tenants`]. No device id, topic or path ever is one.
//!
//! Not here: who serves the registry (`weir-runtime`), and the process's own cost (`weir-observability`). Rejected: the
//! registry's own list, which hides a family until its first label; macros, which hide where a name comes from.

pub mod buckets;
mod lag;
pub mod port;
mod register;
mod sampled;
mod tenants;

pub use lag::Lag;
pub use register::{Description, Kind, Registrar};
pub use sampled::Sampled;
pub use tenants::Tenants;
