//! The definitions are structural, and the examples are of them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{fs, path::Path};

use serde_json::Value;
use weir_crd::{WeirCluster, definitions, schema};

/// What a structural schema must be (Kubernetes, "Specifying a structural schema"): each node has a type, or is
/// int-or-string, or keeps what is unknown; nothing is referred to; properties stand beside no open set of others.
fn not_structural(node: &Value, path: &str, wrong: &mut Vec<String>) {
    let Some(fields) = node.as_object() else { return };
    let flag = |key: &str| fields.get(key) == Some(&Value::Bool(true));
    let is_open = flag("x-kubernetes-preserve-unknown-fields") || flag("x-kubernetes-int-or-string");
    if !fields.contains_key("type") && !is_open {
        wrong.push(format!("{path} has no type"));
    }
    for forbidden in ["$ref", "definitions", "oneOf", "anyOf", "not", "uniqueItems"] {
        if fields.contains_key(forbidden) {
            wrong.push(format!("{path} has {forbidden}"));
        }
    }
    if fields.contains_key("properties") && fields.contains_key("additionalProperties") {
        wrong.push(format!("{path} has properties and additionalProperties"));
    }
    for (key, child) in fields.get("properties").and_then(Value::as_object).into_iter().flatten() {
        not_structural(child, &format!("{path}.{key}"), wrong);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = fields.get(key) {
            not_structural(child, &format!("{path}.{key}"), wrong);
        }
    }
}

#[test]
fn every_definition_is_structural_and_says_what_each_key_is() {
    for definition in definitions() {
        let kind = definition.spec.names.kind.clone();
        let schema = serde_json::to_value(schema::of(&definition).unwrap()).unwrap();
        let mut wrong = Vec::new();
        not_structural(&schema, &kind, &mut wrong);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        for (key, node) in schema["properties"]["spec"]["properties"].as_object().unwrap() {
            assert!(node["description"].is_string(), "{kind}.spec.{key} does not say what it is");
        }
    }
}

#[test]
fn every_example_is_of_its_kind_and_has_no_unknown_key() {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo test tells where the crate is");
    let folder = Path::new(&here).join("../../deploy/kubernetes/examples");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        let value: Value = serde_yaml_ng::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let definitions = definitions();
        let definition = definitions.iter().find(|known| value["kind"] == known.spec.names.kind).unwrap();
        let unknown = schema::unknown_keys(&value, schema::of(definition).unwrap());
        assert!(unknown.is_empty(), "{}: {unknown:?}", file.display());
        let cluster: WeirCluster = serde_json::from_value(value).unwrap();
        assert_eq!(cluster.metadata.name.as_deref(), Some("weir"));
        seen += 1;
    }
    assert!(seen >= 3, "{seen} examples");
}

#[test]
fn a_typing_mistake_is_found_by_its_path_and_free_keys_are_free() {
    let definitions = definitions();
    let schema = schema::of(&definitions[0]).unwrap();
    let value = serde_json::json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "WeirCluster", "metadata": { "name": "w", "labels": { "a": "b" } },
        "spec": {
            "version": "1", "engines": { "embedded": { "storige": {} } },
            "services": { "all": { "replica": 1, "tolerations": [{ "key": "x" }], "resources": { "limits": { "cpu": 1 } } } },
            "config": { "anything": { "goes": 1 } },
        },
    });
    assert_eq!(
        schema::unknown_keys(&value, schema),
        ["spec.engines.embedded.storige", "spec.services.all.replica"]
    );
}
