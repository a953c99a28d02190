//! Names and labels.

use kube::{Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use weir_crd::WeirCluster;

/// Whose an object is.
pub const LABEL_INSTANCE: &str = "app.kubernetes.io/instance";
/// Which part of it an object is.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// The label selector of everything that the operator makes.
pub const MANAGED: &str = "app.kubernetes.io/managed-by=weir-operator";
/// The annotation of a pod's template with the release of its pods.
pub const RELEASE: &str = "weir.dev/release";

/// The services where each is pods of its own.
pub(crate) const SHARED: [&str; 5] = ["registry", "storage", "analytics", "commands", "ingest"];
/// Those whose load says how many of them are needed.
pub const SCALED: [&str; 3] = ["storage", "analytics", "ingest"];
/// The one component of embedded engines.
pub(super) const ALL: &str = "all";
/// The component of the Job.
pub(super) const MIGRATE: &str = "migrate";

/// The components of a cluster.
pub(super) fn components(cluster: &WeirCluster) -> &'static [&'static str] {
    if cluster.spec.engines.shared.is_some() { &SHARED } else { &[ALL] }
}

/// The component that devices and people talk to.
pub(super) fn edge(cluster: &WeirCluster) -> &'static str {
    if cluster.spec.engines.shared.is_some() { "ingest" } else { ALL }
}

/// Names of a cluster's objects.
pub(super) struct Names {
    name: String,
    /// None where only `kubectl` will say.
    namespace: Option<String>,
}

impl Names {
    pub(super) fn new(cluster: &WeirCluster) -> Self {
        Self { name: cluster.name_any(), namespace: cluster.namespace() }
    }

    /// `NAME`.
    pub(super) fn cluster(&self) -> &str {
        &self.name
    }

    pub(super) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    /// `NAME-what`.
    pub(super) fn of(&self, what: &str) -> String {
        format!("{}-{what}", self.name)
    }

    /// The ConfigMap of a configuration with that hash: each configuration has one of its own, so that a rollout can go back.
    pub(super) fn config(&self, hash: &str) -> String {
        self.of(&format!("config-{hash}"))
    }

    /// What selects the pods of a component.
    pub(super) fn selector(&self, component: &str) -> Value {
        json!({
            "app.kubernetes.io/name": "weir",
            LABEL_INSTANCE: self.name,
            "app.kubernetes.io/component": component,
        })
    }

    /// The labels of an object.
    pub(super) fn labels(&self, component: &str) -> Value {
        let mut labels = self.selector(component);
        set(&mut labels, "app.kubernetes.io/managed-by", json!(crate::MANAGER));
        set(&mut labels, "app.kubernetes.io/part-of", json!("weir"));
        labels
    }

    /// The metadata of an object.
    pub(super) fn metadata(&self, name: &str, component: &str) -> Value {
        let mut metadata = json!({ "name": name, "labels": self.labels(component) });
        if let Some(namespace) = &self.namespace {
            set(&mut metadata, "namespace", json!(namespace));
        }
        metadata
    }
}

/// The reference to the cluster by which Kubernetes removes what is its; none for a cluster that is in no API server.
pub fn owner(cluster: &WeirCluster) -> Option<Value> {
    let uid = cluster.metadata.uid.as_deref()?;
    Some(json!({
        "apiVersion": WeirCluster::api_version(&()),
        "kind": WeirCluster::kind(&()),
        "name": cluster.name_any(),
        "uid": uid,
        "controller": true,
        "blockOwnerDeletion": false,
    }))
}

/// Sets a field of an object.
pub(super) fn set(object: &mut Value, key: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(key.to_owned(), value);
    }
}

/// The first eight hexadecimal digits of SHA-256: enough to tell the few of one cluster apart.
pub(super) fn hash(bytes: impl AsRef<[u8]>) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(bytes).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// By what a pod's template names its release.
pub(super) fn release_id(release: &weir_crd::Release) -> String {
    let logins = release.logins.as_deref().map(|logins| format!(" {logins}")).unwrap_or_default();
    hash(format!("{} {}{logins}", release.image, release.config))
}
