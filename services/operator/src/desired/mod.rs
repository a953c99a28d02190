//! What shall be there: a pure function of the resource and of what was observed.

mod check;
mod condition;
mod config;
mod names;
mod network;
mod pod;
mod rollout;
mod secret;
mod workload;

use std::collections::{BTreeMap, BTreeSet};

use crate::scaling::Decision;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use serde_json::Value;
use weir_crd::{ClusterStatus, Lag, Release, ScalingMode, WeirCluster};

pub use config::Configured;
pub(crate) use names::SHARED;
pub use names::{COMPONENT, LABEL_INSTANCE, MANAGED, RELEASE, SCALED, owner};
pub use network::ARROWS;
pub(crate) use rollout::READERS;
pub(crate) use secret::logins;
pub use secret::{Kept, MissingSecret};

use names::Names;

/// What was observed of a cluster.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    /// Its StatefulSet or Deployments, by component.
    pub workloads: BTreeMap<String, Workload>,
    /// Its Jobs by name, and whether each has ended well.
    pub jobs: BTreeMap<String, bool>,
    /// The keys of the Secrets that are there, of those that [`secrets`] names.
    pub secrets: BTreeMap<String, BTreeSet<String>>,
    /// By what the contents of the Secrets with logins are told from others; none where there are no logins.
    pub logins: Option<String>,
    /// What keeps a Job's pod from ending, in the kubelet's words.
    pub job_trouble: Option<String>,
    /// What the API server refused to take when it was applied last.
    pub refused: Vec<Refused>,
    /// How far the readers of the log are behind; of each service whose pods all told it, while that is looked at.
    pub lags: BTreeMap<String, Lag>,
    /// What the pods of each service answered since they began, while that is looked at.
    pub answers: BTreeMap<String, Answers>,
    /// What was decided on the number of pods, by component.
    pub scaled: BTreeMap<String, Decision>,
}

/// What the pods of a service answered since they began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answers {
    /// Calls.
    pub calls: u64,
    /// Of these, calls that failed by a fault of the service.
    pub faults: u64,
}

/// An object that the API server refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its kind.
    pub kind: String,
    /// Its name, and why, in the API server's words.
    pub message: String,
}

/// A StatefulSet or Deployment as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Workload {
    /// The release of its pods' template.
    pub release: String,
    /// Pods that there shall be.
    pub replicas: i32,
    /// Pods that are ready, of any release.
    pub ready: i32,
    /// Whether all pods are of the template as it is written now, and ready.
    pub rolled_out: bool,
    /// What keeps a pod from being ready, in the kubelet's words.
    pub trouble: Option<String>,
}

/// What shall be done.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// What is missing in Secrets and made once; nothing else is applied before.
    pub secrets: Vec<MissingSecret>,
    /// Everything that shall be there, in the order in which it is applied.
    pub objects: Vec<Value>,
    /// What stays as it is though it is not among the objects: names of ConfigMaps and Jobs.
    pub keep: BTreeSet<String>,
    /// Whether what is in neither goes. Not where the objects are not known.
    pub prune: bool,
    /// The status to write.
    pub status: ClusterStatus,
    /// What to tell as events.
    pub events: Vec<Event>,
    /// Whether to look again soon though nothing changes: a time-out, a Secret of somebody else.
    pub look_again: bool,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whether a person should look.
    pub warning: bool,
    /// For programs.
    pub reason: &'static str,
    /// For people.
    pub note: String,
}

/// What shall be done about `cluster`. `configured` is its weir.toml, or why there is none.
pub fn desired(cluster: &WeirCluster, configured: &Configured, observed: &Observed, now: &Time) -> Plan {
    let names = Names::new(cluster);
    let old = cluster.status.clone().unwrap_or_default();
    let generation = cluster.metadata.generation.unwrap_or_default();
    let wrong = check::check(&cluster.spec).err().or_else(|| configured.text.as_ref().err().cloned());
    let hold = match wrong {
        Some(message) => Some(condition::Hold::Invalid(message)),
        None if cluster.spec.paused => Some(condition::Hold::Paused),
        None => secret::absent(cluster, observed).map(condition::Hold::SecretMissing),
    };
    if let Some(hold) = hold {
        return held(cluster, observed, old, &hold, now);
    }
    let missing = secret::missing(cluster, observed);
    if !missing.is_empty() {
        return Plan { secrets: missing, status: old, look_again: true, ..Plan::default() };
    }
    let target = target(cluster, &names, configured, observed.logins.clone());
    let job = |release: &Release| workload::migration(cluster, &names, release);
    let facts = rollout::Facts {
        components: names::components(cluster),
        generation,
        timeout_s: i64::from(cluster.spec.rollout.stage_timeout_seconds),
        migrated: &|release| observed.jobs.get(name_of(&job(release))).copied().unwrap_or(false),
        observed,
        now,
    };
    let (state, events) = rollout::step(rollout::State::of(&old), &target, &facts);
    let objects = objects(cluster, &names, configured, observed, &state, &target);
    let status = condition::status(cluster, &old, observed, state.clone(), None, now);
    Plan {
        secrets: Vec::new(),
        objects,
        keep: keep(observed, &state),
        prune: true,
        look_again: state.rollout.is_some(),
        status,
        events,
    }
}

/// Everything of a cluster whose rollout is at its end: what [`crate::render()`] prints.
///
/// # Errors
/// What is wrong with the resource, in words.
pub fn rendered(cluster: &WeirCluster, configured: &Configured) -> Result<Vec<Value>, String> {
    check::check(&cluster.spec)?;
    configured.text.clone()?;
    let names = Names::new(cluster);
    let release = target(cluster, &names, configured, None);
    let state = rollout::State { last_good: Some(release.clone()), ..rollout::State::default() };
    let mut objects = objects(cluster, &names, configured, &Observed::default(), &state, &release);
    if cluster.spec.engines.shared.is_some() {
        objects.push(workload::migration(cluster, &names, &release));
    }
    Ok(objects)
}

/// weir.toml of a cluster; `check` is whoever reads it.
pub fn configure(cluster: &WeirCluster, check: impl FnOnce(&str) -> weir_core::Result<()>) -> Configured {
    config::configure(cluster, &Names::new(cluster), check)
}

/// What the spec asks for.
fn target(cluster: &WeirCluster, names: &Names, configured: &Configured, logins: Option<String>) -> Release {
    Release {
        version: cluster.spec.version.clone(),
        image: format!("{}:{}", cluster.spec.image.repository, cluster.spec.version),
        config: names.config(&configured.hash()),
        logins,
    }
}

/// Whether a rollout of the cluster is under way or begins now: then it counts how far readers are behind, and how calls end.
pub fn rolls_out(cluster: &WeirCluster, configured: &Configured, observed: &Observed) -> bool {
    let target = target(cluster, &Names::new(cluster), configured, observed.logins.clone());
    let is_other = |status: &ClusterStatus| status.last_good.as_ref() != Some(&target);
    cluster.status.as_ref().is_some_and(|status| status.rollout.is_some() || is_other(status))
}

/// Whether the number of some component's pods follows its load.
pub fn follows_load(cluster: &WeirCluster) -> bool {
    let mut services = cluster.spec.services.values();
    services.any(|service| service.scaling.mode == ScalingMode::Auto)
}

/// The Secrets that a cluster reads, those of others and those that are made.
pub fn secrets(cluster: &WeirCluster) -> Vec<Kept> {
    secret::all(cluster)
}

/// Nothing is touched, and it is told why.
fn held(
    cluster: &WeirCluster,
    observed: &Observed,
    old: ClusterStatus,
    hold: &condition::Hold,
    now: &Time,
) -> Plan {
    let state = rollout::State::of(&old);
    let status = condition::status(cluster, &old, observed, state, Some(hold), now);
    let was = old.conditions.iter().find(|known| known.type_ == "Ready");
    let is_new = was.is_none_or(|was| was.reason != hold.reason() || was.message != hold.message());
    let event = Event { warning: hold.is_wrong(), reason: hold.reason(), note: hold.message().to_owned() };
    Plan {
        status,
        events: if is_new { vec![event] } else { Vec::new() },
        look_again: matches!(hold, condition::Hold::SecretMissing(_)),
        ..Plan::default()
    }
}

/// Everything that shall be there while a rollout is at `state`.
fn objects(
    cluster: &WeirCluster,
    names: &Names,
    configured: &Configured,
    observed: &Observed,
    state: &rollout::State,
    target: &Release,
) -> Vec<Value> {
    let mut objects = vec![workload::service_account(cluster, names)];
    // One that was taken back is not made again: nobody uses it.
    let uses_target = [state.last_good.as_ref(), state.rollout.as_ref().map(|rollout| &rollout.to)]
        .into_iter()
        .flatten()
        .any(|release| release.config == target.config);
    if let (Ok(text), true) = (&configured.text, uses_target) {
        objects.push(config::config_map(names, &target.config, text));
    }
    objects.extend(network::services(cluster, names));
    objects.extend(network::policies(cluster, names));
    if let Some(rollout) = state.rollout.as_ref().filter(|_| cluster.spec.engines.shared.is_some()) {
        objects.push(workload::migration(cluster, names, &rollout.to));
    }
    for component in names::components(cluster) {
        if let Some(release) = state.release(component) {
            objects.extend(workload::workload(cluster, names, component, release, observed));
        }
    }
    objects.extend(workload::monitor(cluster, names));
    objects.extend(workload::rules(cluster, names));
    let owner = owner(cluster);
    for object in &mut objects {
        if let (Some(metadata), Some(owner)) = (object.get_mut("metadata"), &owner) {
            names::set(metadata, "ownerReferences", Value::Array(vec![owner.clone()]));
        }
    }
    objects
}

/// The configuration to which a rollout may have to go back, and the Job of what runs.
fn keep(observed: &Observed, state: &rollout::State) -> BTreeSet<String> {
    let mut keep: BTreeSet<String> = state.last_good.iter().map(|release| release.config.clone()).collect();
    if state.rollout.is_none() && state.failed.is_none() {
        keep.extend(observed.jobs.keys().cloned());
    }
    keep
}

/// The name of an object.
pub fn name_of(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

/// The name of a cluster, for people.
pub fn shown(cluster: &WeirCluster) -> String {
    format!("{}/{}", cluster.namespace().unwrap_or_default(), cluster.name_any())
}
