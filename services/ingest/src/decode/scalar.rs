//! One scalar of a payload to a value, by what the profile declares.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use weir_core::{Value, ValueType};

use super::context::Wire;

/// Every integer up to this is a double without loss; above it a number would silently become another.
const EXACT_MAX: i128 = 1 << 53;

/// 2^63, from which on there is no int64 (-2^63 as a float is told apart by nobody).
const INT64_END: f64 = 9_223_372_036_854_775_808.0;

/// A number for people: not the hundreds of digits that one of 64 bits may have.
pub(super) fn shown(float: f64) -> String {
    if float == 0.0 || (1e-5..1e17).contains(&float.abs()) { float.to_string() } else { format!("{float:e}") }
}

/// A scalar as it was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Raw<'a> {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// Why a scalar is not a value: to follow the metric's name.
#[derive(Debug, PartialEq)]
pub(super) struct Wrong {
    pub(super) reason: &'static str,
    pub(super) text: String,
    /// The bound that was passed.
    pub(super) limit: Option<i128>,
}

fn wrong<T>(reason: &'static str, text: String) -> Result<T, Wrong> {
    Err(Wrong { reason, text, limit: None })
}

fn out_of_range<T>(text: String, limit: i128) -> Result<T, Wrong> {
    Err(Wrong { reason: "INTEGER_OUT_OF_RANGE", text, limit: Some(limit) })
}

/// The value of `raw`: what is declared, else a double for a number, and what it is for the rest. A typed wire's integer
/// stays one.
pub(super) fn typed(
    raw: &Raw<'_>,
    declared: Option<ValueType>,
    wire: Wire,
    payload: &[u8],
) -> Result<Value, Wrong> {
    match (raw, declared) {
        (Raw::Int(int), None) if wire == Wire::Proto => int64(*int),
        (Raw::Int(int), None | Some(ValueType::Double)) => exact(*int),
        (Raw::Float(float), None | Some(ValueType::Double)) => finite(*float, wire, payload),
        (Raw::Int(int), Some(ValueType::Int64)) => int64(*int),
        (Raw::Float(float), Some(ValueType::Int64)) => whole(*float, wire, payload),
        (Raw::Bool(value), None | Some(ValueType::Bool)) => Ok(Value::Bool(*value)),
        (Raw::Text(text), None | Some(ValueType::String)) => Ok(Value::String((*text).to_owned())),
        (Raw::Bytes(bytes), None | Some(ValueType::Bytes)) => Ok(Value::Bytes(Bytes::copy_from_slice(bytes))),
        (Raw::Text(text), Some(ValueType::Bytes)) if wire == Wire::Json => base64(text),
        (_, Some(declared)) => {
            wrong("TYPE_MISMATCH", format!("is declared as {declared}, and the payload has {}", kind(raw)))
        }
        (Raw::Null, None) => wrong("VALUE_MISSING", "has no value".to_owned()),
    }
}

fn kind(raw: &Raw<'_>) -> &'static str {
    match raw {
        Raw::Null => "null",
        Raw::Bool(_) => "a truth value",
        Raw::Int(_) | Raw::Float(_) => "a number",
        Raw::Text(_) => "text",
        Raw::Bytes(_) => "bytes",
    }
}

fn int64(int: i128) -> Result<Value, Wrong> {
    i64::try_from(int).map(Value::Int64).or_else(|_| not_int64(&int.to_string(), int < 0))
}

fn not_int64<T>(int: &str, negative: bool) -> Result<T, Wrong> {
    let limit = if negative { i64::MIN } else { i64::MAX };
    let text = format!("is {int}, which is not within {} to {} (int64)", i64::MIN, i64::MAX);
    out_of_range(text, limit.into())
}

#[allow(clippy::cast_precision_loss)] // up to 2^53 there is none
fn exact(int: i128) -> Result<Value, Wrong> {
    if int.unsigned_abs() > EXACT_MAX.unsigned_abs() {
        return beyond(&int.to_string());
    }
    Ok(Value::Double(int as f64))
}

fn beyond<T>(int: &str) -> Result<T, Wrong> {
    let text =
        format!("is {int}, beyond ±2^53 ({EXACT_MAX}) where a double is not exact; declare it as int64");
    out_of_range(text, if int.starts_with('-') { -EXACT_MAX } else { EXACT_MAX })
}

fn finite(float: f64, wire: Wire, payload: &[u8]) -> Result<Value, Wrong> {
    if !float.is_finite() {
        return wrong("NUMBER_NOT_FINITE", format!("is {float}; NaN and infinities are refused"));
    }
    // JSON integers too large for 64 bits come as floats.
    if wire == Wire::Json
        && float.abs() >= 9e18
        && let Some(int) = integer_literal(payload, float)
    {
        return beyond(int);
    }
    Ok(Value::Double(float))
}

#[allow(clippy::cast_possible_truncation)] // within ±2^53 and without a fraction there is none
fn whole(float: f64, wire: Wire, payload: &[u8]) -> Result<Value, Wrong> {
    if float.fract() != 0.0 || !float.is_finite() {
        return wrong(
            "TYPE_MISMATCH",
            format!("is declared as int64, and {} is not an integer", shown(float)),
        );
    }
    if float.abs() >= INT64_END {
        let literal = (wire == Wire::Json).then(|| integer_literal(payload, float)).flatten();
        return not_int64(literal.unwrap_or(&shown(float)), float < 0.0);
    }
    if float.abs() > EXACT_MAX as f64 {
        let text = format!(
            "is {}, beyond ±2^53 ({EXACT_MAX}) where a double is not exact; send an integer",
            shown(float)
        );
        return out_of_range(text, if float < 0.0 { -EXACT_MAX } else { EXACT_MAX });
    }
    Ok(Value::Int64(float as i64))
}

fn base64(text: &str) -> Result<Value, Wrong> {
    match STANDARD.decode(text) {
        Ok(bytes) => Ok(Value::Bytes(bytes.into())),
        Err(error) => {
            wrong("TYPE_MISMATCH", format!("is declared as bytes, and its text is not base64: {error}"))
        }
    }
}

/// The literal without fraction and exponent in `payload` that reads as `float`.
fn integer_literal(payload: &[u8], float: f64) -> Option<&str> {
    let number = |b: &u8| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E');
    payload
        .split(|b| !number(b))
        .filter(|literal| literal.len() >= 19 && literal.iter().all(|b| b.is_ascii_digit() || *b == b'-'))
        .filter_map(|literal| std::str::from_utf8(literal).ok())
        .find(|literal| literal.parse() == Ok(float))
        .map(|literal| literal.get(..40).unwrap_or(literal))
}
