//! StatefulSet, Deployments, Job, and what goes with them.

use serde_json::{Value, json};
use weir_crd::{Release, Scaling, ScalingMode, WeirCluster};

use super::{
    Observed,
    names::{ALL, MIGRATE, Names, hash, set},
    pod,
};

/// The account of all pods; it may do nothing, and no pod gets its token.
pub(super) fn service_account(_: &WeirCluster, names: &Names) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": names.metadata(names.cluster(), "account"),
        "automountServiceAccountToken": false,
    })
}

/// The pods of a component, and how many of them may be evicted.
pub(super) fn workload(
    cluster: &WeirCluster,
    names: &Names,
    component: &str,
    release: &Release,
    observed: &Observed,
) -> Vec<Value> {
    let service = pod::service_of(cluster, component);
    let name = names.of(component);
    let mut spec = json!({
        "selector": { "matchLabels": names.selector(component) },
        "template": pod::template(cluster, names, component, release),
        "revisionHistoryLimit": 3,
    });
    if let Some(replicas) = replicas(&service.scaling, service.replicas, component, observed) {
        set(&mut spec, "replicas", json!(replicas));
    }
    let kind = if component == ALL { "StatefulSet" } else { "Deployment" };
    if component == ALL {
        set(&mut spec, "serviceName", json!(name));
        // OrderedReady would wait for ever for a pod that never becomes ready, even to take it back.
        set(&mut spec, "podManagementPolicy", json!("Parallel"));
        set(&mut spec, "volumeClaimTemplates", json!([claim(cluster, names)]));
    } else {
        let strategy =
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } });
        set(&mut spec, "strategy", strategy);
    }
    let mut objects = vec![json!({
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": names.metadata(&name, component),
        "spec": spec,
    })];
    if service.pod_disruption_budget {
        objects.push(json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": names.metadata(&name, component),
            "spec": {
                "maxUnavailable": 1,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": { "matchLabels": names.selector(component) },
            },
        }));
    }
    objects
}

/// How many pods a component has; none where somebody else says so.
fn replicas(scaling: &Scaling, fixed: Option<i32>, component: &str, observed: &Observed) -> Option<i32> {
    match scaling.mode {
        ScalingMode::Fixed => Some(fixed.unwrap_or(1)),
        ScalingMode::External => None,
        ScalingMode::Auto => {
            // Before anything is decided it stays as it is: a new operator knows nothing yet.
            let now = observed.workloads.get(component).map(|workload| workload.replicas);
            let decided = observed.scaled.get(component);
            let decided = decided.filter(|decision| now.is_none_or(|now| now == decision.wanted));
            let decided = decided.map(|decision| decision.replicas);
            Some(decided.or(now).unwrap_or(scaling.min).clamp(scaling.min, scaling.max.max(scaling.min)))
        }
    }
}

/// The volume of embedded engines. It has no owner: data outlives the cluster.
fn claim(cluster: &WeirCluster, names: &Names) -> Value {
    let storage = cluster.spec.engines.embedded.clone().unwrap_or_default().storage;
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": storage.size } },
    });
    if let Some(class) = storage.storage_class_name {
        set(&mut spec, "storageClassName", json!(class));
    }
    json!({ "metadata": { "name": "data", "labels": names.selector(ALL) }, "spec": spec })
}

/// The Job that brings the schema to what a release reads and writes, and makes the first tenant and token. Its name tells
/// its template, which a Job cannot change.
pub(super) fn migration(cluster: &WeirCluster, names: &Names, release: &Release) -> Value {
    let template = pod::template(cluster, names, MIGRATE, release);
    let name = names.of(&format!("migrate-{}", hash(template.to_string())));
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": names.metadata(&name, MIGRATE),
        "spec": {
            // As often as it takes: the rollout has a time-out of its own, and bus or store may come later.
            "backoffLimit": 1_000_000,
            "template": template,
        },
    })
}

/// What tells Prometheus' operator when somebody must look: the very files of `deploy/prometheus`.
pub(super) fn rules(cluster: &WeirCluster, names: &Names) -> Vec<Value> {
    const FILES: [(&str, &str); 2] = [
        ("recording", include_str!("../../../../deploy/prometheus/weir-recording.rules.yaml")),
        ("alerts", include_str!("../../../../deploy/prometheus/weir-alerts.rules.yaml")),
    ];
    let files = FILES.iter().filter(|_| cluster.spec.monitoring.prometheus_rule);
    let object = |(name, text): &(&str, &str)| {
        // They parse: a test of this crate reads them.
        let spec: Value = serde_yaml_ng::from_str(text).unwrap_or_default();
        json!({
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": names.metadata(&names.of(name), "monitor"),
            "spec": spec,
        })
    };
    files.map(object).collect()
}

/// What tells Prometheus' operator where the metrics are.
pub(super) fn monitor(cluster: &WeirCluster, names: &Names) -> Option<Value> {
    cluster.spec.monitoring.service_monitor.then(|| {
        json!({
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "ServiceMonitor",
            "metadata": names.metadata(names.cluster(), "monitor"),
            "spec": {
                "selector": { "matchLabels": { "app.kubernetes.io/name": "weir", super::LABEL_INSTANCE: names.cluster() } },
                "endpoints": [{ "port": "admin" }],
            },
        })
    })
}
