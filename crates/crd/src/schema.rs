//! Schemas that no type has, and keys that no schema has.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::Value;

/// An object that is somebody else's to check.
pub(crate) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// Objects that are somebody else's to check; as many as a person writes.
pub(crate) fn any_objects(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true }
    })
}

/// Quantities by the name of a resource.
pub(crate) fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "additionalProperties": { "x-kubernetes-int-or-string": true } })
}

/// An instant.
pub(crate) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

/// As of every kind of Kubernetes.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": { "type": "string" },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "observedGeneration": { "type": "integer", "format": "int64" },
                "lastTransitionTime": { "type": "string", "format": "date-time" },
                "reason": { "type": "string" },
                "message": { "type": "string" },
            }
        }
    })
}

/// The schema of a definition's first version.
pub fn of(definition: &CustomResourceDefinition) -> Option<&JSONSchemaProps> {
    definition.spec.versions.first()?.schema.as_ref()?.open_api_v3_schema.as_ref()
}

/// The paths of keys that the API server would drop, so that a typing mistake is told where there is no API server.
pub fn unknown_keys(value: &Value, schema: &JSONSchemaProps) -> Vec<String> {
    let mut found = Vec::new();
    find_unknown(value, schema, "", &mut found);
    found
}

fn find_unknown(value: &Value, schema: &JSONSchemaProps, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let known = schema.properties.as_ref().and_then(|properties| properties.get(key));
                match (known, &schema.additional_properties) {
                    (Some(known), _) => find_unknown(value, known, &path, found),
                    (None, Some(JSONSchemaPropsOrBool::Schema(each))) => {
                        find_unknown(value, each, &path, found)
                    }
                    (None, _) if schema.x_kubernetes_preserve_unknown_fields == Some(true) => {}
                    // The API server's own.
                    (None, _) if matches!(path.as_str(), "apiVersion" | "kind" | "metadata") => {}
                    (None, _) => found.push(path),
                }
            }
        }
        Value::Array(items) => {
            let Some(JSONSchemaPropsOrArray::Schema(each)) = &schema.items else { return };
            for (index, item) in items.iter().enumerate() {
                find_unknown(item, each, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}
