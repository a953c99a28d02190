//! The data plane on Kubernetes: what a [`WeirCluster`](weir_crd::WeirCluster) says becomes StatefulSets, Deployments,
//! Services, policies and Jobs.
//!
//! [`desired`] is pure: from the resource and what was observed it says everything that shall be there, and how far a
//! rollout is. The rest of the crate observes, applies (server-side, one field manager) and tells. There is no other state
//! than what stands in the API server, so that an operator may end after any single write and the next one carries on.
//!
//! Considered and left out: a finalizer (nothing of a cluster lives outside of Kubernetes' own garbage collection, but for
//! the volume and the Secrets, which must outlive it), webhooks (the schema's CEL refuses what can be refused early), typed
//! objects (an object is the JSON that a person would write; the API server checks it strictly).
//!
//! What only the binary knows, such as making certificates, comes in by [`Binary`].

mod apply;
mod backoff;
mod binary;
pub mod desired;
mod error;
mod kinds;
mod leader;
mod load;
mod metrics;
mod objects;
mod observe;
mod render;
pub mod scaling;
mod service;
mod wait;

pub use binary::{Binary, Certificates};
pub use render::{Rendered, crds, render};
pub use service::{Options, run};
pub use wait::wait;

/// Registers every metric of the operator, for the inventory.
///
/// # Errors
/// `Internal` where one is registered already.
pub fn register_metrics(registrar: &weir_metrics::Registrar<'_>) -> weir_core::Result<()> {
    metrics::Metrics::register(registrar).map(drop)
}

/// The field manager of everything that the operator writes.
pub const MANAGER: &str = "weir-operator";
