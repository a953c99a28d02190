//! Tenants, profiles and rules as objects of Kubernetes: each is told to the Weir that it is of, over its gRPC API.
//!
//! What is in Weir under the same name and is not kept by the object is left alone: an object never takes over what somebody
//! made through the API, unless it carries [`ADOPT`]; a tenant never. The tenant decides: a rule or profile names a Tenant in
//! its own namespace, and works with that tenant's own token, so that it can reach nothing of another.

mod convert;
mod kinds;
mod place;

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::{StreamExt as _, future::BoxFuture};
use k8s_openapi::{
    NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{Controller, controller, controller::Action, watcher},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use weir_core::{Error, ErrorKind, Result};
use weir_crd::{DeviceProfile, ObjectStatus, Rule, Tenant};

use crate::{MANAGER, backoff::Backoff, error::of_kube};
use place::Connections;

/// Keeps an object of Kubernetes until that of Weir is let go.
const FINALIZER: &str = "weir.dev/object";
/// The annotation by which a profile or a rule takes over what is there already; its value is `true`.
const ADOPT: &str = "weir.dev/adopt";
/// Objects of a kind that are told at the same time: Weir takes far more, the API server is asked for each.
const WIDTH: u16 = 16;
/// So often it is looked whether what needs one that ends is there still.
const SOON: Duration = Duration::from_secs(3);
/// So often a good one is told again: what was changed in Weir is put back.
const AGAIN: Duration = Duration::from_secs(300);

/// What every object needs.
struct Context {
    client: Client,
    connections: Connections,
    backoff: Backoff,
}

/// An object of Kubernetes that stands for one of Weir.
trait Entity:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    fn status(&self) -> Option<&ObjectStatus>;

    /// Makes Weir's what this says; gives its full name.
    fn put<'a>(&'a self, context: &'a Context) -> BoxFuture<'a, Result<String>>;

    /// Deletes it, or lets others change it, as its policy says.
    fn let_go<'a>(&'a self, context: &'a Context) -> BoxFuture<'a, Result<()>>;

    /// Whether something that needs it is there still, in words: then it is not let go yet.
    fn needed_by<'a>(&'a self, _: &'a Context) -> BoxFuture<'a, Result<Option<String>>> {
        Box::pin(async { Ok(None) })
    }

    /// Who keeps it, as Weir's API tells. With the uid: who later gets a namespace and a name gets nothing of who had them.
    fn keeper(&self) -> String {
        format!("{} in Kubernetes ({})", shown(self), self.uid().unwrap_or_default())
    }

    fn adopts(&self) -> bool {
        self.annotations().get(ADOPT).is_some_and(|value| value == "true")
    }
}

/// Kind, namespace and name.
fn shown<K: Entity>(object: &K) -> String {
    format!("{} {}/{}", K::kind(&()), object.namespace().unwrap_or_default(), object.name_any())
}

/// Keeps all objects of a namespace, or of every one, for ever.
pub(crate) async fn run(client: &Client, namespace: Option<&str>) {
    let context = Arc::new(Context {
        client: client.clone(),
        connections: Connections::default(),
        backoff: Backoff::default(),
    });
    tokio::join!(
        keep::<Tenant>(namespace, &context),
        keep::<DeviceProfile>(namespace, &context),
        keep::<Rule>(namespace, &context)
    );
}

async fn keep<K: Entity>(namespace: Option<&str>, context: &Arc<Context>) {
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(context.client.clone(), namespace),
        None => Api::all(context.client.clone()),
    };
    let work = Controller::new(api, watcher::Config::default())
        .with_config(controller::Config::default().concurrency(WIDTH))
        .run(reconcile::<K>, retry::<K>, Arc::clone(context));
    work.for_each(|done| async move {
        // What one object failed with is in its status, and in the log where it is retried.
        if let Err(error @ (controller::Error::QueueError(_) | controller::Error::RunnerError(_))) = done {
            tracing::warn!(kind = %K::kind(&()), error = %error, "a watch failed; it is tried again");
        }
    })
    .await;
}

async fn reconcile<K: Entity>(object: Arc<K>, context: Arc<Context>) -> Result<Action> {
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<K> = Api::namespaced(context.client.clone(), &namespace);
    if object.meta().deletion_timestamp.is_some() {
        return end(&api, &*object, &context).await;
    }
    if !object.finalizers().iter().any(|known| known == FINALIZER) {
        let mut all = object.finalizers().to_vec();
        all.push(FINALIZER.to_owned());
        finalizers(&api, &*object, all).await?;
    }
    let done = object.put(&context).await;
    tell(&api, &*object, &done).await?;
    match done {
        Ok(_) => {
            context.backoff.done(&object.keeper());
            Ok(Action::requeue(AGAIN))
        }
        // It says why in its status; what was meant is for a person to change.
        Err(error) if !is_passing(&error) => Ok(Action::requeue(AGAIN)),
        Err(error) => Err(error),
    }
}

/// Lets Weir's object go, then that of Kubernetes.
async fn end<K: Entity>(api: &Api<K>, object: &K, context: &Context) -> Result<Action> {
    if !object.finalizers().iter().any(|known| known == FINALIZER) {
        return Ok(Action::await_change());
    }
    if let Some(message) = object.needed_by(context).await? {
        let error = Error::new(ErrorKind::Unavailable, "STILL_NEEDED", message);
        tell(api, object, &Err(error)).await?;
        return Ok(Action::requeue(SOON));
    }
    match object.let_go(context).await {
        Ok(()) => {}
        // Nobody can be told any more, or Weir's object is another's.
        Err(error) if !is_passing(&error) || ends_anyway(object, &error) => {
            tracing::warn!(object = shown(object), error = %error, "left in Weir as it is");
        }
        Err(error) => {
            tell(api, object, &Err(Error::unavailable(error.message().to_owned()))).await?;
            return Err(error);
        }
    }
    context.backoff.done(&object.keeper());
    let rest = object.finalizers().iter().filter(|known| *known != FINALIZER).cloned().collect();
    match finalizers(api, object, rest).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(Action::await_change()),
    }
}

async fn finalizers<K: Entity>(api: &Api<K>, object: &K, finalizers: Vec<String>) -> Result<()> {
    // With the version: a list is replaced as a whole.
    let metadata = json!({ "finalizers": finalizers, "resourceVersion": object.resource_version() });
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    let done = api.patch(&object.name_any(), &PatchParams::default(), &patch).await;
    done.map(drop).map_err(|error| of_kube(&shown(object), error))
}

/// Whether time may mend it: Weir or the API server is away, or what it needs is not there yet.
fn is_passing(error: &Error) -> bool {
    error.kind().retryable()
        || matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Internal | ErrorKind::Unauthenticated)
        || is_alone(error)
}

/// Whether an object whose end cannot be told may end: its tenant or its cluster is gone, its tenant's tokens are refused, or
/// it never was in Weir.
fn ends_anyway<K: Entity>(object: &K, error: &Error) -> bool {
    let was_told = object.status().is_some_and(|status| status.name.is_some());
    is_alone(error)
        || error.kind() == ErrorKind::Unauthenticated
        || (error.reason() == place::TENANT_NOT_READY && !was_told)
}

/// Whether there is no tenant, or no cluster, that it could be told to.
fn is_alone(error: &Error) -> bool {
    [place::TENANT_NOT_FOUND, place::CLUSTER_NOT_FOUND].contains(&error.reason())
}

/// Writes the status where it says something new.
async fn tell<K: Entity>(api: &Api<K>, object: &K, done: &Result<String>) -> Result<()> {
    let old = object.status().cloned().unwrap_or_default();
    let new = status(&old, object.meta().generation, done, &Time(Timestamp::now()));
    if new == old {
        return Ok(());
    }
    let patch = json!({ "apiVersion": K::api_version(&()), "kind": K::kind(&()), "status": new });
    let params = PatchParams::apply(MANAGER).force();
    match api.patch_status(&object.name_any(), &params, &Patch::Apply(patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()), // it has gone meanwhile
        Err(error) => Err(of_kube(&shown(object), error)),
    }
}

/// The status after `done`, as kstatus reads it.
fn status(old: &ObjectStatus, generation: Option<i64>, done: &Result<String>, now: &Time) -> ObjectStatus {
    let condition = |r#type: &str, is: bool, reason: String, message: String| {
        let status = if is { "True" } else { "False" }.to_owned();
        let known = old.conditions.iter().find(|known| known.type_ == r#type && known.status == status);
        Condition {
            last_transition_time: known
                .map_or_else(|| now.clone(), |known| known.last_transition_time.clone()),
            message,
            observed_generation: generation,
            reason,
            status,
            type_: r#type.to_owned(),
        }
    };
    let (ready, other) = match done {
        Ok(name) => (condition("Ready", true, "Told".to_owned(), format!("{name} says the same")), None),
        Err(error) => {
            let (reason, message) = (camel(error.reason()), said(error));
            let kind = if is_passing(error) { "Reconciling" } else { "Stalled" };
            let other = condition(kind, true, reason.clone(), message.clone());
            (condition("Ready", false, reason, message), Some(other))
        }
    };
    let name = done.as_ref().ok().cloned().or_else(|| old.name.clone());
    ObjectStatus {
        observed_generation: generation,
        conditions: [Some(ready), other].into_iter().flatten().collect(),
        name,
    }
}

/// What is wrong, with the field.
fn said(error: &Error) -> String {
    match error.field() {
        Some(field) if !error.message().contains(field) => format!("{field}: {}", error.message()),
        _ => error.message().to_owned(),
    }
}

/// `RULE_INVALID` as reasons of conditions are written: `RuleInvalid`.
fn camel(reason: &str) -> String {
    let word = |word: &str| {
        let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        format!("{first}{}", rest.to_ascii_lowercase())
    };
    reason.split('_').map(word).collect()
}

/// The pause after a failure, longer each time.
fn retry<K: Entity>(object: Arc<K>, error: &Error, context: Arc<Context>) -> Action {
    let pause = context.backoff.failed(&object.keeper());
    tracing::warn!(object = shown(&*object), error = %error, pause_s = pause.as_secs(), "not told; tried again");
    Action::requeue(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time(Timestamp::from_second(seconds).unwrap())
    }

    #[test]
    fn a_good_one_is_ready_and_a_wrong_one_says_why_as_long_as_it_is() {
        let good = status(&ObjectStatus::default(), Some(1), &Ok("tenants/t/rules/r".to_owned()), &at(10));
        let ready = &good.conditions[0];
        assert_eq!(
            (ready.type_.as_str(), ready.status.as_str(), good.conditions.len()),
            ("Ready", "True", 1)
        );
        assert_eq!(good.name.as_deref(), Some("tenants/t/rules/r"));

        let wrong = Err(Error::invalid("rule.condition", "RULE_INVALID", "line 1, column 3: no such metric"));
        let bad = status(&good, Some(2), &wrong, &at(20));
        let said: Vec<_> =
            bad.conditions.iter().map(|one| (one.type_.as_str(), one.status.as_str())).collect();
        assert_eq!(said, [("Ready", "False"), ("Stalled", "True")]);
        assert_eq!(bad.conditions[0].reason, "RuleInvalid");
        assert_eq!(bad.conditions[0].message, "rule.condition: line 1, column 3: no such metric");
        assert_eq!(bad.name, good.name, "it is still there");
        assert_eq!(status(&bad, Some(2), &wrong, &at(30)), bad, "nothing new, not even a time");

        let away = status(&bad, Some(2), &Err(Error::unavailable("weir is away")), &at(40));
        assert_eq!(away.conditions[1].type_, "Reconciling");
        assert_eq!(away.conditions[0].last_transition_time, at(20), "it is not ready since then");
    }
}
