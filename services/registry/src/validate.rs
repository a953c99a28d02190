//! What may be written: each refusal names the field's path and the limit.

use std::{collections::BTreeMap, time::Duration};

use weir_core::{
    Error, Result, Timestamp,
    selector::{Labels, is_label_key, is_label_value},
};

/// As Kubernetes' practice; enough for any selector.
const LABELS_MAX: usize = 64;
/// A few facts; documents belong elsewhere.
const ATTRIBUTES_MAX: usize = 64;
const ATTRIBUTE_KEY_MAX: usize = 63;
const ATTRIBUTE_VALUE_MAX: usize = 1_024;
const DISPLAY_NAME_MAX: usize = 256;
const REQUEST_ID_MAX: usize = 128;
/// Longer than any profile's; keeps a device's record small.
const METRIC_NAME_MAX: usize = 128;

pub(crate) fn too_long(field: &str, bytes: usize, max: usize) -> Error {
    Error::invalid(field, "TOO_LONG", format!("{field} has {bytes} bytes, at most {max} are allowed"))
        .with_limit(max)
}

pub(crate) fn too_many(field: &str, count: usize, max: usize) -> Error {
    Error::invalid(field, "TOO_MANY", format!("{field} has {count} entries, at most {max} are allowed"))
        .with_limit(max)
}

pub(crate) fn text(field: &str, text: &str, max: usize) -> Result<()> {
    if text.len() > max { Err(too_long(field, text.len(), max)) } else { Ok(()) }
}

pub(crate) fn display_name(field: &str, name: &str) -> Result<()> {
    text(field, name, DISPLAY_NAME_MAX)
}

pub(crate) fn request_id(request_id: &str) -> Result<()> {
    text("request_id", request_id, REQUEST_ID_MAX)
}

pub(crate) fn labels(field: &str, labels: &Labels) -> Result<()> {
    if labels.len() > LABELS_MAX {
        return Err(too_many(field, labels.len(), LABELS_MAX));
    }
    for (key, value) in labels {
        let path = format!("{field}.{}", shown(key));
        if !is_label_key(key) {
            let what = format!("label key {:?} must be 1 to 63 of [A-Za-z0-9_./-]", shown(key));
            return Err(Error::invalid(path, "LABEL_INVALID", what).with_limit(63));
        }
        if !is_label_value(value) {
            let what = format!("label value {:?} must be at most 63 of [A-Za-z0-9_.-]", shown(value));
            return Err(Error::invalid(path, "LABEL_INVALID", what).with_limit(63));
        }
    }
    Ok(())
}

pub(crate) fn attributes(field: &str, attributes: &BTreeMap<String, String>) -> Result<()> {
    if attributes.len() > ATTRIBUTES_MAX {
        return Err(too_many(field, attributes.len(), ATTRIBUTES_MAX));
    }
    for (key, value) in attributes {
        let path = format!("{field}.{}", shown(key));
        if key.is_empty() || key.len() > ATTRIBUTE_KEY_MAX {
            let what = format!(
                "attribute key {:?} ({} bytes) must have 1 to {ATTRIBUTE_KEY_MAX} bytes",
                shown(key),
                key.len()
            );
            return Err(Error::invalid(path, "ATTRIBUTE_INVALID", what).with_limit(ATTRIBUTE_KEY_MAX));
        }
        text(&path, value, ATTRIBUTE_VALUE_MAX)?;
    }
    Ok(())
}

pub(crate) fn metric_name(field: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.len() > METRIC_NAME_MAX || name.chars().any(char::is_control) {
        let what = format!(
            "metric name {:?} ({} bytes) must have 1 to {METRIC_NAME_MAX} bytes without control characters",
            shown(name),
            name.len()
        );
        return Err(Error::invalid(field, "METRIC_NAME_INVALID", what).with_limit(METRIC_NAME_MAX));
    }
    Ok(())
}

/// When something that works for `ttl` from `now` stops to.
pub(crate) fn expiry(field: &str, now: Timestamp, ttl: Option<Duration>) -> Result<Option<Timestamp>> {
    match ttl {
        Some(Duration::ZERO) => {
            Err(Error::invalid(field, "TTL_INVALID", format!("{field} is 0, it must be longer"))
                .with_limit(0))
        }
        ttl => Ok(ttl.map(|ttl| now.saturating_add(ttl))),
    }
}

/// Enough to recognise it, never so much that an error is as large as what it refuses.
fn shown(text: &str) -> String {
    text.chars().take(63).collect()
}
