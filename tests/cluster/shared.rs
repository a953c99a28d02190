//! Five services on engines that they share: NATS in a pod, Cassandra beside the node.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::json;
use weir_test_servers::{
    cql::{self, Cluster, CommitLog},
    nats,
};

use crate::{
    kube::{Kube, PATIENCE, TAGS, import_tar, install, say, shell, upgrade},
    tools::skipped,
};

const EXAMPLE: &str = "charts/weir/examples/nats-scylla.yaml";
/// How long the load goes on: what happens under it takes three minutes, and twice that on a slow machine.
const PROOF: Duration = Duration::from_secs(360);
const PROOF_MINUTES: &str = "6";
const NATS: &str = "localhost/nats-server:test";

#[test]
fn five_services_on_shared_engines_lose_nothing_while_they_are_upgraded_and_killed() {
    // Before the network is the node's, which has no way out to where servers are fetched from.
    let nats = match nats::binary() {
        Ok(binary) => binary,
        Err(why) => return skipped(&why),
    };
    let kube = match Kube::start("shared") {
        Ok(kube) => kube,
        Err(why) => return skipped(&why),
    };
    let (hosts, _cassandra) = match store(&kube) {
        Ok(store) => store,
        Err(why) => return skipped(&why),
    };
    let tar = kube.home.path().join("nats.tar").display().to_string();
    let made = shell(
        "WEIR_TEST_IMAGE_MAKE",
        &[NATS, &tar, "/nats-server", &format!("{}=/nats-server", nats.display())],
    );
    if let Err(why) = made.and_then(|()| import_tar(tar.as_ref())) {
        return skipped(&why);
    }
    start_nats(&kube);
    let values = values(&kube, &hosts);
    let begin = Instant::now();
    install(&kube, EXAMPLE, &["--values", &values]);
    say(&format!("shared: installed and ready in {:?}", begin.elapsed()));
    kube.helm(&["test", "weir"]).unwrap_or_else(|why| panic!("{why}"));
    let args = ["prove", "--minutes", PROOF_MINUTES, "--keep", "--retry-for", "2m"];
    prove(&kube, &args, || {
        upgrade(&kube, EXAMPLE, TAGS[1], &["--values", &values]);
        upgrade(&kube, EXAMPLE, TAGS[0], &["--values", &values]);
        for component in ["registry", "storage", "analytics", "commands", "ingest"] {
            let selector = format!("--selector=app.kubernetes.io/component={component}");
            kube.kubectl(&["delete", "pod", &selector, "--grace-period=0", "--force", "--wait=false"]);
            kube.ready();
        }
        evict_each(&kube);
    });
}

/// As a drain of its node does it: every pod of Weir, the operator's too, one after the other.
fn evict_each(kube: &Kube) {
    let pods = kube.kubectl(&["get", "pods", "--selector=app.kubernetes.io/name=weir", "-o", "name"]);
    for pod in pods.lines().filter_map(|line| line.strip_prefix("pod/")) {
        let file = kube.home.path().join("eviction.json");
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}});
        fs::write(&file, eviction.to_string()).expect("the eviction");
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", kube.namespace);
        // Its budget refuses as long as another pod of the same service is on its way.
        kube.until(&format!("{pod} may be evicted"), || {
            kube.try_run("kubectl", &["create", "--raw", &path, "--filename", &file.display().to_string()])
                .ok()
        });
        kube.kubectl(&["wait", "--for=delete", &format!("pod/{pod}"), "--timeout=120s"]);
        kube.ready();
    }
}

/// Where CQL is spoken; a node of our own listens on the address of the Kubernetes node, which pods reach.
fn store(kube: &Kube) -> Result<(Vec<String>, Option<Cluster>), String> {
    if let Some(given) = cql::given() {
        return Ok((given, None));
    }
    if std::env::var_os("WEIR_TEST_NETNS").is_none() {
        return Err("no CQL server that pods reach: WEIR_TEST_CQL is not set".to_owned());
    }
    let path = r#"jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}"#;
    let address = kube.run("kubectl", &["get", "nodes", "-o", path]);
    let address = address.trim().parse().map_err(|error| format!("{address:?}: {error}"))?;
    let cluster = Cluster::start_at(address, CommitLog::Batch)?;
    Ok((cluster.hosts(), Some(cluster)))
}

fn start_nats(kube: &Kube) {
    let labels = json!({"app": "nats"});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "nats", "labels": labels}, "spec": {
        "securityContext": kube.pod_security(),
        "containers": [{
            "name": "nats", "image": NATS, "imagePullPolicy": "Never", "args": ["-js", "-sd", "/data"],
            "securityContext": kube.container_security(), "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            "readinessProbe": {"tcpSocket": {"port": 4222}, "periodSeconds": 1},
        }],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "nats"},
        "spec": {"selector": labels, "ports": [{"port": 4222}]}});
    kube.apply(&pod);
    kube.apply(&service);
    kube.kubectl(&["wait", "pod/nats", "--for=condition=Ready", "--timeout=60s"]);
}

/// What is different here from the example.
fn values(kube: &Kube, hosts: &[String]) -> String {
    let file = kube.home.path().join("values.yaml");
    let one = json!({"replicas": 1});
    let values = json!({"cluster": {
        "engines": {"shared": {
            "nats": {"servers": ["nats://nats:4222"], "replicas": 1, "syncAlways": false, "authSecretName": null},
            "cql": {"hosts": hosts, "replicationFactor": 1, "dataCenter": null, "authSecretName": null},
        }},
        // NATS promises each stream the whole of it, on the small disk of a test.
        "config": {"log": {"max_bytes": "256MiB"}},
        "services": {"registry": one, "analytics": one, "commands": one},
    }});
    fs::write(&file, values.to_string()).expect("the values");
    file.display().to_string()
}

/// Runs `weir` in a pod, as a program inside the cluster, while `meanwhile` happens; it must end well.
fn prove(kube: &Kube, args: &[&str], meanwhile: impl FnOnce()) {
    let args = [args, &["--mqtt-addr", "weir-mqtt:1883", "--http-addr", "weir-http:8080"]].concat();
    let secret = |key: &str| json!({"secretKeyRef": {"name": "weir-secrets", "key": key}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "prove"}, "spec": {
        "restartPolicy": "Never",
        "securityContext": kube.pod_security(),
        "containers": [{
            "name": "prove", "image": format!("localhost/weir:{}", TAGS[0]), "imagePullPolicy": "Never",
            "args": args,
            "env": [
                {"name": "WEIR_ADDR", "value": "https://weir-grpc:8081"},
                {"name": "WEIR_CA_FILE", "value": "/ca/ca.crt"},
                {"name": "WEIR_TOKEN", "valueFrom": secret("token")},
            ],
            "securityContext": kube.container_security(),
            "volumeMounts": [{"name": "ca", "mountPath": "/ca"}],
        }],
        "volumes": [{"name": "ca", "secret": {"secretName": "weir-tls", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}],
    }});
    kube.apply(&pod);
    kube.kubectl(&["wait", "pod/prove", "--for=jsonpath={.status.phase}=Running", "--timeout=60s"]);
    meanwhile();
    let phase = kube.get("pod", "prove")["status"]["phase"].clone();
    assert_eq!(phase, "Running", "the load ended before all that was to happen under it");
    let ended = kube.within(PROOF + PATIENCE, "the proof ends", || {
        let phase = kube.get("pod", "prove")["status"]["phase"].as_str().unwrap_or_default().to_owned();
        matches!(phase.as_str(), "Succeeded" | "Failed").then_some(phase)
    });
    let told = kube.kubectl(&["logs", "prove"]);
    assert_eq!(ended, "Succeeded", "{told}");
    say(&told);
}
