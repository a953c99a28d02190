//! What the operator would make, as YAML, for those who apply it themselves.

use serde_json::Value;
use weir_core::{Error, Result};
use weir_crd::{WeirCluster, schema};

use crate::{Binary, desired};

/// Everything that a cluster is made of, but for its Secrets: made anew with each rendering they would lock out whoever
/// knows the old ones.
pub struct Rendered {
    /// The objects, in YAML.
    pub yaml: String,
    /// The Secrets that must be there, and their keys, in words.
    pub secrets: Vec<String>,
}

/// The objects of the `WeirCluster` that `text` is.
///
/// # Errors
/// `CLUSTER_INVALID` with the path of what is wrong.
pub fn render(text: &str, binary: &dyn Binary) -> Result<Rendered> {
    let invalid = |message: String| Error::invalid("file", "CLUSTER_INVALID", message);
    let value: Value = serde_yaml_ng::from_str(text).map_err(|error| invalid(error.to_string()))?;
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    if kind != "WeirCluster" {
        return Err(invalid(format!("kind is {kind:?}, it must be WeirCluster")));
    }
    let definitions = weir_crd::definitions();
    let definition = definitions.iter().find(|definition| definition.spec.names.kind == kind);
    let unknown = definition.and_then(schema::of).map(|schema| schema::unknown_keys(&value, schema));
    if let Some(key) = unknown.unwrap_or_default().first() {
        return Err(invalid(format!("{key} is no key of a WeirCluster")));
    }
    let cluster: WeirCluster = serde_json::from_value(value).map_err(|error| invalid(error.to_string()))?;
    let configured = desired::configure(&cluster, |toml| binary.check_config(toml));
    let objects = desired::rendered(&cluster, &configured).map_err(invalid)?;
    let secrets = desired::secrets(&cluster)
        .into_iter()
        .map(|kept| format!("Secret {} with the keys {}", kept.name, kept.keys.join(", ")));
    Ok(Rendered { yaml: yaml(&objects)?, secrets: secrets.collect() })
}

/// The definitions of the kinds, as YAML.
///
/// # Errors
/// `Internal` where they cannot be written.
pub fn crds() -> Result<String> {
    yaml(&weir_crd::definitions())
}

fn yaml<T: serde::Serialize>(documents: &[T]) -> Result<String> {
    let mut text = String::new();
    for document in documents {
        text.push_str("---\n");
        let one = serde_yaml_ng::to_string(document);
        text.push_str(&one.map_err(|source| Error::internal("cannot write yaml").with_source(source))?);
    }
    Ok(text)
}
