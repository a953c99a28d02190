//! The kinds that the operator makes.

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::Value;

/// Group, version, kind and plural.
const KINDS: [(&str, &str, &str, &str); 10] = [
    ("", "v1", "ServiceAccount", "serviceaccounts"),
    ("", "v1", "ConfigMap", "configmaps"),
    ("", "v1", "Service", "services"),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    ("batch", "v1", "Job", "jobs"),
    ("apps", "v1", "StatefulSet", "statefulsets"),
    ("apps", "v1", "Deployment", "deployments"),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors"),
    ("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules"),
];

/// Every kind, as the API server is asked for it.
pub(crate) fn all() -> impl Iterator<Item = ApiResource> {
    KINDS.iter().map(|(group, version, kind, plural)| {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    })
}

/// The kind of an object; none that the operator does not make.
pub(crate) fn of(object: &Value) -> Option<ApiResource> {
    let kind = object.get("kind").and_then(Value::as_str)?;
    all().find(|known| known.kind == kind)
}

/// The objects of a kind in a namespace.
pub(crate) fn api(client: &Client, namespace: &str, kind: &ApiResource) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, kind)
}
