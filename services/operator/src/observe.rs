//! What is there of a cluster.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    batch::v1::Job,
    core::v1::{ContainerStatus, Pod, PodTemplateSpec, Secret},
};
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use weir_core::Result;
use weir_crd::WeirCluster;

use crate::{
    desired::{self, COMPONENT, LABEL_INSTANCE, MANAGED, Observed, RELEASE, Workload},
    error::of_kube,
};

/// As much of the kubelet's words as a status line can hold.
const TROUBLE_CHARS: usize = 300;

/// Observes a cluster.
///
/// # Errors
/// Those of the API server; a retry can help.
pub(crate) async fn observe(client: &Client, cluster: &WeirCluster) -> Result<Observed> {
    let namespace = cluster.namespace().unwrap_or_default();
    let instance = format!("{LABEL_INSTANCE}={}", cluster.name_any());
    let ours = ListParams::default().labels(&format!("{instance},{MANAGED}"));
    let api: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    let deployments = api.list(&ours).await.map_err(|error| of_kube("deployments", error))?;
    let api: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
    let sets = api.list(&ours).await.map_err(|error| of_kube("statefulsets", error))?;
    let api: Api<Job> = Api::namespaced(client.clone(), &namespace);
    let jobs = api.list(&ours).await.map_err(|error| of_kube("jobs", error))?;
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let pods = api.list(&ours).await.map_err(|error| of_kube("pods", error))?;

    let mut troubles: BTreeMap<String, String> = BTreeMap::new();
    for pod in &pods.items {
        if let (Some(component), Some(trouble)) = (pod.labels().get(COMPONENT), trouble(pod)) {
            troubles.entry(component.clone()).or_insert(trouble);
        }
    }
    let mut observed = Observed { job_trouble: troubles.remove("migrate"), ..Observed::default() };
    let found = deployments.items.iter().map(deployment).chain(sets.items.iter().map(stateful_set));
    for (component, mut workload) in found.flatten() {
        workload.trouble = troubles.remove(&component).filter(|_| !workload.rolled_out);
        observed.workloads.insert(component, workload);
    }
    for job in &jobs.items {
        let succeeded = job.status.as_ref().and_then(|status| status.succeeded).unwrap_or(0) > 0;
        observed.jobs.insert(job.name_any(), succeeded);
    }
    let api: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let mut contents = BTreeMap::new();
    for kept in desired::secrets(cluster) {
        let found = api.get_opt(&kept.name).await.map_err(|error| of_kube(&kept.name, error))?;
        if let Some(secret) = found {
            let content = secret.data.unwrap_or_default();
            observed.secrets.insert(kept.name.clone(), content.keys().cloned().collect());
            contents.insert(kept.name, content);
        }
    }
    observed.logins = desired::logins(cluster, &contents);
    Ok(observed)
}

fn release(template: &PodTemplateSpec) -> String {
    let annotations = template.metadata.as_ref().and_then(|metadata| metadata.annotations.as_ref());
    annotations.and_then(|known| known.get(RELEASE)).cloned().unwrap_or_default()
}

fn deployment(deployment: &Deployment) -> Option<(String, Workload)> {
    let component = deployment.labels().get(COMPONENT)?.clone();
    let spec = deployment.spec.as_ref()?;
    let status = deployment.status.clone().unwrap_or_default();
    let replicas = spec.replicas.unwrap_or(1);
    let rolled_out = status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas.unwrap_or(0) == replicas
        && status.available_replicas.unwrap_or(0) == replicas
        && status.replicas.unwrap_or(0) == replicas;
    let ready = status.ready_replicas.unwrap_or(0);
    Some((
        component,
        Workload { release: release(&spec.template), replicas, ready, rolled_out, trouble: None },
    ))
}

fn stateful_set(set: &StatefulSet) -> Option<(String, Workload)> {
    let component = set.labels().get(COMPONENT)?.clone();
    let spec = set.spec.as_ref()?;
    let status = set.status.clone()?;
    let replicas = spec.replicas.unwrap_or(1);
    let ready = status.ready_replicas.unwrap_or(0);
    let rolled_out = status.observed_generation >= set.metadata.generation
        && status.updated_replicas.unwrap_or(0) == replicas
        && ready == replicas
        && status.replicas == replicas;
    Some((
        component,
        Workload { release: release(&spec.template), replicas, ready, rolled_out, trouble: None },
    ))
}

/// What keeps a pod from being ready, in words.
fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let found = containers.filter(|container| !container.ready).find_map(stuck);
    let found = found.or_else(|| unscheduled.and_then(|condition| condition.message.clone()))?;
    Some(found.chars().take(TROUBLE_CHARS).collect())
}

fn stuck(container: &ContainerStatus) -> Option<String> {
    let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let died = last.and_then(|last| last.message.as_deref()).and_then(|text| text.trim().lines().last());
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting
        .reason
        .as_deref()
        .filter(|reason| !matches!(*reason, "ContainerCreating" | "PodInitializing"))?;
    let message = died.or(waiting.message.as_deref()).unwrap_or_default();
    Some(format!("{reason}: {message}"))
}
