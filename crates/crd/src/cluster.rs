//! `WeirCluster`: one Weir.

// KubeSchema repeats its types inside of a function.
#![allow(unreachable_pub)]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{schema, status::ClusterStatus};

/// One Weir: its engines, its services, and how they are reached.
#[derive(Debug, Clone, PartialEq, CustomResource, KubeSchema, Serialize, Deserialize)]
#[kube(
    group = "weir.dev",
    version = "v1alpha1",
    kind = "WeirCluster",
    plural = "weirclusters",
    shortname = "weir",
    category = "all",
    namespaced,
    derive = "PartialEq",
    status = "ClusterStatus",
    doc = "One Weir: its engines, its services, and how they are reached.",
    printcolumn(
        name = "Version",
        type_ = "string",
        description = "What runs, as rolled out last",
        json_path = ".status.lastGood.version"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        description = "Whether all of it serves",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Why",
        type_ = "string",
        description = "The reason of it",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("the name begins the names of Services: 1 to 40 of [a-z0-9-], a letter first")
)]
#[serde(rename_all = "camelCase")]
pub struct WeirClusterSpec {
    /// The release to run: the image's tag. A new one is rolled out service by service, each gated on readiness, and taken
    /// back where it does not become ready.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"))]
    pub version: String,
    /// Where the image comes from.
    #[serde(default)]
    pub image: Image,
    /// What carries the log and keeps the data; the kind is chosen once.
    pub engines: Engines,
    /// The Secret with the pepper under which tokens are hashed (key `pepper`) and the first token (key `token`). What is
    /// missing in it is made, once; it outlives the cluster. `NAME-secrets` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// By what the services know each other.
    #[serde(default)]
    pub tls: Tls,
    /// How many of each service and where: `registry`, `ingest`, `storage`, `analytics`, `commands`; with embedded engines
    /// `all`, alone.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 6))]
    #[x_kube(validation = Rule::new("self.all(key, key in ['all', 'registry', 'ingest', 'storage', 'analytics', 'commands'])")
        .message("services are registry, ingest, storage, analytics, commands; with embedded engines all"))]
    pub services: BTreeMap<String, ServiceSpec>,
    /// How devices and people reach it.
    #[serde(default)]
    pub exposure: Exposure,
    /// Whether to allow only the traffic that the services need.
    #[serde(default = "yes")]
    pub network_policies: bool,
    /// What to tell Prometheus' operator.
    #[serde(default)]
    pub monitoring: Monitoring,
    /// Further keys of weir.toml, by section (docs/configuration.md). A key that the operator sets itself is refused.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::any_object")]
    pub config: Map<String, Value>,
    /// How a change is rolled out.
    #[serde(default)]
    pub rollout: RolloutSpec,
    /// Whose `Tenant` objects may name this Weir.
    #[serde(default)]
    pub allowed_tenants: AllowedTenants,
    /// Leaves everything as it is while true.
    #[serde(default)]
    pub paused: bool,
}

/// Whose `Tenant` objects may name a Weir: those of its own namespace, and of these.
#[derive(Debug, Clone, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AllowedTenants {
    /// Namespaces with all of these labels; an empty object admits every namespace, none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<NamespaceSelector>,
}

/// Namespaces by their labels.
#[derive(Debug, Clone, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceSelector {
    /// Labels and their values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

fn yes() -> bool {
    true
}

/// Where the image comes from.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Image {
    /// Registry and path, without a tag.
    #[schemars(length(min = 1, max = 255))]
    pub repository: String,
    /// `IfNotPresent`, `Always` or `Never`.
    pub pull_policy: PullPolicy,
    /// Names of Secrets with the registry's credentials.
    #[schemars(length(max = 8))]
    pub pull_secrets: Vec<String>,
}

impl Default for Image {
    fn default() -> Self {
        Self { repository: "weir".to_owned(), pull_policy: PullPolicy::default(), pull_secrets: Vec::new() }
    }
}

/// When the kubelet pulls an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Where it is not there.
    #[default]
    IfNotPresent,
    /// At each start.
    Always,
    /// It is put there by other means.
    Never,
}

impl PullPolicy {
    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IfNotPresent => "IfNotPresent",
            Self::Always => "Always",
            Self::Never => "Never",
        }
    }
}

/// What carries the log and keeps the data: exactly one kind.
#[derive(Debug, Clone, PartialEq, Eq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.embedded) != has(self.shared)").message("give exactly one of embedded and shared"),
    validation = Rule::new("has(self.embedded) == has(oldSelf.embedded)")
        .message("embedded engines do not become shared ones, nor the other way round: the data would stay behind"),
)]
pub struct Engines {
    /// Files on a volume of one pod, which is all services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedded: Option<Embedded>,
    /// NATS JetStream and CQL, for services of any number of pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<Shared>,
}

/// Files on a volume of one pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Embedded {
    /// The volume; it outlives the cluster. A StatefulSet cannot change it.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("a StatefulSet cannot change its volume"))]
    pub storage: Storage,
    /// What an acknowledgement survives.
    #[serde(default)]
    pub durability: Durability,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Storage {
    /// Its size.
    #[schemars(length(max = 32), regex(pattern = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$"))]
    pub size: String,
    /// Its class; that of the cluster if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
}

impl Default for Storage {
    fn default() -> Self {
        Self { size: "10Gi".to_owned(), storage_class_name: None } // above the 8 GiB at which a stream refuses
    }
}

/// What an acknowledgement survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// A power cut.
    #[default]
    PowerLoss,
    /// The end of the process, not of the machine.
    Process,
}

/// Engines that many processes share.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shared {
    /// The log.
    pub nats: Nats,
    /// The store.
    pub cql: Cql,
}

/// NATS JetStream.
#[derive(Debug, Clone, PartialEq, Eq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nats {
    /// Addresses of servers: `nats://host:4222` or `tls://host:4222`.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(max = 256), regex(pattern = r"^(nats|tls)://[^/@]+$"))
    )]
    pub servers: Vec<String>,
    /// On how many servers each stream is kept.
    #[serde(default = "one")]
    #[x_kube(validation = Rule::new("self in [1, 3, 5]").message("1, 3 or 5"))]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: i32,
    /// Declares that every server runs with `sync_interval: always`, so that an acknowledgement survives a power cut.
    #[serde(default)]
    pub sync_always: bool,
    /// Begins the names of all streams, buckets and subjects.
    #[serde(default = "weir")]
    #[schemars(regex(pattern = r"^[a-z0-9-]{1,32}$"))]
    pub prefix: String,
    /// The Secret by which it is logged in, with the keys that `authMethod` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub auth_secret_name: Option<String>,
    /// What the Secret holds.
    #[serde(default)]
    pub auth_method: NatsAuth,
    /// The Secret whose key `ca.crt` has the authorities of the servers' certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub ca_secret_name: Option<String>,
}

/// How NATS knows its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
pub enum NatsAuth {
    /// Keys `username` and `password`.
    #[default]
    Password,
    /// Key `token`.
    Token,
    /// Key `nkey`: the seed.
    NKey,
    /// Key `creds`: JWT and seed, as `nsc` writes them.
    Creds,
}

/// ScyllaDB or Apache Cassandra.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cql {
    /// Some of the nodes, `host` or `host:port`.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 256)))]
    pub hosts: Vec<String>,
    /// The keyspace, made where it is missing.
    #[serde(default = "weir")]
    #[schemars(regex(pattern = r"^[a-z][a-z0-9_]{0,47}$"))]
    pub keyspace: String,
    /// How many nodes hold each row; used when the keyspace is made.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 9))]
    pub replication_factor: i32,
    /// The data centre that holds the rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub data_center: Option<String>,
    /// The Secret with the keys `username` and `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub auth_secret_name: Option<String>,
    /// The Secret whose key `ca.crt` has the authorities of the servers' certificates; it turns on TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub ca_secret_name: Option<String>,
}

fn one() -> i32 {
    1
}
fn three() -> i32 {
    3
}
fn weir() -> String {
    "weir".to_owned()
}

/// By what the services know each other.
#[derive(Debug, Clone, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tls {
    /// A Secret that somebody else keeps, with `tls.crt`, `tls.key` and `ca.crt`; the certificate has the URI
    /// `spiffe://weir/service` and the names of the Services. With shared engines `NAME-tls` is made if absent; with
    /// embedded ones gRPC is then in the clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
}

/// How many of a service and where.
#[derive(Debug, Clone, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// How many, with `scaling.mode: Fixed`; 1 if absent. Embedded engines have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub replicas: Option<i32>,
    /// Who says how many.
    pub scaling: Scaling,
    /// Requests and limits of its pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Labels of the nodes it may run on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// As of a pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::any_objects")]
    pub tolerations: Vec<Map<String, Value>>,
    /// As of a pod.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::any_object")]
    pub affinity: Map<String, Value>,
    /// Whether to spread its pods over nodes and zones, as far as these are there.
    pub topology_spread: bool,
    /// Whether at most one of its pods may be evicted at a time.
    pub pod_disruption_budget: bool,
    /// Environment variables of its pods: `WEIR__SECTION__KEY` for one key of its configuration.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

impl Default for ServiceSpec {
    fn default() -> Self {
        Self {
            replicas: None,
            scaling: Scaling::default(),
            resources: None,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: Map::new(),
            topology_spread: true,
            pod_disruption_budget: true,
            env: BTreeMap::new(),
        }
    }
}

/// Who says how many pods there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scaling {
    /// `Fixed`: `replicas`. `Auto`: the operator, by lag (storage, analytics) or by connections and full windows (ingest).
    /// `External`: somebody else, such as a HorizontalPodAutoscaler; the operator then says nothing.
    pub mode: ScalingMode,
    /// `Auto`: never fewer.
    #[schemars(range(min = 1, max = 100))]
    pub min: i32,
    /// `Auto`: never more. Storage and analytics have work for at most as many as there are partitions (16).
    #[schemars(range(min = 1, max = 100))]
    pub max: i32,
    /// `Auto` of storage and analytics: what waits in the log is to be gone within this many seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub lag_gone_within_seconds: i32,
    /// `Auto` of ingest: connections that one pod is to hold.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_pod: i32,
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            mode: ScalingMode::default(),
            min: 1,
            max: 5,
            lag_gone_within_seconds: 60,
            connections_per_pod: 20_000,
        }
    }
}

/// Who says how many pods there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
pub enum ScalingMode {
    /// `replicas`.
    #[default]
    Fixed,
    /// The operator.
    Auto,
    /// Somebody else.
    External,
}

/// Requests and limits, as of a container.
#[derive(Debug, Clone, PartialEq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// What the scheduler keeps free for it.
    #[schemars(schema_with = "schema::quantities")]
    pub requests: BTreeMap<String, Value>,
    /// What it may use.
    #[schemars(schema_with = "schema::quantities")]
    pub limits: BTreeMap<String, Value>,
}

/// How devices and people reach it: one Service for each protocol.
#[derive(Debug, Clone, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Exposure {
    /// Service `NAME-mqtt`: devices.
    pub mqtt: Exposed,
    /// Service `NAME-http`: devices.
    pub http: Exposed,
    /// Service `NAME-grpc`: people and their programs.
    pub grpc: Exposed,
}

/// One Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Exposed {
    /// Its type.
    pub r#type: ServiceType,
    /// Its port: 1883 for MQTT, 8080 for HTTP, 8081 for gRPC if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Its annotations, for whoever makes load balancers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The type of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
pub enum ServiceType {
    /// Reached from inside, or through an Ingress or Gateway of yours.
    #[default]
    ClusterIP,
    /// A port of every node.
    NodePort,
    /// A load balancer of the cloud.
    LoadBalancer,
}

impl ServiceType {
    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// What to tell Prometheus' operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Monitoring {
    /// Whether to make a ServiceMonitor.
    pub service_monitor: bool,
    /// Whether to make a PrometheusRule: recording rules of what is promised, and alerts. In one WeirCluster of those that a
    /// Prometheus scrapes: its rules look at all of them.
    pub prometheus_rule: bool,
}

/// How a change is rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutSpec {
    /// Seconds that one stage may take to become ready before everything goes back to what was good last.
    #[schemars(range(min = 10, max = 86400))]
    pub stage_timeout_seconds: i32,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self { stage_timeout_seconds: 300 } // images are pulled and partitions handed over in it
    }
}
