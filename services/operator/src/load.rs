//! What the services do, as their pods tell: the load by which the operator scales.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use tokio::time::Instant;
use weir_core::{Error, Result};
use weir_crd::{Lag, Scaling, ScalingMode, WeirCluster};

use crate::{
    desired::{self, Answers, COMPONENT, LABEL_INSTANCE, READERS, SCALED, SHARED, Workload},
    error::of_kube,
    scaling::{Decision, Look, Policy, Scaler, Seen},
};

/// How often pods are asked.
pub(crate) const EVERY: Duration = Duration::from_secs(15);
/// A pod that needs longer is one that could not be asked.
const ASK_MAX: Duration = Duration::from_secs(3);
const ADMIN_PORT: u16 = 8082;
/// The gRPC codes that blame the service itself: neither the caller, nor somebody who is away.
const FAULTS: [&str; 3] = ["code=\"UNKNOWN\"", "code=\"INTERNAL\"", "code=\"DATA_LOSS\""];

/// Asks pods for what they tell of themselves.
#[derive(Clone)]
pub(crate) struct Pods {
    http: reqwest::Client,
}

/// The control loops of every component that follows its load.
pub(crate) struct Loads {
    pods: Pods,
    begin: Instant,
    /// By cluster and component.
    known: BTreeMap<(String, &'static str), Known>,
}

#[derive(Default)]
struct Known {
    scaler: Scaler,
    /// What each pod told last, and when.
    before: Option<(Instant, BTreeMap<String, Told>)>,
    /// The most partitions that told their lag at one look: fewer, and one is without an owner or fails.
    partitions: f64,
}

/// What one pod tells.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Told {
    frames: f64,
    /// Times that an owner began anew after a failure.
    restarts: f64,
    /// Lag and partitions that it is of, summed.
    lag: f64,
    partitions: f64,
    connections: f64,
    window: f64,
    /// gRPC calls that it answered, and of these those that failed by its own fault.
    calls: f64,
    faults: f64,
}

impl Pods {
    pub(crate) fn new() -> Result<Self> {
        let http =
            reqwest::Client::builder().timeout(ASK_MAX).redirect(reqwest::redirect::Policy::none()).build();
        let http =
            http.map_err(|source| Error::internal("cannot make an http client").with_source(source))?;
        Ok(Self { http })
    }

    /// How far the readers of the log are behind, and how every service answers; of each whose pods all tell it.
    ///
    /// # Errors
    /// Those of the API server.
    pub(crate) async fn health(
        &self,
        client: &Client,
        cluster: &WeirCluster,
    ) -> Result<(BTreeMap<String, Lag>, BTreeMap<String, Answers>)> {
        let (mut lags, mut answers) = (BTreeMap::new(), BTreeMap::new());
        let pods = list(client, cluster).await?;
        let told = join_all(SHARED.map(|component| self.ask(&pods, component))).await;
        for (component, told) in SHARED.into_iter().zip(told) {
            let Some(told) = told else { continue };
            let sum = |of: fn(&Told) -> f64| told.values().map(of).sum::<f64>();
            if READERS.contains(&component) {
                let partitions = sum(|told| told.partitions) as i64;
                lags.insert(component.to_owned(), Lag { partitions, frames: waiting(&told) as i64 });
            }
            let (calls, faults) = (sum(|told| told.calls) as u64, sum(|told| told.faults) as u64);
            answers.insert(component.to_owned(), Answers { calls, faults });
        }
        Ok((lags, answers))
    }

    /// What every one of a component's pods tells; none where one does not.
    async fn ask(&self, pods: &[Pod], component: &str) -> Option<BTreeMap<String, Told>> {
        let there = pods.iter().filter(|pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            pod.labels().get(COMPONENT).is_some_and(|known| known == component)
                && pod.metadata.deletion_timestamp.is_none()
                && matches!(phase, Some("Running" | "Pending"))
        });
        let asked = there.map(|pod| async move {
            let address: IpAddr = pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok()?;
            let address = SocketAddr::new(address, ADMIN_PORT);
            let page = self.http.get(format!("http://{address}/metrics")).send().await.ok()?;
            let page = page.error_for_status().ok()?.text().await.ok()?;
            Some((pod.uid().unwrap_or_default(), told(component, &page)?))
        });
        join_all(asked).await.into_iter().collect()
    }
}

/// The pods of a cluster, of every component.
async fn list(client: &Client, cluster: &WeirCluster) -> Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &cluster.namespace().unwrap_or_default());
    let labels = format!("{LABEL_INSTANCE}={}", cluster.name_any());
    let pods = api.list(&ListParams::default().labels(&labels)).await;
    pods.map(|pods| pods.items).map_err(|error| of_kube("pods", error))
}

impl Loads {
    pub(crate) fn new(pods: Pods) -> Self {
        Self { pods, begin: Instant::now(), known: BTreeMap::new() }
    }

    /// Looks at every component of a cluster that follows its load, and decides.
    ///
    /// # Errors
    /// Those of the API server.
    pub(crate) async fn look(
        &mut self,
        client: &Client,
        cluster: &WeirCluster,
        workloads: &BTreeMap<String, Workload>,
    ) -> Result<BTreeMap<String, Decision>> {
        let name = desired::shown(cluster);
        let mut decisions = BTreeMap::new();
        if cluster.status.as_ref().is_none_or(|status| status.rollout.is_some()) {
            self.known.retain(|(known, _), _| *known != name); // a rollout waits for these very pods
            return Ok(decisions);
        }
        let pods = list(client, cluster).await?;
        for component in SCALED {
            let scaling = cluster.spec.services.get(component).map(|service| service.scaling);
            let scaling = scaling.filter(|scaling| scaling.mode == ScalingMode::Auto);
            let (Some(scaling), Some(workload)) = (scaling, workloads.get(component)) else {
                self.known.remove(&(name.clone(), component));
                continue;
            };
            let told = self.pods.ask(&pods, component).await;
            let known = self.known.entry((name.clone(), component)).or_default();
            let now = Instant::now();
            let seen = told.and_then(|told| known.seen(component, now, told, workload.ready));
            let look = Look {
                at: now.duration_since(self.begin),
                wanted: workload.replicas,
                ready: workload.ready,
                settled: workload.rolled_out,
                seen,
            };
            decisions.insert(component.to_owned(), known.scaler.decide(&policy(&scaling), &look));
        }
        Ok(decisions)
    }

    /// Forgets clusters that are not among these.
    pub(crate) fn retain(&mut self, clusters: &BTreeSet<String>) {
        self.known.retain(|(known, _), _| clusters.contains(known));
    }
}

fn policy(scaling: &Scaling) -> Policy {
    let seconds = u64::try_from(scaling.lag_gone_within_seconds).unwrap_or(1);
    Policy {
        min: scaling.min,
        max: scaling.max,
        lag_gone_within: Duration::from_secs(seconds),
        connections_each: f64::from(scaling.connections_per_pod),
    }
}

impl Known {
    /// What was seen since the last look; none at the first one, and where the pods are others than then.
    fn seen(
        &mut self,
        component: &str,
        now: Instant,
        told: BTreeMap<String, Told>,
        ready: i32,
    ) -> Option<Seen> {
        let sum = |of: fn(&Told) -> f64| told.values().map(of).sum::<f64>();
        if component == "ingest" {
            let connections = sum(|told| told.connections);
            let in_flight = sum(|told| told.window) / f64::from(ready.max(1));
            return Some(Seen::Edge { connections, in_flight });
        }
        let (then, before) = self.before.replace((now, told.clone()))?;
        let partitions = |of: &BTreeMap<String, Told>| of.values().map(|told| told.partitions).sum::<f64>();
        self.partitions = self.partitions.max(partitions(&told));
        let is_whole = partitions(&told) == self.partitions && partitions(&before) == self.partitions;
        let failed = told
            .iter()
            .any(|(pod, told)| before.get(pod).is_some_and(|before| told.restarts > before.restarts));
        // Rates are of the same pods, and lag is of every partition; one whose owner fails tells none, or an old one.
        if !before.keys().eq(told.keys()) || !is_whole || failed {
            return None;
        }
        let seconds = now.duration_since(then).as_secs_f64().max(0.001);
        // A pod that began again counts from nothing.
        let read = told.iter().map(|(pod, told)| {
            let frames = before.get(pod).map_or(0.0, |before| before.frames);
            if told.frames >= frames { told.frames - frames } else { told.frames }
        });
        let drained = read.sum::<f64>() / seconds;
        let arrived = (drained + (waiting(&told) - waiting(&before)) / seconds).max(0.0);
        Some(Seen::Reader { lag: waiting(&told), arrived, drained })
    }
}

/// How many frames wait. Sequences rise over the whole stream, so that each partition's lag counts the frames of all: it is their
/// mean.
fn waiting(told: &BTreeMap<String, Told>) -> f64 {
    let sum = |of: fn(&Told) -> f64| told.values().map(of).sum::<f64>();
    sum(|told| told.lag) / sum(|told| told.partitions).max(1.0)
}

/// Reads the few metrics that count from a page in Prometheus' text format; none where they are not on it, as of a release
/// that does not have them.
fn told(component: &str, page: &str) -> Option<Told> {
    let mut told = Told::default();
    let (mut has_frames, mut has_window) = (false, false);
    for line in page.lines() {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Some(value) = value.parse::<f64>().ok().filter(|value| value.is_finite()) else { continue };
        match series.split('{').next().unwrap_or_default() {
            "weir_storage_frames_written_total" | "weir_analytics_frames_total" => {
                told.frames += value;
                has_frames = true;
            }
            "weir_storage_owner_restarts_total" | "weir_analytics_owner_restarts_total" => {
                told.restarts += value
            }
            "weir_storage_lag_frames" | "weir_analytics_lag_frames" => {
                told.lag += value;
                told.partitions += 1.0;
            }
            "weir_grpc_requests_total" => {
                told.calls += value;
                let is_fault = FAULTS.iter().any(|code| series.contains(code));
                told.faults += if is_fault { value } else { 0.0 };
            }
            "weir_ingest_connections" => told.connections += value,
            "weir_ingest_window_used_ratio" => {
                told.window += value;
                has_window = true;
            }
            _ => {}
        }
    }
    let is_known = match component {
        "ingest" => has_window,
        "storage" | "analytics" => has_frames,
        _ => true,
    };
    is_known.then_some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP weir_storage_lag_frames frames\n# TYPE weir_storage_lag_frames gauge\n\
        weir_storage_lag_frames{partition=\"0\"} 30\nweir_storage_lag_frames{partition=\"1\"} 10\n\
        weir_storage_frames_written_total 500\nweir_storage_frames_written_total_other 7\n";

    #[test]
    fn a_page_of_metrics_is_read() {
        let found = told("storage", PAGE).unwrap();
        assert_eq!((found.frames, found.lag, found.partitions), (500.0, 40.0, 2.0));
        assert_eq!(told("ingest", PAGE), None, "it says nothing of the edge");
        let page = "weir_grpc_requests_total{method=\"a.B/C\",code=\"OK\"} 90\n\
            weir_grpc_requests_total{method=\"a.B/C\",code=\"INTERNAL\"} 9\n\
            weir_grpc_requests_total{method=\"a.B/C\",code=\"UNAVAILABLE\"} 1\n";
        let found = told("registry", page).unwrap();
        assert_eq!((found.calls, found.faults), (100.0, 9.0));
    }

    #[tokio::test(start_paused = true)]
    async fn rates_are_of_the_same_pods_and_a_pod_that_began_again_counts_from_nothing() {
        let mut known = Known::default();
        let pods = |list: &[(&str, f64, f64)]| -> BTreeMap<String, Told> {
            let told = |frames, lag| Told { frames, lag: lag * 8.0, partitions: 8.0, ..Told::default() };
            list.iter().map(|(pod, frames, lag)| ((*pod).to_owned(), told(*frames, *lag))).collect()
        };
        let mut look = async |list: &[(&str, f64, f64)]| {
            tokio::time::advance(Duration::from_secs(10)).await;
            known.seen("storage", Instant::now(), pods(list), 2)
        };
        assert_eq!(look(&[("a", 100.0, 0.0), ("b", 100.0, 0.0)]).await, None, "the first");
        let seen = look(&[("a", 200.0, 50.0), ("b", 300.0, 50.0)]).await;
        assert_eq!(seen, Some(Seen::Reader { lag: 50.0, arrived: 35.0, drained: 30.0 }));
        let seen = look(&[("a", 40.0, 50.0), ("b", 300.0, 50.0)]).await;
        assert_eq!(seen, Some(Seen::Reader { lag: 50.0, arrived: 4.0, drained: 4.0 }));
        assert_eq!(look(&[("a", 50.0, 0.0), ("c", 300.0, 0.0)]).await, None, "another pod");
        assert!(look(&[("a", 50.0, 0.0), ("c", 300.0, 0.0)]).await.is_some());
        assert_eq!(look(&[("a", 50.0, 0.0)]).await, None, "partitions without an owner");
    }
}
