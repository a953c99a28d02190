//! What every gRPC server of Weir shares: who calls, how errors look on the wire, and how the domain is written there.
//!
//! Not here: servers, clients, or any decision of a service. A handler uses this crate for its first move (who and what)
//! and its last (convert); the one in between is a port call.

mod access;
pub mod auth;
pub mod connection;
pub mod convert;
mod expiry;
pub mod identity;
pub mod internal;
pub mod metrics;
pub mod page;
pub mod status;
pub mod tls;

pub use auth::{AuthLayer, principal};
pub use identity::ServiceKey;
pub use internal::is_internal;
pub use metrics::{MetricsLayer, ServerMetrics};
pub use status::{from_status, to_item, to_status};

/// The result of every handler.
pub type Answer<T> = Result<tonic::Response<T>, tonic::Status>;
