//! A rollout as a state machine over what stands in the status: schema, then registry, then those who read the log, then
//! ingest, each gated on readiness, on calls that do not fail, and on the readers of the log being no further behind than before;
//! what does not come to that in time is taken back.
//!
//! Every release runs beside the one before in any order, so that going back needs no order. A step depends only on the
//! status and on what was observed: an operator that ends between any two writes does the same step again.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use weir_crd::{ClusterStatus, Failed, Lag, Release, Rollout, Stage};

use super::{Answers, Event, Observed, Workload, names::release_id};

/// Services that read the log.
pub(crate) const READERS: [&str; 2] = ["storage", "analytics"];
/// So many frames may wait whatever it was before: a second or two of a busy stream.
const LAG_FRAMES: i64 = 2_000;

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct State {
    pub(super) last_good: Option<Release>,
    pub(super) rollout: Option<Rollout>,
    pub(super) failed: Option<Failed>,
}

/// What a step looks at.
pub(super) struct Facts<'a> {
    pub(super) components: &'a [&'a str],
    pub(super) generation: i64,
    pub(super) timeout_s: i64,
    /// Whether the Job of a release has ended well.
    pub(super) migrated: &'a dyn Fn(&Release) -> bool,
    pub(super) observed: &'a Observed,
    pub(super) now: &'a Time,
}

/// At which stage a component gets its new release.
pub(super) fn stage_of(component: &str) -> Stage {
    match component {
        "registry" => Stage::Registry,
        "storage" | "analytics" | "commands" => Stage::Readers,
        _ => Stage::Ingest,
    }
}

impl State {
    /// As it stands in a status.
    pub(super) fn of(status: &ClusterStatus) -> Self {
        Self {
            last_good: status.last_good.clone(),
            rollout: status.rollout.clone(),
            failed: status.failed.clone(),
        }
    }

    /// The release that a component shall have now; none where it is not made yet.
    pub(super) fn release(&self, component: &str) -> Option<&Release> {
        let Some(rollout) = &self.rollout else { return self.last_good.as_ref() };
        // The first time, too: who asks for the address of a service that has no ready pod yet is told that there is none, and
        // believes it for as long as DNS caches it.
        if stage_of(component) > rollout.stage { self.last_good.as_ref() } else { Some(&rollout.to) }
    }
}

/// One step from `state` towards `target`.
pub(super) fn step(state: State, target: &Release, facts: &Facts<'_>) -> (State, Vec<Event>) {
    let mut events = Vec::new();
    let mut state = begin(state, target, facts, &mut events);
    while let Some(rollout) = state.rollout.clone() {
        if is_done(&rollout, facts) {
            advance(&mut state, rollout, facts, &mut events);
            continue;
        }
        if is_late(&rollout, facts) && state.last_good.is_some() {
            take_back(&mut state, rollout, facts, &mut events);
        }
        break;
    }
    (state, events)
}

/// Begins a rollout where the target is another than what runs, or than what is being rolled out.
fn begin(mut state: State, target: &Release, facts: &Facts<'_>, events: &mut Vec<Event>) -> State {
    let is_failed = |failed: &Failed| failed.release == *target && failed.generation == facts.generation;
    if state.failed.as_ref().is_some_and(is_failed) {
        return state;
    }
    let under_way = state.rollout.as_ref().map(|rollout| &rollout.to);
    if under_way == Some(target) {
        return state;
    }
    let is_back = under_way.is_some() && state.last_good.as_ref() == Some(target);
    if is_back || (under_way.is_none() && state.last_good.as_ref() == Some(target)) {
        if is_back {
            events.push(told("RolloutStopped", format!("back to {}", target.version)));
        }
        return State { rollout: None, failed: None, ..state };
    }
    let stage = if facts.components.len() > 1 { Stage::Migrate } else { Stage::Ingest };
    let from = state.last_good.as_ref().map(|good| format!(" from {}", good.version)).unwrap_or_default();
    events.push(told("RolloutStarted", format!("to {}{from}", target.version)));
    state.failed = None;
    // Of what was good: a rollout that is overtaken may have made it worse.
    let before = state.rollout.take().map_or_else(|| facts.observed.lags.clone(), |old| old.before);
    state.rollout = Some(Rollout { to: target.clone(), stage, since: facts.now.clone(), before });
    state
}

/// Whether everybody that a stage names has the new release and is ready.
fn is_done(rollout: &Rollout, facts: &Facts<'_>) -> bool {
    match rollout.stage {
        Stage::Migrate => (facts.migrated)(&rollout.to),
        _ => late(rollout, facts.components, facts.observed).is_empty(),
    }
}

/// As many calls of new pods say something about them.
const CALLS_MIN: u64 = 100;
/// One call in so many may fail by a fault of the service.
const FAULT_ONE_IN: u64 = 100;

/// What a rollout waits for at its stage, by component, in words.
pub(super) fn late(rollout: &Rollout, components: &[&str], observed: &Observed) -> Vec<String> {
    let release = release_id(&rollout.to);
    let waited_for = components.iter().filter(|component| stage_of(component) <= rollout.stage);
    waited_for
        .filter_map(|component| {
            unready(component, observed.workloads.get(*component), Some(&release))
                .or_else(|| behind(component, rollout, observed.lags.get(*component)))
                .or_else(|| failing(component, observed.answers.get(*component)))
        })
        .collect()
}

/// Why a component's answers are not to be trusted: its pods are new, and so is all that they count.
fn failing(component: &str, answers: Option<&Answers>) -> Option<String> {
    let Answers { calls, faults } = *answers?;
    (calls >= CALLS_MIN && faults.saturating_mul(FAULT_ONE_IN) > calls)
        .then(|| format!("{component} failed at {faults} of {calls} calls"))
}

/// Why a component is further behind than it was.
fn behind(component: &str, rollout: &Rollout, now: Option<&Lag>) -> Option<String> {
    if !READERS.contains(&component) {
        return None;
    }
    let Some(now) = now else {
        return Some(format!("{component} does not tell how far it is behind"));
    };
    let before = rollout.before.get(component).copied().unwrap_or_default();
    if now.partitions < before.partitions {
        return Some(format!("{component} reads {} of {} partitions", now.partitions, before.partitions));
    }
    let most = before.frames.max(LAG_FRAMES);
    (now.frames > most).then(|| format!("{component} is {} frames behind, above {most}", now.frames))
}

/// Why a component is not ready, of that release if one is given.
pub(super) fn unready(component: &str, workload: Option<&Workload>, release: Option<&str>) -> Option<String> {
    let Some(workload) = workload else { return Some(format!("{component} is not there yet")) };
    let is_it = release.is_none_or(|release| release == workload.release);
    if workload.rolled_out && is_it {
        return None;
    }
    let trouble = workload.trouble.as_deref().map(|trouble| format!(": {trouble}")).unwrap_or_default();
    let Workload { ready, replicas, .. } = workload;
    Some(match workload.rolled_out || ready >= replicas {
        true => format!("{component} does not have the new release everywhere{trouble}"),
        false => format!("{component} has {ready} of {replicas} pods ready{trouble}"),
    })
}

fn is_late(rollout: &Rollout, facts: &Facts<'_>) -> bool {
    facts.now.0.as_second() - rollout.since.0.as_second() >= facts.timeout_s
}

/// What a rollout waits for, in words.
pub(super) fn waits_for(rollout: &Rollout, facts_trouble: Option<&str>, late: &[String]) -> String {
    let what = match (rollout.stage, facts_trouble) {
        (Stage::Migrate, None) => "the migration has not ended yet".to_owned(),
        (Stage::Migrate, Some(trouble)) => format!("the migration has not ended yet: {trouble}"),
        _ => late.join("; "),
    };
    format!("{} to {}: {what}", rollout.stage.as_str(), rollout.to.version)
}

fn advance(state: &mut State, rollout: Rollout, facts: &Facts<'_>, events: &mut Vec<Event>) {
    match rollout.stage.next() {
        Some(stage) => {
            events.push(told("RolloutStage", format!("{} to {}", stage.as_str(), rollout.to.version)));
            state.rollout = Some(Rollout { stage, since: facts.now.clone(), ..rollout });
        }
        None => {
            events.push(told("RolloutFinished", format!("{} runs", rollout.to.version)));
            *state = State { last_good: Some(rollout.to), rollout: None, failed: None };
        }
    }
}

fn take_back(state: &mut State, rollout: Rollout, facts: &Facts<'_>, events: &mut Vec<Event>) {
    let good = state.last_good.as_ref().map(|good| good.version.clone()).unwrap_or_default();
    let late = late(&rollout, facts.components, facts.observed);
    let why = waits_for(&rollout, facts.observed.job_trouble.as_deref(), &late);
    let message = format!("not ready within {} s, back to {good}: {why}", facts.timeout_s);
    events.push(Event { warning: true, reason: "RolledBack", note: message.clone() });
    state.failed =
        Some(Failed { release: rollout.to, generation: facts.generation, stage: rollout.stage, message });
    state.rollout = None;
}

fn told(reason: &'static str, note: String) -> Event {
    Event { warning: false, reason, note }
}
