//! The custom resources of Weir on Kubernetes, group `weir.dev`, version `v1alpha1`: types and schemas, nothing else.
//!
//! The definitions in `charts/weir/crds` are written from these types by `cargo xtask crdgen`. What the schema can say
//! (bounds, choices, CEL) the API server refuses; what needs more is told in `status.conditions`, which follow kstatus
//! (<https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md>).
//!
//! Unknown keys: a structural schema cannot forbid them, and the API server drops them unless the client asks for strict
//! validation. [`schema::unknown_keys`] finds them where there is no API server.

mod cluster;
pub mod schema;
mod status;

pub use cluster::*;
pub use status::*;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

/// The group of all kinds.
pub const GROUP: &str = "weir.dev";

/// Every definition, as it is installed.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![WeirCluster::crd()]
}
