//! weir.toml: what the operator sets, over what `spec.config` adds.

use serde_json::{Map, Value, json};
use weir_crd::{Cql, Durability, Nats, NatsAuth, WeirCluster};

use super::names::{Names, SHARED, hash};

/// Where the projected volume with weir.toml and all secrets is mounted.
pub(super) const ETC: &str = "/etc/weir";
/// Where embedded engines keep their data.
pub(super) const DATA: &str = "/var/lib/weir";
/// How long a pod goes on after it says not ready: kube-proxy on every node has heard of it by then.
const ENDPOINT_DELAY_S: i64 = 5;
/// How long the rest of its end may take.
const DRAIN_S: i64 = 15;
/// Above both and the second that each listener may take: the kubelet kills a pod that is still there then.
pub(super) const GRACE_S: i64 = ENDPOINT_DELAY_S + DRAIN_S + 10;

/// The configuration of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configured {
    /// weir.toml, or what is wrong with `spec.config`.
    pub text: Result<String, String>,
}

impl Configured {
    /// By what it is told from other configurations.
    pub(super) fn hash(&self) -> String {
        hash(self.text.as_deref().unwrap_or_default())
    }
}

/// Makes weir.toml.
pub(super) fn configure(
    cluster: &WeirCluster,
    names: &Names,
    check: impl FnOnce(&str) -> weir_core::Result<()>,
) -> Configured {
    let mut config = ours(cluster, names);
    let text = merge(&mut config, &cluster.spec.config, "").and_then(|()| {
        let text =
            toml::to_string(&Value::Object(config)).map_err(|error| format!("spec.config: {error}"))?;
        check(&text).map_err(|error| format!("spec.config: {error}"))?;
        Ok(text)
    });
    Configured { text }
}

/// Adds `theirs` to `ours`.
fn merge(ours: &mut Map<String, Value>, theirs: &Map<String, Value>, path: &str) -> Result<(), String> {
    for (key, value) in theirs {
        let path = format!("{path}{key}");
        match (ours.get_mut(key), value) {
            (_, Value::Null) => return Err(format!("spec.config.{path} has no value")),
            (None, Value::Object(theirs)) => {
                let mut inner = Map::new();
                merge(&mut inner, theirs, &format!("{path}."))?;
                ours.insert(key.clone(), Value::Object(inner));
            }
            (None, value) => drop(ours.insert(key.clone(), value.clone())),
            (Some(Value::Object(ours)), Value::Object(theirs)) => merge(ours, theirs, &format!("{path}."))?,
            (Some(ours), theirs) if ours == theirs => {}
            (Some(_), _) => return Err(format!("spec.config.{path} is set by the operator; leave it out")),
        }
    }
    Ok(())
}

/// What the operator sets.
fn ours(cluster: &WeirCluster, names: &Names) -> Map<String, Value> {
    let is_shared = cluster.spec.engines.shared.is_some();
    // Where there is one pod, nobody else takes the load while it waits.
    let delay = if is_shared { ENDPOINT_DELAY_S } else { 0 };
    let mut config = Map::new();
    let mut section = |name: &str, keys: Value| drop(config.insert(name.to_owned(), keys));
    section("auth", json!({ "pepper_file": format!("{ETC}/secrets/pepper") }));
    section("drain", json!({ "endpoint_delay": format!("{delay}s"), "deadline": format!("{DRAIN_S}s") }));
    section(
        "listen",
        json!({
            "address": "0.0.0.0", "mqtt_port": 1883, "http_port": 8080, "grpc_port": 8081, "admin_port": 8082,
        }),
    );
    if is_shared || cluster.spec.tls.secret_name.is_some() {
        let file = |name: &str| format!("{ETC}/tls/{name}");
        section(
            "tls",
            json!({ "ca_file": file("ca.crt"), "cert_file": file("tls.crt"), "key_file": file("tls.key") }),
        );
    }
    match (&cluster.spec.engines.embedded, &cluster.spec.engines.shared) {
        (_, Some(shared)) => {
            let durability = if shared.nats.sync_always { "power-loss" } else { "process" };
            section("log", json!({ "engine": "nats", "durability": durability }));
            section("nats", nats(&shared.nats));
            section("store", json!({ "engine": "cql" }));
            section("cql", cql(&shared.cql));
            let peers = SHARED.iter().map(|service| {
                ((*service).to_owned(), json!([format!("https://{}:8081", names.of(service))]))
            });
            section("peers", Value::Object(peers.collect()));
        }
        (embedded, None) => {
            let durability = embedded.as_ref().map(|embedded| embedded.durability).unwrap_or_default();
            let durability = match durability {
                Durability::PowerLoss => "power-loss",
                Durability::Process => "process",
            };
            section("log", json!({ "engine": "embedded", "durability": durability }));
            section("store", json!({ "engine": "embedded" }));
            section("data", json!({ "dir": DATA }));
        }
    }
    config
}

fn nats(nats: &Nats) -> Value {
    let mut keys = json!({
        "servers": nats.servers, "replicas": nats.replicas, "sync_always": nats.sync_always, "prefix": nats.prefix,
    });
    if nats.auth_secret_name.is_some() {
        // The user's name comes by the environment, since it stands in the Secret.
        let (key, file) = match nats.auth_method {
            NatsAuth::Password => ("password_file", "password"),
            NatsAuth::Token => ("token_file", "token"),
            NatsAuth::NKey => ("nkey_file", "nkey"),
            NatsAuth::Creds => ("creds_file", "creds"),
        };
        super::names::set(&mut keys, key, json!(format!("{ETC}/nats/{file}")));
    }
    if nats.ca_secret_name.is_some() {
        super::names::set(&mut keys, "ca_file", json!(format!("{ETC}/nats/ca.crt")));
    }
    keys
}

fn cql(cql: &Cql) -> Value {
    let mut keys = json!({
        "hosts": cql.hosts, "keyspace": cql.keyspace, "replication_factor": cql.replication_factor,
    });
    if let Some(data_center) = &cql.data_center {
        super::names::set(&mut keys, "data_center", json!(data_center));
    }
    if cql.auth_secret_name.is_some() {
        super::names::set(&mut keys, "password_file", json!(format!("{ETC}/cql/password")));
    }
    if cql.ca_secret_name.is_some() {
        super::names::set(&mut keys, "tls", json!({ "ca_file": format!("{ETC}/cql/ca.crt") }));
    }
    keys
}

/// The ConfigMap of a configuration. What a release was rolled out with never changes.
pub(super) fn config_map(names: &Names, name: &str, text: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": names.metadata(name, "config"),
        "immutable": true,
        "data": { "weir.toml": text },
    })
}
