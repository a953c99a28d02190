//! Text for cells and JSON.

use std::collections::HashMap;

use serde_json::{Map, Value};
use weir_core::Timestamp;
use weir_grpc::convert::to_timestamp;

use crate::exit::usage;

/// The last segment of a full name.
pub(crate) fn id(name: &str) -> String {
    name.rsplit('/').next().unwrap_or_default().to_owned()
}

/// An instant as RFC 3339; empty where there is none.
pub(crate) fn time(ts: Option<&prost_types::Timestamp>) -> String {
    instant(ts).map_or_else(String::new, |ts| ts.to_string())
}

/// An instant as JSON: RFC 3339, or null.
pub(crate) fn json_time(ts: Option<&prost_types::Timestamp>) -> Value {
    instant(ts).map_or(Value::Null, |ts| Value::String(ts.to_string()))
}

fn instant(ts: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    ts.and_then(|ts| to_timestamp("time", ts).ok())
}

/// A span on the wire as people write it.
pub(crate) fn span(duration: Option<&prost_types::Duration>) -> Option<String> {
    let duration = weir_grpc::convert::to_duration("duration", duration?).ok()?;
    Some(weir_config::duration::format(duration))
}

/// A map in the order of its keys: `k=v,k=v`.
pub(crate) fn pairs(map: &HashMap<String, String>) -> String {
    let mut pairs: Vec<_> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort();
    pairs.join(",")
}

/// A map as a JSON object in the order of its keys.
pub(crate) fn json_map(map: &HashMap<String, String>) -> Value {
    let mut pairs: Vec<_> = map.iter().collect();
    pairs.sort();
    Value::Object(
        pairs
            .into_iter()
            .map(|(key, value)| (key.clone(), Value::String(value.clone())))
            .collect::<Map<_, _>>(),
    )
}

/// Text as JSON, null where empty.
pub(crate) fn json_text(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { Value::String(text.to_owned()) }
}

/// The name of an enum's value without its prefix, in lower case: `ALARM_STATE_RAISED` is `raised`.
pub(crate) fn short(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).trim_start_matches('_').to_lowercase()
}

/// Parses `key=value`, for clap.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} must be key=value"))
}

/// Parses a span, for clap.
pub(crate) fn parse_span(text: &str) -> Result<std::time::Duration, String> {
    weir_config::duration::parse(text).map_err(|error| error.message().to_owned())
}

/// Finds an enum's value by its short name.
pub(crate) fn find<T: Copy>(field: &str, text: &str, known: &[(&str, T)]) -> weir_core::Result<T> {
    known.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        usage(format!("{field} {text:?} must be one of {}", names.join(", ")))
    })
}
