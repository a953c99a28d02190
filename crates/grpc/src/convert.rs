//! The domain as it is written on the wire.

use std::{sync::Arc, time::Duration};

use weir_core::{Error, Result, Timestamp, Value};
use weir_proto::common::v1 as pb;

/// An instant on the wire.
pub fn from_timestamp(ts: Timestamp) -> prost_types::Timestamp {
    let micros = ts.as_micros();
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000)).unwrap_or(0) * 1_000,
    }
}

/// An instant from the wire; what is finer than a microsecond is cut.
///
/// # Errors
/// `TIMESTAMP_INVALID` for nanoseconds out of [0, 1e9) or seconds that do not fit.
pub fn to_timestamp(field: &str, ts: &prost_types::Timestamp) -> Result<Timestamp> {
    let bad = || {
        Error::invalid(
            field,
            "TIMESTAMP_INVALID",
            format!("{field} has seconds {} and nanos {}", ts.seconds, ts.nanos),
        )
    };
    if !(0..1_000_000_000).contains(&ts.nanos) {
        return Err(bad());
    }
    let micros =
        ts.seconds.checked_mul(1_000_000).and_then(|micros| micros.checked_add(i64::from(ts.nanos) / 1_000));
    micros.map(Timestamp::from_micros).ok_or_else(bad)
}

/// An optional instant from the wire.
///
/// # Errors
/// As [`to_timestamp`].
pub fn to_timestamp_opt(field: &str, ts: Option<&prost_types::Timestamp>) -> Result<Option<Timestamp>> {
    ts.map(|ts| to_timestamp(field, ts)).transpose()
}

/// A span on the wire.
pub fn from_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A span from the wire.
///
/// # Errors
/// `DURATION_INVALID` below zero.
pub fn to_duration(field: &str, duration: &prost_types::Duration) -> Result<Duration> {
    match (u64::try_from(duration.seconds), u32::try_from(duration.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => Err(Error::invalid(
            field,
            "DURATION_INVALID",
            format!(
                "{field} has seconds {} and nanos {}; it must not be negative",
                duration.seconds, duration.nanos
            ),
        )),
    }
}

/// An optional span from the wire.
///
/// # Errors
/// As [`to_duration`].
pub fn to_duration_opt(field: &str, duration: Option<&prost_types::Duration>) -> Result<Option<Duration>> {
    duration.map(|duration| to_duration(field, duration)).transpose()
}

/// A value on the wire.
pub fn from_value(value: Value) -> pb::Value {
    use pb::value::Kind;
    let kind = match value {
        Value::Double(value) => Kind::DoubleValue(value),
        Value::Int64(value) => Kind::Int64Value(value),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::String(value) => Kind::StringValue(value),
        Value::Bytes(value) => Kind::BytesValue(value),
    };
    pb::Value { kind: Some(kind) }
}

/// A value from the wire; NaN and infinities pass, it is the edge that refuses them.
///
/// # Errors
/// `VALUE_MISSING` where no kind is set.
pub fn to_value(value: pb::Value) -> Result<Value> {
    use pb::value::Kind;
    match value.kind {
        Some(Kind::DoubleValue(value)) => Ok(Value::Double(value)),
        Some(Kind::Int64Value(value)) => Ok(Value::Int64(value)),
        Some(Kind::BoolValue(value)) => Ok(Value::Bool(value)),
        Some(Kind::StringValue(value)) => Ok(Value::String(value)),
        Some(Kind::BytesValue(value)) => Ok(Value::Bytes(value)),
        None => Err(Error::new(
            weir_core::ErrorKind::InvalidArgument,
            "VALUE_MISSING",
            "the value has no kind set",
        )),
    }
}

/// Metric names as the query ports take them.
pub fn to_metrics(metrics: Vec<String>) -> Vec<Arc<str>> {
    metrics.into_iter().map(Arc::from).collect()
}
