//! Registry: who is who. Tenants, API tokens, device profiles, devices and their credentials behind `weir.registry.v1`,
//! and the call port [`weir_core::port::Registry`] that every other service asks.
//!
//! Not here: what a device sends, who is connected, or how a token travels; the edges and `weir-grpc` ask
//! [`weir_core::port::Registry::authenticate`] and nothing more.
//!
//! Everything of a tenant lies in one record partition, so that a device, its credentials and its use of a profile change
//! together. Only the lookup of a secret by its id lies apart, since a token does not name its tenant; it is written after
//! the listing that shows it, and removed before it, so that a crash between leaves a token that can be seen and revoked,
//! never one that works unseen.
//!
//! Rejected: password hashing (Argon2, bcrypt) for secrets of 256 random bits: it makes each request slow and adds nothing
//! that a keyed hash (HMAC, RFC 2104) does not give; a second table of idempotency keys: the request that made a thing is
//! kept with the thing.

mod authenticate;
mod bootstrap;
mod config;
mod credentials;
mod devices;
mod edit;
mod grpc;
mod lookup;
mod metrics;
mod profiles;
mod secret;
mod service;
mod store;
mod tenants;
mod tokens;
mod validate;

pub use bootstrap::token;
pub use config::Config;
pub use secret::Peppers;
pub use service::Service;

/// Registers every metric of this service, for the inventory.
///
/// # Errors
/// `Internal` where one is registered already.
pub fn register_metrics(registrar: &weir_metrics::Registrar<'_>) -> weir_core::Result<()> {
    metrics::Metrics::register(registrar).map(drop)
}
