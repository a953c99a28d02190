//! The operator at work: one reconciliation after the other, for whoever holds the lease.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{Deployment, StatefulSet},
        batch::v1::Job,
        core::v1::{ConfigMap, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::ListParams,
    runtime::{
        Controller,
        controller::{self, Action},
        events::{self, EventType, Recorder, Reporter},
        watcher,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use weir_core::{Error, Result};
use weir_crd::WeirCluster;

use crate::{
    Binary, MANAGER, apply,
    backoff::Backoff,
    desired::{self, MANAGED, Refused},
    error::of_kube,
    leader::{self, Lease},
    load::{self, Loads, Pods},
    metrics::Metrics,
    objects,
    observe::observe,
    scaling::Decision,
};

/// Changes that come together are looked at once.
const DEBOUNCE: Duration = Duration::from_millis(300);
/// While something is waited for that no watch tells: a time-out, a Secret of somebody else.
const SOON: Duration = Duration::from_secs(5);
/// Until what the API server refused is tried again: a kind that is not installed, a rule of the site.
const REFUSED: Duration = Duration::from_secs(30);
/// So that what no watch told is put back, too.
const LATER: Duration = Duration::from_secs(300);

/// How the operator runs.
pub struct Options {
    /// The namespace whose clusters it keeps; all where there is none.
    pub namespace: Option<String>,
    /// The name of the Lease by which one of several is chosen.
    pub lease: String,
    /// By what this one is known: its pod's name.
    pub identity: String,
    /// Where `/livez`, `/readyz` and `/metrics` are.
    pub admin: SocketAddr,
    /// Whether to bring the definitions of the kinds to this release.
    pub apply_crds: bool,
}

/// What every reconciliation needs.
struct Context {
    client: Client,
    binary: Arc<dyn Binary>,
    recorder: Recorder,
    metrics: Metrics,
    backoff: Backoff,
    pods: Pods,
    /// By cluster, what the API server refused last.
    refused: Mutex<BTreeMap<String, Vec<Refused>>>,
    /// By cluster, what its load says.
    scaled: Mutex<BTreeMap<String, BTreeMap<String, Decision>>>,
}

/// Keeps clusters until `stop`.
///
/// # Errors
/// Where there is no API server to talk to, by configuration; a port in use. An API server that is away is waited for.
pub async fn run(options: Options, binary: Arc<dyn Binary>, stop: CancellationToken) -> Result<()> {
    let config = kube::Config::infer().await.map_err(|source| {
        Error::unavailable(
            "there is neither a service account nor a kubeconfig (KUBECONFIG) to find the API server by",
        )
        .with_source(source)
    })?;
    let here = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|error| of_kube("the API server", error))?;
    let registry = prometheus::Registry::new();
    let metrics = Metrics::new(&registry)?;
    weir_observability::process_metrics(&weir_metrics::Registrar::new(&registry))?;
    let listener = tokio::net::TcpListener::bind(options.admin).await.map_err(|source| {
        Error::unavailable(format!("cannot listen on {}: {source}", options.admin)).with_source(source)
    })?;
    let admin =
        weir_runtime::Admin::new(Vec::new(), registry, vec![format!("operator {}", options.identity)]);
    admin.accepting(true);
    let serving = tokio::spawn(admin.serve(listener, stop.clone()));
    let lease = Lease::new(client.clone(), &here, &options.lease, &options.identity);
    let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(options.identity.clone()) };
    let context = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        binary,
        metrics,
        backoff: Backoff::default(),
        pods: Pods::new()?,
        refused: Mutex::default(),
        scaled: Mutex::default(),
    });
    tracing::info!(lease = options.lease, namespace = options.namespace, "waiting for the lease");
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => break,
            () = lease.acquire() => {}
        }
        context.metrics.leads(true);
        tracing::info!("leading");
        tokio::select! {
            () = stop.cancelled() => {}
            () = lease.keep() => tracing::warn!("the lease is lost"),
            () = lead(&options, &context) => {}
        }
        context.metrics.leads(false);
    }
    lease.release().await;
    serving.await.unwrap_or(Ok(()))
}

/// Reconciles, for ever.
async fn lead(options: &Options, context: &Arc<Context>) {
    // What was known is of an earlier time: another one has led since.
    context.scaled.lock().unwrap_or_else(PoisonError::into_inner).clear();
    if options.apply_crds {
        leader::install_crds(&context.client).await;
    }
    let client = &context.client;
    let namespace = options.namespace.as_deref();
    let (wake, woken) = mpsc::channel(1);
    let ours = || watcher::Config::default().labels(MANAGED);
    let controller = Controller::new(scoped::<WeirCluster>(client, namespace), watcher::Config::default())
        .with_config(controller::Config::default().debounce(DEBOUNCE))
        .owns(scoped::<Deployment>(client, namespace), ours())
        .owns(scoped::<StatefulSet>(client, namespace), ours())
        .owns(scoped::<Job>(client, namespace), ours())
        .owns(scoped::<Service>(client, namespace), ours())
        .owns(scoped::<ConfigMap>(client, namespace), ours())
        .owns(scoped::<ServiceAccount>(client, namespace), ours())
        .owns(scoped::<NetworkPolicy>(client, namespace), ours())
        .owns(scoped::<PodDisruptionBudget>(client, namespace), ours())
        .reconcile_all_on(ReceiverStream::new(woken));
    let work = controller.run(reconcile, retry, Arc::clone(context));
    let scaling = scale(namespace, context, wake);
    let clusters = work.for_each(|done| async move {
        match done {
            Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
            // Told where it was handled.
            Err(controller::Error::ReconcilerFailed(..)) => {}
            Err(error) => tracing::warn!(error = %error, "a watch failed; it is tried again"),
        }
    });
    tokio::join!(clusters, scaling, objects::run(client, namespace));
}

/// Looks at the load of every cluster, and has it reconciled where that says another number.
async fn scale(namespace: Option<&str>, context: &Arc<Context>, wake: mpsc::Sender<()>) {
    let mut loads = Loads::new(context.pods.clone());
    let api = scoped::<WeirCluster>(&context.client, namespace);
    loop {
        tokio::time::sleep(load::EVERY).await;
        let done = async {
            let mut is_news = false;
            let clusters = api.list(&ListParams::default()).await;
            let clusters = clusters.map_err(|error| of_kube("weirclusters", error))?.items;
            loads.retain(&clusters.iter().map(desired::shown).collect());
            for cluster in clusters {
                let name = desired::shown(&cluster);
                // One that cannot be looked at keeps its number, and costs the others nothing.
                let decisions = match decide(&mut loads, context, &cluster).await {
                    Ok(decisions) => decisions,
                    Err(error) => {
                        tracing::warn!(cluster = name, error = %error, "its load was not looked at");
                        BTreeMap::new()
                    }
                };
                is_news |= context.scaled(&name) != decisions;
                context.scaled.lock().unwrap_or_else(PoisonError::into_inner).insert(name, decisions);
            }
            Ok::<bool, Error>(is_news)
        };
        match done.await {
            Ok(false) => {}
            Ok(true) => {
                let _ = wake.try_send(()); // one that is on its way does
            }
            Err(error) => {
                tracing::warn!(error = %error, "the load was not looked at; it is tried again");
            }
        }
    }
}

async fn decide(
    loads: &mut Loads,
    context: &Context,
    cluster: &WeirCluster,
) -> Result<BTreeMap<String, Decision>> {
    if !desired::follows_load(cluster) {
        return Ok(BTreeMap::new());
    }
    let observed = observe(&context.client, cluster).await?;
    loads.look(&context.client, cluster, &observed.workloads).await
}

/// The objects of a namespace, or of all.
fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

async fn reconcile(cluster: Arc<WeirCluster>, context: Arc<Context>) -> Result<Action> {
    let name = desired::shown(&cluster);
    let began = Instant::now();
    let done = step(&cluster, &context).await;
    context.metrics.reconciled(done.is_ok(), began.elapsed().as_secs_f64());
    if done.is_ok() {
        context.backoff.done(&name);
    }
    done
}

/// One reconciliation: observe, decide, then Secrets, status, objects, removals. An operator that ends after any of these
/// writes has written nothing that the next one does not carry on from.
async fn step(cluster: &WeirCluster, context: &Context) -> Result<Action> {
    let client = &context.client;
    let name = desired::shown(cluster);
    let namespace = cluster.namespace().unwrap_or_default();
    let api: Api<WeirCluster> = Api::namespaced(client.clone(), &namespace);
    // As it is now: what the watch remembers may be older than the status that was written last.
    let found = api.get_opt(&cluster.name_any()).await.map_err(|error| of_kube(&name, error))?;
    let Some(cluster) = found.filter(|found| found.metadata.deletion_timestamp.is_none()) else {
        context.keep_refused(&name, Vec::new());
        context.scaled.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        return Ok(Action::await_change());
    };
    let mut observed = observe(client, &cluster).await?;
    observed.refused = context.refused(&name);
    observed.scaled = context.scaled(&name);
    let configured = desired::configure(&cluster, |toml| context.binary.check_config(toml));
    if desired::rolls_out(&cluster, &configured, &observed) {
        (observed.lags, observed.answers) = context.pods.health(client, &cluster).await?;
    }
    let plan = desired::desired(&cluster, &configured, &observed, &Time(Timestamp::now()));
    for missing in &plan.secrets {
        apply::secret(client, &cluster, missing, &*context.binary).await?;
    }
    if !plan.secrets.is_empty() {
        return Ok(Action::requeue(Duration::ZERO));
    }
    apply::status(client, &cluster, &plan.status).await?;
    for event in &plan.events {
        context.tell(&cluster, event).await;
    }
    let refused = apply::objects(client, &namespace, &plan).await?;
    if plan.prune {
        apply::prune(client, &cluster, &plan).await?;
    }
    let is_news = refused != observed.refused && plan.prune;
    if is_news {
        for refused in &refused {
            tracing::warn!(
                cluster = name,
                refused = refused.message,
                "the API server refused an object; it is tried again"
            );
        }
        context.keep_refused(&name, refused);
        return Ok(Action::requeue(Duration::ZERO)); // the status tells it
    }
    let pause = match (plan.look_again, refused.is_empty()) {
        (true, _) => SOON,
        (false, true) => LATER,
        (false, false) => REFUSED,
    };
    Ok(Action::requeue(pause))
}

/// The pause after a failure, longer each time.
fn retry(cluster: Arc<WeirCluster>, error: &Error, context: Arc<Context>) -> Action {
    let name = desired::shown(&cluster);
    let pause = context.backoff.failed(&name);
    tracing::warn!(cluster = name, error = %error, pause_s = pause.as_secs(), "not reconciled; tried again");
    Action::requeue(pause)
}

impl Context {
    fn refused(&self, name: &str) -> Vec<Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned().unwrap_or_default()
    }

    fn scaled(&self, name: &str) -> BTreeMap<String, Decision> {
        self.scaled.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned().unwrap_or_default()
    }

    fn keep_refused(&self, name: &str, refused: Vec<Refused>) {
        let mut known = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match refused.is_empty() {
            true => drop(known.remove(name)),
            false => drop(known.insert(name.to_owned(), refused)),
        }
    }

    async fn tell(&self, cluster: &WeirCluster, event: &desired::Event) {
        tracing::info!(cluster = desired::shown(cluster), reason = event.reason, note = event.note, "event");
        let event = events::Event {
            type_: if event.warning { EventType::Warning } else { EventType::Normal },
            reason: event.reason.to_owned(),
            note: Some(event.note.chars().take(1_000).collect()), // 1,024 at most (events.k8s.io)
            // Events of one reason and action are told as one: each note is one of its own.
            action: event.note.chars().take(128).collect(), // 128 at most
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &cluster.object_ref(&())).await {
            tracing::warn!(error = %error, "an event was not taken");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
