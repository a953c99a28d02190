//! `charts/weir/values.schema.json`: the part about `cluster` is the specification's own schema, from the resource definition,
//! closed so that helm refuses a key that does not exist; the API server would drop it. The rest of the file is written by
//! hand.

use std::fs;

use serde_json::{Map, Value, json};

use crate::run::{root, set};

/// The definition that the values' `cluster` is a specification of.
const DEFINITION: &str = "charts/weir/crds/weirclusters.weir.dev.yaml";
/// The schema of the values.
const FILE: &str = "charts/weir/values.schema.json";
/// What JSON Schema knows of what a definition may say.
const KEYWORDS: [&str; 13] = [
    "type",
    "properties",
    "items",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "additionalProperties",
    "description",
];

/// Writes it, or checks it.
pub(crate) fn run(check: bool) -> Result<(), String> {
    let known = read(FILE)?;
    let mut schema: Value = serde_json::from_str(&known).map_err(|error| format!("{FILE}: {error}"))?;
    let definition: Value =
        serde_yaml_ng::from_str(&read(DEFINITION)?).map_err(|error| format!("{DEFINITION}: {error}"))?;
    let spec = definition
        .pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec")
        .ok_or_else(|| format!("{DEFINITION} has no schema of a specification"))?;
    let properties = schema.get_mut("properties").ok_or_else(|| format!("{FILE} has no properties"))?;
    set(properties, "cluster", closed(spec));
    let text = serde_json::to_string_pretty(&schema).map_err(|error| error.to_string())? + "\n";
    if !check {
        return fs::write(root().join(FILE), text).map_err(|error| format!("{FILE}: {error}"));
    }
    if text == known {
        Ok(())
    } else {
        Err(format!("{FILE} is not what the definition says; run `cargo xtask crdgen`"))
    }
}

fn read(file: &str) -> Result<String, String> {
    fs::read_to_string(root().join(file)).map_err(|error| format!("{file}: {error}"))
}

/// The same schema in words of JSON Schema. Nothing is required, since the chart fills in, and null is always allowed: it is
/// how values take a default away.
fn closed(schema: &Value) -> Value {
    let mut closed: Map<String, Value> =
        KEYWORDS.iter().filter_map(|word| Some(((*word).to_owned(), schema.get(*word)?.clone()))).collect();
    if let Some(kind) = closed.get("type").cloned() {
        closed.insert("type".to_owned(), json!([kind, "null"]));
    } else if schema.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
        closed.insert("type".to_owned(), json!(["integer", "string", "null"]));
    }
    if let Some(Value::Array(choices)) = closed.get_mut("enum") {
        choices.push(Value::Null);
    }
    if let Some(Value::Object(properties)) = closed.get_mut("properties") {
        properties.values_mut().for_each(|property| *property = self::closed(property));
        closed.insert("additionalProperties".to_owned(), json!(false));
    }
    for word in ["items", "additionalProperties"] {
        if let Some(each) = closed.get_mut(word).filter(|each| each.is_object()) {
            *each = self::closed(each);
        }
    }
    Value::Object(closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_closed_all_the_way_down_and_what_is_free_stays_free() {
        let schema = json!({
            "type": "object",
            "required": ["a"],
            "properties": {
                "a": {"type": "object", "properties": {"b": {"type": "string", "enum": ["c"]}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "map": {"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": true}},
            },
        });
        let closed = closed(&schema);
        assert_eq!(closed["additionalProperties"], false);
        assert_eq!(closed["properties"]["a"]["additionalProperties"], false);
        assert_eq!(closed["properties"]["a"]["properties"]["b"]["enum"], json!(["c", null]));
        assert!(closed["properties"]["free"].get("additionalProperties").is_none());
        assert_eq!(
            closed["properties"]["map"]["additionalProperties"]["type"],
            json!(["integer", "string", "null"])
        );
        assert!(closed.get("required").is_none());
    }
}
