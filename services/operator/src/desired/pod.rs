//! Pods: restricted (Pod Security), with nothing to write to but their volume, and no way to the API server.

use serde_json::{Value, json};
use weir_crd::{NatsAuth, Release, ServiceSpec, WeirCluster};

use super::{
    config::{DATA, ETC, GRACE_S},
    names::{ALL, MIGRATE, Names, RELEASE, edge, release_id, set},
    secret,
};

/// The user of the image.
const USER: i64 = 65532;
/// How often a start is looked at: what a start takes in vain.
const STARTUP_PERIOD_S: i64 = 1;
/// How long a start may take: reading a log of some gigabytes again, and waiting for a bus.
const STARTUP_S: i64 = 600;

/// The template of a component's pods.
pub(super) fn template(cluster: &WeirCluster, names: &Names, component: &str, release: &Release) -> Value {
    let service = service_of(cluster, component);
    let mut spec = json!({
        "serviceAccountName": names.cluster(),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [container(cluster, component, release, &service)],
        "volumes": [etc(cluster, component, release)],
    });
    let pull: Vec<Value> =
        cluster.spec.image.pull_secrets.iter().map(|name| json!({ "name": name })).collect();
    let mut optional = |key: &str, value: Value, is_given: bool| {
        if is_given {
            set(&mut spec, key, value);
        }
    };
    optional("imagePullSecrets", json!(pull), !pull.is_empty());
    optional("nodeSelector", json!(service.node_selector), !service.node_selector.is_empty());
    optional("tolerations", json!(service.tolerations), !service.tolerations.is_empty());
    optional("affinity", json!(service.affinity), !service.affinity.is_empty());
    let has_peers = component != MIGRATE && component != ALL;
    optional("topologySpreadConstraints", spread(names, component), has_peers && service.topology_spread);
    optional("restartPolicy", json!("OnFailure"), component == MIGRATE);
    optional("terminationGracePeriodSeconds", json!(GRACE_S), component != MIGRATE);
    optional("initContainers", json!([init(cluster, component, release, &service)]), component == ALL);
    json!({
        "metadata": {
            "labels": names.labels(component),
            "annotations": { RELEASE: release_id(release) },
        },
        "spec": spec,
    })
}

/// What the spec says of a component; the Job goes where the registry goes.
pub(super) fn service_of(cluster: &WeirCluster, component: &str) -> ServiceSpec {
    let name = if component == MIGRATE { "registry" } else { component };
    cluster.spec.services.get(name).cloned().unwrap_or_default()
}

fn container(cluster: &WeirCluster, component: &str, release: &Release, service: &ServiceSpec) -> Value {
    if component == MIGRATE {
        return init(cluster, component, release, service);
    }
    let mut args =
        vec!["serve".to_owned(), format!("--target={component}"), format!("--config={ETC}/weir.toml")];
    let mut ports = vec![port("grpc", 8081), port("admin", 8082)];
    if component == edge(cluster) {
        args.push("--insecure".to_owned()); // MQTT and HTTP are in the clear
        ports.extend([port("mqtt", 1883), port("http", 8080)]);
    }
    let probe = |path: &str, period: i64, failures: i64| {
        json!({
            "httpGet": { "path": path, "port": "admin" },
            "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures,
        })
    };
    let mut container = base(cluster, component, release, service, args);
    set(&mut container, "name", json!("weir"));
    set(&mut container, "ports", json!(ports));
    set(&mut container, "startupProbe", probe("/livez", STARTUP_PERIOD_S, STARTUP_S / STARTUP_PERIOD_S));
    set(&mut container, "livenessProbe", probe("/livez", 10, 3));
    set(&mut container, "readinessProbe", probe("/readyz", 2, 2));
    container
}

/// Schema, first tenant and first token, where they are not there.
fn init(cluster: &WeirCluster, component: &str, release: &Release, service: &ServiceSpec) -> Value {
    let args = vec![
        "init".to_owned(),
        format!("--config={ETC}/weir.toml"),
        format!("--first-token-file={ETC}/secrets/token"),
        "--if-needed".to_owned(),
    ];
    let mut container = base(cluster, component, release, service, args);
    set(&mut container, "name", json!("init"));
    container
}

/// What all containers have.
fn base(
    cluster: &WeirCluster,
    component: &str,
    release: &Release,
    service: &ServiceSpec,
    args: Vec<String>,
) -> Value {
    let mut mounts = vec![json!({ "name": "etc", "mountPath": ETC, "readOnly": true })];
    if component == ALL {
        mounts.push(json!({ "name": "data", "mountPath": DATA }));
    }
    let mut env = logins(cluster);
    env.extend(service.env.iter().map(|(name, value)| json!({ "name": name, "value": value })));
    let mut container = json!({
        "image": release.image,
        "imagePullPolicy": cluster.spec.image.pull_policy.as_str(),
        "args": args,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "resources": resources(component, service),
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    if !env.is_empty() {
        set(&mut container, "env", json!(env));
    }
    container
}

/// Requests and limits where the spec gives none: an idle service has 15 MB, and its queues and caches have bounds that stay
/// under the limit.
fn resources(component: &str, service: &ServiceSpec) -> Value {
    if let Some(given) = &service.resources {
        return json!({ "requests": given.requests, "limits": given.limits });
    }
    let limit = if component == ALL { "1Gi" } else { "512Mi" };
    json!({ "requests": { "cpu": "50m", "memory": "64Mi" }, "limits": { "memory": limit } })
}

fn port(name: &str, number: u16) -> Value {
    json!({ "name": name, "containerPort": number, "protocol": "TCP" })
}

/// User names, which stand in Secrets and are no files.
fn logins(cluster: &WeirCluster) -> Vec<Value> {
    let Some(shared) = &cluster.spec.engines.shared else { return Vec::new() };
    let login = |variable: &str, secret: &Option<String>| {
        secret.as_ref().map(|secret| {
            json!({ "name": variable, "valueFrom": { "secretKeyRef": { "name": secret, "key": "username" } } })
        })
    };
    let has_user = shared.nats.auth_method == NatsAuth::Password;
    let nats = login("WEIR__NATS__USER", &shared.nats.auth_secret_name).filter(|_| has_user);
    nats.into_iter().chain(login("WEIR__CQL__USER", &shared.cql.auth_secret_name)).collect()
}

/// One volume with all that a component reads: its configuration, and of the Secrets what it needs.
fn etc(cluster: &WeirCluster, component: &str, release: &Release) -> Value {
    let item = |key: &str, path: String| json!({ "key": key, "path": path });
    let secret = |name: &str, items: Vec<Value>| json!({ "secret": { "name": name, "items": items } });
    let mut sources = vec![
        json!({ "configMap": { "name": release.config, "items": [item("weir.toml", "weir.toml".to_owned())] } }),
    ];
    let mut own = Vec::new();
    if matches!(component, "registry" | ALL | MIGRATE) {
        own.push(item("pepper", "secrets/pepper".to_owned()));
    }
    if matches!(component, ALL | MIGRATE) {
        own.push(item("token", "secrets/token".to_owned()));
    }
    if !own.is_empty() {
        sources.push(secret(&secret::own(cluster), own));
    }
    if let Some(tls) = secret::tls(cluster) {
        sources
            .push(secret(&tls, secret::TLS_KEYS.iter().map(|key| item(key, format!("tls/{key}"))).collect()));
    }
    if let Some(shared) = &cluster.spec.engines.shared {
        let mut file = |name: &Option<String>, key: &str, folder: &str| {
            let source = name.as_ref().map(|name| secret(name, vec![item(key, format!("{folder}/{key}"))]));
            sources.extend(source);
        };
        file(&shared.nats.auth_secret_name, secret::nats_file(shared.nats.auth_method), "nats");
        file(&shared.nats.ca_secret_name, "ca.crt", "nats");
        file(&shared.cql.auth_secret_name, "password", "cql");
        file(&shared.cql.ca_secret_name, "ca.crt", "cql");
    }
    json!({ "name": "etc", "projected": { "defaultMode": 0o440, "sources": sources } })
}

/// Spread over nodes and zones as far as these are there.
fn spread(names: &Names, component: &str) -> Value {
    let over = |key: &str| {
        json!({
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": names.selector(component) },
        })
    };
    json!([over("kubernetes.io/hostname"), over("topology.kubernetes.io/zone")])
}
