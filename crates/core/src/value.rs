//! What a sensor can say.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The type of a [`Value`], by the name that the CLI's CSV and profiles use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    /// IEEE 754 binary64, finite.
    Double,
    /// Signed 64-bit integer.
    Int64,
    /// Truth value.
    Bool,
    /// UTF-8 text.
    String,
    /// Opaque bytes.
    Bytes,
}

impl ValueType {
    /// `double`, `int64`, `bool`, `string` or `bytes`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Double => "double",
            Self::Int64 => "int64",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Bytes => "bytes",
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One value of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Value {
    /// A finite double; the edge refuses NaN and infinities.
    Double(f64),
    /// A signed integer, only where the profile declares it or the wire is typed.
    Int64(i64),
    /// A truth value.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// Opaque bytes.
    Bytes(Bytes),
}

impl Value {
    /// The type of this value.
    pub const fn value_type(&self) -> ValueType {
        match self {
            Self::Double(_) => ValueType::Double,
            Self::Int64(_) => ValueType::Int64,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Bytes(_) => ValueType::Bytes,
        }
    }

    /// The number that aggregates and rules see: doubles and integers as they are, truth values as 0 and 1, else none.
    #[allow(clippy::cast_precision_loss)]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Double(value) => Some(*value),
            Self::Int64(value) => Some(*value as f64),
            Self::Bool(value) => Some(f64::from(u8::from(*value))),
            Self::String(_) | Self::Bytes(_) => None,
        }
    }
}
