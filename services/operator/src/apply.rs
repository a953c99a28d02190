//! Writing what is desired.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Map, Value, json};
use weir_core::{ErrorKind, Result};
use weir_crd::{ClusterStatus, WeirCluster};

use crate::{
    Binary, MANAGER,
    desired::{LABEL_INSTANCE, MANAGED, MissingSecret, Plan, Refused, name_of},
    error::of_kube,
    kinds,
};

/// Applies every object, as far as the API server takes it. What it refuses is given back; the rest goes on.
///
/// # Errors
/// Those of the API server that a retry can help.
pub(crate) async fn objects(client: &Client, namespace: &str, plan: &Plan) -> Result<Vec<Refused>> {
    let params = PatchParams::apply(MANAGER).force().validation_strict();
    let mut refused = Vec::new();
    for object in &plan.objects {
        let Some(kind) = kinds::of(object) else { continue };
        let name = name_of(object);
        let what = format!("{} {name}", kind.kind);
        let api = kinds::api(client, namespace, &kind);
        match api.patch(name, &params, &Patch::Apply(object)).await.map_err(|error| of_kube(&what, error)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
            Err(error) => refused.push(Refused { kind: kind.kind, message: error.message().to_owned() }),
        }
    }
    Ok(refused)
}

/// Removes what is the cluster's and is not wanted any more.
///
/// # Errors
/// Those of the API server.
pub(crate) async fn prune(client: &Client, cluster: &WeirCluster, plan: &Plan) -> Result<()> {
    let namespace = cluster.namespace().unwrap_or_default();
    let labels = format!("{LABEL_INSTANCE}={},{MANAGED}", cluster.name_any());
    let wanted: BTreeSet<(&str, &str)> = plan
        .objects
        .iter()
        .map(|object| (object.get("kind").and_then(Value::as_str).unwrap_or_default(), name_of(object)))
        .collect();
    for kind in kinds::all() {
        let api = kinds::api(client, &namespace, &kind);
        let found = match api.list_metadata(&ListParams::default().labels(&labels)).await {
            Ok(found) => found,
            // A kind that is not installed, or that this operator may not see, has no objects of it.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => continue,
            Err(error) => return Err(of_kube(&kind.plural, error)),
        };
        for object in found.items {
            let name = object.name_any();
            let is_owned = object
                .owner_references()
                .iter()
                .any(|owner| Some(&owner.uid) == cluster.metadata.uid.as_ref());
            let is_wanted =
                wanted.contains(&(kind.kind.as_str(), name.as_str())) || plan.keep.contains(&name);
            if !is_owned || is_wanted {
                continue;
            }
            match api.delete(&name, &DeleteParams::background()).await {
                Ok(_) => tracing::info!(kind = kind.kind, name, "removed what is not wanted any more"),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(of_kube(&format!("{} {name}", kind.kind), error)),
            }
        }
    }
    Ok(())
}

/// Makes what is missing in a Secret; what is there is not touched, and where somebody else was faster theirs stays.
///
/// # Errors
/// Those of the API server, and of whoever makes the values.
pub(crate) async fn secret(
    client: &Client,
    cluster: &WeirCluster,
    missing: &MissingSecret,
    binary: &dyn Binary,
) -> Result<()> {
    let namespace = cluster.namespace().unwrap_or_default();
    let mut values = Map::new();
    for key in &missing.keys {
        match *key {
            "pepper" => drop(values.insert((*key).to_owned(), json!(binary.pepper()?))),
            "token" => drop(values.insert((*key).to_owned(), json!(binary.token()?))),
            _ => {}
        }
    }
    if missing.keys.contains("tls.crt") {
        let made = binary.certificates(&missing.certificate_names)?;
        values.insert("ca.crt".to_owned(), json!(made.ca));
        values.insert("tls.crt".to_owned(), json!(made.cert));
        values.insert("tls.key".to_owned(), json!(made.key));
    }
    let api: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let what = format!("Secret {}", missing.name);
    if missing.is_absent {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            // No owner: without it the data that outlives the cluster could not be read.
            "metadata": { "name": missing.name, "labels": {
                "app.kubernetes.io/name": "weir", LABEL_INSTANCE: cluster.name_any(),
                "app.kubernetes.io/managed-by": MANAGER,
            } },
            "stringData": values,
        });
        let secret: Secret = serde_json::from_value(secret)
            .map_err(|source| weir_core::Error::internal("a Secret cannot be written").with_source(source))?;
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        api.create(&params, &secret).await.map_err(|error| of_kube(&what, error))?;
    } else {
        let known = api.get_metadata(&missing.name).await.map_err(|error| of_kube(&what, error))?;
        // With its version, so that nothing that somebody wrote meanwhile is overwritten.
        let patch =
            json!({ "metadata": { "resourceVersion": known.resource_version() }, "stringData": values });
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        api.patch(&missing.name, &params, &Patch::Merge(patch))
            .await
            .map_err(|error| of_kube(&what, error))?;
    }
    tracing::info!(secret = missing.name, keys = ?missing.keys, "made what was missing");
    Ok(())
}

/// Writes the status, unless it is what stands there. A status that somebody else has written meanwhile stays: an operator
/// that lost its lease and does not know it goes no further.
///
/// # Errors
/// `CONFLICT` then; those of the API server.
pub(crate) async fn status(client: &Client, cluster: &WeirCluster, status: &ClusterStatus) -> Result<()> {
    if cluster.status.as_ref() == Some(status) {
        return Ok(());
    }
    let namespace = cluster.namespace().unwrap_or_default();
    let api: Api<WeirCluster> = Api::namespaced(client.clone(), &namespace);
    let new = WeirCluster { status: Some(status.clone()), ..cluster.clone() };
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let done = api.replace_status(&cluster.name_any(), &params, &new).await;
    done.map(drop).map_err(|error| of_kube("status", error))
}
