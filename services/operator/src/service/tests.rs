//! Reconciliations against an API server in memory, which an operator may lose after any single write.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::{
    Client,
    client::Body,
    runtime::events::{Recorder, Reporter},
};
use serde_json::{Value, json};
use weir_core::Result;
use weir_crd::WeirCluster;

use super::{Backoff, Context, Metrics, Pods, step};
use crate::{Binary, Certificates};

/// Objects by their path, and how many writes are still taken.
#[derive(Default)]
struct Server {
    objects: BTreeMap<String, Value>,
    version: u64,
    writes_left: Option<usize>,
    /// What was written, by method and path.
    written: Vec<String>,
    /// Paths that are refused, as the API server refuses a wrong object.
    refused: Vec<String>,
}

fn failed(code: StatusCode, message: &str) -> (StatusCode, Value) {
    let reason = if code == StatusCode::NOT_FOUND { "NotFound" } else { "Failed" };
    (
        code,
        json!({ "kind": "Status", "status": "Failure", "code": code.as_u16(), "message": message, "reason": reason }),
    )
}

/// As server-side apply: objects are merged, the rest is replaced.
fn merge(to: &mut Value, from: &Value) {
    match (to, from) {
        (Value::Object(to), Value::Object(from)) => {
            for (key, value) in from {
                merge(to.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (to, from) => *to = from.clone(),
    }
}

impl Server {
    fn answer(&mut self, method: &Method, path: &str, query: &str, body: &Value) -> (StatusCode, Value) {
        if *method == Method::GET {
            return self.read(path, query);
        }
        if self.writes_left == Some(0) {
            return failed(StatusCode::SERVICE_UNAVAILABLE, "the operator is no more");
        }
        if self.refused.iter().any(|refused| path.contains(refused)) {
            return failed(StatusCode::UNPROCESSABLE_ENTITY, "it is wrong");
        }
        self.writes_left = self.writes_left.map(|left| left - 1);
        self.written.push(format!("{method} {path}"));
        self.write(method, path, body)
    }

    fn read(&self, path: &str, query: &str) -> (StatusCode, Value) {
        if let Some(found) = self.objects.get(path) {
            return (StatusCode::OK, found.clone());
        }
        let is_name =
            path.rsplit('/').nth(1).is_some_and(|before| before != "namespaces" && !before.starts_with('v'))
                && path.split('/').rev().nth(2) == Some("ns");
        if is_name {
            return failed(StatusCode::NOT_FOUND, "not found");
        }
        let instance = query.contains("labelSelector");
        let inside = format!("{path}/");
        let items: Vec<Value> = self
            .objects
            .iter()
            .filter(|(key, object)| {
                key.starts_with(&inside)
                    && (!instance || object["metadata"]["labels"]["app.kubernetes.io/instance"] == "w")
            })
            .map(|(_, object)| object.clone())
            .collect();
        (StatusCode::OK, json!({ "kind": "List", "apiVersion": "v1", "metadata": {}, "items": items }))
    }

    fn write(&mut self, method: &Method, path: &str, body: &Value) -> (StatusCode, Value) {
        self.version += 1;
        if *method == Method::DELETE {
            self.objects.remove(path);
            return (StatusCode::OK, json!({ "kind": "Status", "status": "Success" }));
        }
        let name = body["metadata"]["name"].as_str().unwrap_or("event");
        let is_status = path.ends_with("/status");
        let key = match *method {
            Method::POST => format!("{path}/{name}"),
            _ => path.trim_end_matches("/status").to_owned(),
        };
        if *method == Method::POST && self.objects.contains_key(&key) {
            return failed(StatusCode::CONFLICT, "there is one");
        }
        let old = self.objects.get(&key).cloned().unwrap_or_else(|| json!({}));
        let is_stale = is_status && old["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"];
        if is_stale {
            return failed(StatusCode::CONFLICT, "it was changed");
        }
        let mut new = old.clone();
        match is_status {
            true => new["status"] = body["status"].clone(),
            false => merge(&mut new, body),
        }
        if let Some(given) = new["stringData"].as_object().cloned() {
            for (key, _) in given {
                new["data"][key] = json!("bmV3"); // in base64; which it is does not matter
            }
            new["stringData"] = Value::Null;
        }
        if new["spec"] != old["spec"] {
            new["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        if new != old {
            new["metadata"]["resourceVersion"] = json!(self.version.to_string());
        }
        self.objects.insert(key, new.clone());
        (StatusCode::OK, new)
    }

    /// What controllers and kubelets do: every workload becomes ready, every Job ends.
    fn work(&mut self) {
        for (path, object) in &mut self.objects {
            let replicas = object["spec"]["replicas"].as_i64().unwrap_or(1);
            let generation = object["metadata"]["generation"].clone();
            if path.contains("/deployments/") {
                object["status"] = json!({
                    "observedGeneration": generation, "replicas": replicas, "updatedReplicas": replicas,
                    "readyReplicas": replicas, "availableReplicas": replicas,
                });
            }
            if path.contains("/jobs/") {
                object["status"] = json!({ "succeeded": 1 });
            }
        }
    }
}

struct Fixed;

impl Binary for Fixed {
    fn pepper(&self) -> Result<String> {
        Ok("00".to_owned())
    }
    fn token(&self) -> Result<String> {
        Ok("wa_x".to_owned())
    }
    fn certificates(&self, _: &[String]) -> Result<Certificates> {
        Ok(Certificates { ca: "ca".to_owned(), cert: "cert".to_owned(), key: "key".to_owned() })
    }
    fn check_config(&self, _: &str) -> Result<()> {
        Ok(())
    }
}

const CLUSTER: &str = "/apis/weir.dev/v1alpha1/namespaces/ns/weirclusters/w";

fn server() -> Arc<Mutex<Server>> {
    let cluster = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "WeirCluster",
        "metadata": { "name": "w", "namespace": "ns", "uid": "u-1", "generation": 1, "resourceVersion": "1" },
        "spec": { "version": "1.0.0", "engines": { "shared": {
            "nats": { "servers": ["nats://nats:4222"] }, "cql": { "hosts": ["scylla"] },
        } } },
    });
    let server = Server { objects: [(CLUSTER.to_owned(), cluster)].into(), version: 1, ..Server::default() };
    Arc::new(Mutex::new(server))
}

/// An operator that has just started.
fn operator(server: &Arc<Mutex<Server>>) -> Context {
    drop(rustls::crypto::ring::default_provider().install_default()); // fails where another test has done it
    let server = Arc::clone(server);
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = Arc::clone(&server);
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let query = parts.uri.query().unwrap_or_default();
            let (code, answer) = server.lock().unwrap().answer(&parts.method, parts.uri.path(), query, &body);
            let answer = Body::from(serde_json::to_vec(&answer).unwrap());
            Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(answer).unwrap())
        }
    });
    let client = Client::new(service, "ns");
    Context {
        recorder: Recorder::new(client.clone(), Reporter::from("weir-operator")),
        client,
        binary: Arc::new(Fixed),
        metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
        backoff: Backoff::default(),
        pods: Pods::new().unwrap(),
        refused: Mutex::default(),
        scaled: Mutex::default(),
    }
}

fn cluster(server: &Arc<Mutex<Server>>) -> WeirCluster {
    serde_json::from_value(server.lock().unwrap().objects[CLUSTER].clone()).unwrap()
}

async fn settle(server: &Arc<Mutex<Server>>) {
    let operator = operator(server);
    for _ in 0..12 {
        step(&cluster(server), &operator).await.unwrap();
        server.lock().unwrap().work();
    }
}

fn ready(server: &Arc<Mutex<Server>>) -> (String, String) {
    let status = cluster(server).status.unwrap();
    let ready = status.conditions.iter().find(|known| known.type_ == "Ready").unwrap();
    (ready.status.clone(), ready.reason.clone())
}

fn images(server: &Arc<Mutex<Server>>) -> Vec<String> {
    let server = server.lock().unwrap();
    let found = server.objects.iter().filter(|(path, _)| path.contains("/deployments/"));
    found
        .map(|(_, object)| {
            object["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
        })
        .collect()
}

fn upgrade(server: &Arc<Mutex<Server>>, version: &str) {
    let mut server = server.lock().unwrap();
    let cluster = server.objects.get_mut(CLUSTER).unwrap();
    cluster["spec"]["version"] = json!(version);
    cluster["metadata"]["generation"] = json!(cluster["metadata"]["generation"].as_i64().unwrap() + 1);
}

#[tokio::test]
async fn a_cluster_becomes_ready_and_then_nothing_is_changed_any_more() {
    let server = server();
    settle(&server).await;
    assert_eq!(ready(&server), ("True".to_owned(), "Available".to_owned()));
    assert_eq!(images(&server), vec!["weir:1.0.0"; 5]);
    let before = server.lock().unwrap().objects.clone();
    settle(&server).await;
    assert_eq!(server.lock().unwrap().objects, before, "applying again changes nothing");
}

#[tokio::test]
async fn an_operator_that_is_killed_after_each_single_write_of_an_upgrade_still_completes_it() {
    let server = server();
    settle(&server).await;
    upgrade(&server, "1.1.0");
    let mut steps = 0;
    // The objects are applied each time, so that one that lives for `writes` writes gets that far and no further.
    for writes in (0..60).cycle().take(900) {
        server.lock().unwrap().writes_left = Some(writes);
        drop(step(&cluster(&server), &operator(&server)).await); // it ended somewhere in there
        server.lock().unwrap().writes_left = None;
        server.lock().unwrap().work();
        steps += 1;
        if ready(&server).0 == "True" && images(&server) == vec!["weir:1.1.0"; 5] {
            break;
        }
    }
    assert_eq!(images(&server), vec!["weir:1.1.0"; 5], "after {steps} operators");
    settle(&server).await;
    assert_eq!(ready(&server), ("True".to_owned(), "Available".to_owned()));
    assert_eq!(server.lock().unwrap().objects.keys().filter(|path| path.contains("/configmaps/")).count(), 1);
}

#[tokio::test]
async fn what_the_api_server_refuses_is_told_and_the_rest_goes_on() {
    let server = server();
    server.lock().unwrap().refused.push("/services/w-mqtt".to_owned());
    let operator = operator(&server);
    for _ in 0..12 {
        drop(step(&cluster(&server), &operator).await); // it fails, and is tried again
        server.lock().unwrap().work();
    }
    assert_eq!(ready(&server), ("False".to_owned(), "ApplyRefused".to_owned()));
    assert_eq!(images(&server).len(), 5);
    server.lock().unwrap().refused.clear();
    settle(&server).await;
    assert_eq!(ready(&server), ("True".to_owned(), "Available".to_owned()));
}

#[tokio::test]
async fn a_status_that_somebody_else_wrote_stops_an_operator_that_lost_its_lease() {
    let server = server();
    settle(&server).await;
    upgrade(&server, "1.1.0");
    let stale = cluster(&server);
    let newer = stale.metadata.resource_version.clone();
    settle(&server).await;
    assert_ne!(cluster(&server).metadata.resource_version, newer);
    let operator = operator(&server);
    let status = weir_crd::ClusterStatus::default();
    let refused = crate::apply::status(&operator.client, &stale, &status).await.unwrap_err();
    assert_eq!(refused.reason(), "CONFLICT");
}

#[tokio::test]
async fn secrets_are_made_once_and_what_is_there_stays() {
    let server = server();
    let path = "/api/v1/namespaces/ns/secrets";
    let given = json!({ "metadata": { "name": "w-secrets" }, "data": { "token": "bWluZQ==" } });
    server.lock().unwrap().write(&Method::POST, path, &given);
    settle(&server).await;
    let server = server.lock().unwrap();
    let own = &server.objects[&format!("{path}/w-secrets")];
    assert_eq!(own["data"]["token"], "bWluZQ==");
    assert!(own["data"]["pepper"].is_string() && own["metadata"].get("ownerReferences").is_none());
    let writes = server.written.iter().filter(|written| written.contains("/secrets")).count();
    assert_eq!(writes, 2, "the missing pepper and the certificates, each once");
}
