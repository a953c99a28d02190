//! The status, with conditions as kstatus reads them: `Ready`, and `Reconciling` and `Stalled` where it is not.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use weir_crd::{ClusterStatus, ServiceStatus, WeirCluster};

use super::{
    Observed, names,
    rollout::{self, State},
};

/// Why nothing is touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hold {
    /// The spec cannot be followed.
    Invalid(String),
    /// A person said so.
    Paused,
    /// A Secret that a person must bring is not there.
    SecretMissing(String),
}

impl Hold {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "SpecInvalid",
            Self::Paused => "Paused",
            Self::SecretMissing(_) => "SecretMissing",
        }
    }

    pub(super) fn message(&self) -> &str {
        match self {
            Self::Invalid(message) | Self::SecretMissing(message) => message,
            Self::Paused => "spec.paused is true; everything stays as it is",
        }
    }

    pub(super) fn is_wrong(&self) -> bool {
        !matches!(self, Self::Paused)
    }
}

/// What a condition says.
struct Said {
    is: bool,
    reason: &'static str,
    message: String,
}

fn said(is: bool, reason: &'static str, message: impl Into<String>) -> Said {
    Said { is, reason, message: message.into() }
}

/// The status of a cluster whose rollout is at `state`.
pub(super) fn status(
    cluster: &WeirCluster,
    old: &ClusterStatus,
    observed: &Observed,
    state: State,
    hold: Option<&Hold>,
    now: &Time,
) -> ClusterStatus {
    let components = names::components(cluster);
    let unready: Vec<String> = components
        .iter()
        .filter_map(|component| rollout::unready(component, observed.workloads.get(*component), None))
        .collect();
    let ready = ready(&state, hold, &unready, observed, components);
    let reconciling = match hold {
        Some(Hold::SecretMissing(_)) => said(true, ready.reason, ready.message.clone()),
        Some(_) => said(false, ready.reason, ready.message.clone()),
        None => said(!ready.is && state.failed.is_none(), ready.reason, ready.message.clone()),
    };
    let stalled = match (hold, &state.failed) {
        (Some(Hold::Invalid(message)), _) => said(true, "SpecInvalid", message.clone()),
        (None, Some(failed)) => said(true, "RolledBack", failed.message.clone()),
        _ => said(false, "Progressing", "no person is needed"),
    };
    let degraded = degraded(&state, &unready, observed);
    let generation = cluster.metadata.generation;
    let conditions =
        [("Ready", ready), ("Reconciling", reconciling), ("Stalled", stalled), ("Degraded", degraded)];
    let conditions = conditions.into_iter().chain(scaling(observed).map(|said| ("ScalingActive", said)));
    ClusterStatus {
        observed_generation: generation,
        conditions: conditions.map(|(name, said)| condition(name, said, old, generation, now)).collect(),
        services: services(observed, &state),
        last_good: state.last_good,
        rollout: state.rollout,
        failed: state.failed,
    }
}

/// What the load says, of every component that follows it; none where none does.
fn scaling(observed: &Observed) -> Option<Said> {
    let worst = observed.scaled.values().find(|decision| !decision.reason.is_active());
    let reason = worst.or_else(|| observed.scaled.values().next())?.reason.name();
    let each = observed.scaled.iter();
    let each =
        each.map(|(component, decision)| format!("{component} {}: {}", decision.replicas, decision.reason));
    Some(said(
        worst.is_none(),
        if worst.is_some() { reason } else { "Following" },
        each.collect::<Vec<_>>().join("; "),
    ))
}

/// What is only observed with: without it devices and people miss nothing.
const MONITORS: [&str; 2] = ["ServiceMonitor", "PrometheusRule"];

fn refused(observed: &Observed, is_monitor: bool) -> Option<String> {
    let found =
        observed.refused.iter().filter(|refused| MONITORS.contains(&refused.kind.as_str()) == is_monitor);
    let messages: Vec<&str> = found.map(|refused| refused.message.as_str()).collect();
    (!messages.is_empty()).then(|| messages.join("; "))
}

fn degraded(state: &State, unready: &[String], observed: &Observed) -> Said {
    if state.rollout.is_none() && state.last_good.is_some() && !unready.is_empty() {
        return said(true, "PodsNotReady", unready.join("; "));
    }
    match refused(observed, true) {
        Some(message) => said(true, "MonitorRefused", message),
        None => said(false, "AsDesired", "no service lacks a pod outside of a rollout"),
    }
}

fn ready(
    state: &State,
    hold: Option<&Hold>,
    unready: &[String],
    observed: &Observed,
    components: &[&str],
) -> Said {
    if let Some(hold) = hold {
        // Paused is as ready as it was; what is wrong was not done.
        let is = matches!(hold, Hold::Paused) && unready.is_empty();
        return said(is, hold.reason(), hold.message());
    }
    if let Some(message) = refused(observed, false) {
        return said(false, "ApplyRefused", message);
    }
    if let Some(failed) = &state.failed {
        return said(false, "RolledBack", failed.message.clone());
    }
    if let Some(rollout) = &state.rollout {
        let late = rollout::late(rollout, components, observed);
        let reason = if state.last_good.is_none() { "Installing" } else { "RollingOut" };
        return said(false, reason, rollout::waits_for(rollout, observed.job_trouble.as_deref(), &late));
    }
    match unready.is_empty() {
        true => said(true, "Available", "every service is ready"),
        false => said(false, "PodsNotReady", unready.join("; ")),
    }
}

/// A condition, which has changed when its status has.
fn condition(
    name: &str,
    said: Said,
    old: &ClusterStatus,
    observed_generation: Option<i64>,
    now: &Time,
) -> Condition {
    let status = if said.is { "True" } else { "False" }.to_owned();
    let was = old.conditions.iter().find(|known| known.type_ == name && known.status == status);
    Condition {
        type_: name.to_owned(),
        status,
        reason: said.reason.to_owned(),
        message: said.message,
        last_transition_time: was.map_or_else(|| now.clone(), |was| was.last_transition_time.clone()),
        observed_generation,
    }
}

fn services(observed: &Observed, state: &State) -> std::collections::BTreeMap<String, ServiceStatus> {
    let version = |release: &str| {
        let known = [state.last_good.as_ref(), state.rollout.as_ref().map(|rollout| &rollout.to)];
        let failed = state.failed.as_ref().map(|failed| &failed.release);
        let mut known = known.into_iter().chain([failed]).flatten();
        known.find(|known| names::release_id(known) == release).map(|known| known.version.clone())
    };
    let told = observed.workloads.iter().map(|(component, workload)| {
        let version = version(&workload.release).unwrap_or_default();
        (component.clone(), ServiceStatus { replicas: workload.replicas, ready: workload.ready, version })
    });
    told.collect()
}
