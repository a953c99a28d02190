//! What the objects are, and what holds them back.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weir_operator::desired;

use crate::world::{World, cluster, configured, embedded, key, shared};

fn pods(world: &World) -> Vec<(String, Value)> {
    let templates = world.objects.values().filter_map(|object| {
        let spec = object.pointer("/spec/template/spec")?;
        Some((desired::name_of(object).to_owned(), spec.clone()))
    });
    templates.collect()
}

fn settled(cluster: weir_crd::WeirCluster) -> World {
    let mut world = World::new(cluster);
    world.settle();
    world
}

#[test]
fn the_result_of_a_plan_asks_for_nothing_more() {
    for cluster in [embedded(), shared()] {
        let world = settled(cluster);
        let (one, two) = (world.plan(), world.plan());
        assert_eq!(one, two, "the same again is the same");
        for object in &one.objects {
            assert_eq!(world.objects.get(&key(object)), Some(object));
        }
        assert!(one.secrets.is_empty() && one.events.is_empty());
        assert_eq!(one.status, world.status());
    }
}

#[test]
fn what_is_removed_or_changed_by_others_is_put_back_and_what_is_not_wanted_goes() {
    let mut world = settled(shared());
    let before = world.objects.clone();
    world.objects.remove(&("Service".to_owned(), "w-mqtt".to_owned()));
    world.objects.get_mut(&("Deployment".to_owned(), "w-storage".to_owned())).unwrap()["spec"]["replicas"] =
        json!(9);
    world.settle();
    assert_eq!(world.objects, before);
    world.edit(|spec| spec["networkPolicies"] = json!(false));
    world.settle();
    assert!(!world.objects.keys().any(|key| key.0 == "NetworkPolicy"));
}

#[test]
fn every_pod_is_restricted_and_has_no_way_to_the_api_server() {
    for cluster in [embedded(), shared()] {
        let world = settled(cluster);
        let all = pods(&world);
        assert!(!all.is_empty());
        for (name, pod) in all {
            let secure = &pod["securityContext"];
            assert_eq!(secure["runAsNonRoot"], true, "{name}");
            assert_eq!(secure["runAsUser"], 65532, "{name}");
            assert_eq!(secure["seccompProfile"]["type"], "RuntimeDefault", "{name}");
            assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
            assert_eq!(pod["enableServiceLinks"], false, "{name}");
            let containers = pod["containers"].as_array().unwrap().iter();
            for container in containers.chain(pod["initContainers"].as_array().into_iter().flatten()) {
                let secure = &container["securityContext"];
                assert_eq!(secure["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(secure["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(secure["capabilities"]["drop"], json!(["ALL"]), "{name}");
                assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
            }
        }
    }
}

#[test]
fn only_who_needs_the_pepper_or_the_token_gets_it() {
    let world = settled(shared());
    for (name, pod) in pods(&world) {
        let text = pod["volumes"].to_string();
        assert_eq!(
            text.contains("secrets/pepper"),
            name == "w-registry" || name.contains("migrate"),
            "{name}"
        );
        assert_eq!(text.contains("secrets/token"), name.contains("migrate"), "{name}");
        assert!(text.contains("tls/tls.key"), "{name}");
    }
}

#[test]
fn everything_but_secrets_is_owned_by_the_cluster() {
    let world = settled(shared());
    for object in world.objects.values() {
        assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "u-1", "{}", object["kind"]);
        assert_eq!(object["metadata"]["namespace"], "ns");
        assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/managed-by"], "weir-operator");
    }
    assert!(!world.objects.keys().any(|key| key.0 == "Secret"));
}

#[test]
fn secrets_are_made_before_anything_else_and_never_again() {
    let mut world = World::new(shared());
    let plan = world.plan();
    let names: Vec<_> = plan.secrets.iter().map(|secret| secret.name.as_str()).collect();
    assert_eq!(names, ["w-secrets", "w-tls"]);
    assert!(plan.objects.is_empty());
    assert!(plan.secrets[1].certificate_names.contains(&"w-registry.ns.svc".to_owned()));
    world.settle();
    world.secrets.remove("w-secrets");
    let plan = world.plan();
    assert!(plan.secrets.is_empty() && !plan.prune && plan.objects.is_empty());
    world.reconcile(usize::MAX);
    assert_eq!(world.condition("Ready"), (false, "SecretMissing".to_owned()));
    world.secrets.insert("w-secrets".to_owned(), BTreeSet::from(["pepper".to_owned(), "token".to_owned()]));
    world.settle();
    assert_eq!(world.condition("Ready"), (true, "Available".to_owned()));
}

#[test]
fn a_secret_of_somebody_else_is_waited_for_by_name() {
    let mut shared = shared();
    shared.spec.engines.shared.as_mut().unwrap().cql.auth_secret_name = Some("scylla-login".to_owned());
    let mut world = World::new(shared);
    world.reconcile(usize::MAX);
    assert_eq!(world.condition("Ready"), (false, "SecretMissing".to_owned()));
    assert!(!world.condition("Stalled").0, "it may still come");
    assert!(world.status().conditions[0].message.contains("scylla-login"));
    assert!(world.objects.is_empty());
    let keys = BTreeSet::from(["username".to_owned(), "password".to_owned()]);
    world.secrets.insert("scylla-login".to_owned(), keys);
    world.settle();
    assert_eq!(world.condition("Ready"), (true, "Available".to_owned()));
}

#[test]
fn a_paused_cluster_is_left_as_it_is() {
    let mut world = settled(shared());
    world.edit(|spec| {
        spec["paused"] = json!(true);
        spec["version"] = json!("3.0.0");
    });
    let before = world.objects.clone();
    for _ in 0..3 {
        world.reconcile(usize::MAX);
    }
    assert_eq!(world.objects, before);
    assert_eq!(world.condition("Ready"), (true, "Paused".to_owned()));
    assert_eq!(world.events.iter().filter(|event| event.reason == "Paused").count(), 1);
}

#[test]
fn what_cannot_be_followed_is_told_with_its_path() {
    let embedded = |spec: Value| {
        let mut all = json!({ "version": "1", "engines": { "embedded": {} } });
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        cluster(all)
    };
    for (cluster, named) in [
        (cluster(json!({ "version": "1", "engines": {} })), "spec.engines"),
        (embedded(json!({ "services": { "storage": {} } })), "spec.services.storage"),
        (embedded(json!({ "services": { "all": { "replicas": 2 } } })), "spec.services.all"),
        (embedded(json!({ "config": { "listen": { "grpc_port": 1 } } })), "spec.config.listen.grpc_port"),
        (embedded(json!({ "config": { "logs": { "level": null } } })), "spec.config.logs"),
    ] {
        let mut world = World::new(cluster);
        world.reconcile(usize::MAX);
        assert_eq!(world.condition("Stalled"), (true, "SpecInvalid".to_owned()), "{named}");
        let message = world.status().conditions[0].message.clone();
        assert!(message.contains(named), "{message}");
        assert!(world.objects.is_empty());
    }
}

#[test]
fn replicas_have_one_writer() {
    let replicas = |world: &World| {
        world.objects[&("Deployment".to_owned(), "w-ingest".to_owned())]["spec"].get("replicas").cloned()
    };
    let mut world = settled(shared());
    assert_eq!(replicas(&world), Some(json!(1)));
    world.edit(|spec| {
        spec["services"]["ingest"] = json!({ "scaling": { "mode": "External" }, "replicas": 7 })
    });
    world.settle();
    assert_eq!(replicas(&world), None);
}

#[test]
fn the_configuration_is_what_the_spec_says_with_what_the_operator_sets() {
    let mut shared = shared();
    shared.spec.config = json!({ "logs": { "level": "debug" } }).as_object().unwrap().clone();
    let text = configured(&shared).text.unwrap();
    let read: Value = toml::from_str(&text).unwrap();
    assert_eq!(read["logs"]["level"], "debug");
    assert_eq!(read["log"], json!({ "engine": "nats", "durability": "power-loss" }));
    assert_eq!(read["peers"]["storage"], json!(["https://w-storage:8081"]));
    assert_eq!(read["tls"]["key_file"], "/etc/weir/tls/tls.key");
    let text = configured(&embedded()).text.unwrap();
    assert!(!text.contains("[peers]") && !text.contains("[tls]"), "{text}");
}

#[test]
fn rules_for_prometheus_are_made_by_their_switch_from_the_files_that_everybody_has() {
    let mut world = settled(shared());
    let rules = |world: &World| -> Vec<Value> {
        let rules = world.objects.iter().filter(|(key, _)| key.0 == "PrometheusRule");
        rules.map(|(_, object)| object["spec"].clone()).collect()
    };
    assert!(rules(&world).is_empty());
    world.edit(|spec| spec["monitoring"] = json!({ "prometheusRule": true }));
    world.settle();
    let files = ["alerts", "recording"].map(|name| {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/prometheus");
        let text = std::fs::read_to_string(format!("{dir}/weir-{name}.rules.yaml")).unwrap();
        serde_yaml_ng::from_str::<Value>(&text).unwrap()
    });
    assert_eq!(rules(&world), files);
    assert!(files.iter().all(|file| file["groups"].as_array().is_some_and(|groups| !groups.is_empty())));
    world.edit(|spec| spec["monitoring"] = json!({}));
    world.settle();
    assert!(rules(&world).is_empty());
}
