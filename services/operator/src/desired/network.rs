//! Services and NetworkPolicies: the arrows of ARCHITECTURE.md, and nothing else.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weir_crd::{Exposed, ServiceType, WeirCluster};

use super::names::{ALL, MIGRATE, Names, SCALED, components, edge, set};

/// Who asks whom over gRPC. Everybody asks registry who is who; analytics reads telemetry and sends commands; ingest hands
/// out commands, and hands on calls of users for every other service.
pub const ARROWS: [(&str, &str); 9] = [
    ("ingest", "registry"),
    ("storage", "registry"),
    ("analytics", "registry"),
    ("commands", "registry"),
    ("analytics", "storage"),
    ("analytics", "commands"),
    ("ingest", "commands"),
    ("ingest", "storage"),
    ("ingest", "analytics"),
];

const GRPC: u16 = 8081;
const ADMIN: u16 = 8082;
/// Protocols that come from outside: name, port in the pod, and who has it in `spec.exposure`.
const OUTSIDE: [(&str, u16); 3] = [("mqtt", 1883), ("http", 8080), ("grpc", GRPC)];
const NATS_PORT: u16 = 4222;
const CQL_PORT: u16 = 9042;

/// Services: one for each protocol from outside, and one without an address of its own for each component.
pub(super) fn services(cluster: &WeirCluster, names: &Names) -> Vec<Value> {
    let exposure = &cluster.spec.exposure;
    let exposed = [&exposure.mqtt, &exposure.http, &exposure.grpc];
    let outside = OUTSIDE
        .iter()
        .zip(exposed)
        .map(|((protocol, port), exposed)| service(names, protocol, edge(cluster), *port, Some(exposed)));
    let inside = components(cluster).iter().map(|component| service(names, component, component, GRPC, None));
    outside.chain(inside).collect()
}

/// One Service; without an address of its own where it is not `exposed`, so that callers see every pod.
fn service(names: &Names, what: &str, component: &str, port: u16, exposed: Option<&Exposed>) -> Value {
    let protocol = if exposed.is_some() { what } else { "grpc" };
    let entry =
        |name: &str, port: u16| json!({ "name": name, "port": port, "targetPort": name, "protocol": "TCP" });
    let mut ports = vec![entry(protocol, exposed.and_then(|exposed| exposed.port).unwrap_or(port))];
    ports.extend(exposed.is_none().then(|| entry("admin", ADMIN)));
    let mut metadata = names.metadata(&names.of(what), component);
    let mut spec = json!({ "selector": names.selector(component), "ports": ports });
    match exposed {
        None => set(&mut spec, "clusterIP", json!("None")),
        Some(exposed) => {
            set(&mut spec, "type", json!(exposed.r#type.as_str()));
            // Keeps the address of the device, and spares a hop.
            if exposed.r#type == ServiceType::LoadBalancer {
                set(&mut spec, "externalTrafficPolicy", json!("Local"));
            }
            if !exposed.annotations.is_empty() {
                set(&mut metadata, "annotations", json!(exposed.annotations));
            }
        }
    }
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec })
}

/// NetworkPolicies: one for each component, and one for the Job.
pub(super) fn policies(cluster: &WeirCluster, names: &Names) -> Vec<Value> {
    if !cluster.spec.network_policies {
        return Vec::new();
    }
    let jobs: &[&str] = if cluster.spec.engines.shared.is_some() { &[MIGRATE] } else { &[] };
    components(cluster).iter().chain(jobs).map(|component| policy(cluster, names, component)).collect()
}

fn policy(cluster: &WeirCluster, names: &Names, component: &str) -> Value {
    let pods = |component: &str| json!({ "podSelector": { "matchLabels": names.selector(component) } });
    let mut ingress = Vec::new();
    let callers: Vec<Value> =
        ARROWS.iter().filter(|(_, to)| *to == component).map(|(from, _)| pods(from)).collect();
    if !callers.is_empty() {
        ingress.push(json!({ "from": callers, "ports": [tcp(GRPC)] }));
    }
    if component == edge(cluster) {
        let ports: Vec<Value> = OUTSIDE.iter().map(|(_, port)| tcp(*port)).collect();
        ingress.push(json!({ "ports": ports }));
    }
    if SCALED.contains(&component) {
        // Whose load the operator asks for; it may be in another namespace.
        let operator = json!({
            "matchLabels": { "app.kubernetes.io/name": "weir", "app.kubernetes.io/component": "operator" },
        });
        let from = json!([{ "namespaceSelector": {}, "podSelector": operator }]);
        ingress.push(json!({ "from": from, "ports": [tcp(ADMIN)] }));
    }
    if cluster.spec.monitoring.service_monitor && component != MIGRATE {
        ingress.push(json!({ "from": [{ "namespaceSelector": {} }], "ports": [tcp(ADMIN)] }));
    }
    let mut egress = vec![json!({ "ports": [
        { "port": 53, "protocol": "UDP" }, { "port": 53, "protocol": "TCP" },
    ] })];
    let called: Vec<Value> =
        ARROWS.iter().filter(|(from, _)| *from == component).map(|(_, to)| pods(to)).collect();
    if !called.is_empty() {
        egress.push(json!({ "to": called, "ports": [tcp(GRPC)] }));
    }
    if cluster.spec.engines.shared.is_some() {
        egress.push(json!({ "ports": engine_ports(cluster) }));
    }
    // Webhooks go where a rule says.
    if matches!(component, "analytics" | ALL) {
        egress.push(
            json!({ "to": [{ "ipBlock": { "cidr": "0.0.0.0/0" } }, { "ipBlock": { "cidr": "::/0" } }] }),
        );
    }
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": names.metadata(&names.of(component), component),
        "spec": {
            "podSelector": { "matchLabels": names.selector(component) },
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    })
}

fn tcp(port: u16) -> Value {
    json!({ "port": port, "protocol": "TCP" })
}

/// The ports of bus and store. A policy cannot name hosts, and further ones are learned from those that are configured.
fn engine_ports(cluster: &WeirCluster) -> Vec<Value> {
    let Some(shared) = &cluster.spec.engines.shared else { return Vec::new() };
    let port = |address: &String, default: u16| {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        port.unwrap_or(default)
    };
    let nats = shared.nats.servers.iter().map(|server| port(server, NATS_PORT));
    let cql = shared.cql.hosts.iter().map(|host| port(host, CQL_PORT));
    let ports: BTreeSet<u16> = nats.chain(cql).collect();
    ports.into_iter().map(tcp).collect()
}
