//! The bodies of stored rows: one reading, one newest value. Opaque to the engine that keeps them.
//!
//! The event time, the device and the position are in the row's key and not here. The first byte is the format's
//! version. The engine checks its own blocks, so there is no checksum here.

use std::{str, sync::Arc};

use bytes::Bytes;
use weir_core::{Error, ErrorKind, Reading, Result, Timestamp, Value, ValueType};

use crate::wire::{Reader, put_varint, tagged_type, type_tag, unzigzag, zigzag};

/// The version that this release writes, and the only one that it reads.
const VERSION: u8 = 1;
/// Flag of a row: a claimed time follows.
const CLAIMED: u8 = 1;
/// Flag of a value: it is late.
const LATE: u8 = 0x80;
/// Flag of a truth value: it is true.
const TRUE: u8 = 0x40;

/// A stored reading, owned.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// When the edge received it.
    pub received_at: Timestamp,
    /// The event time that the device claimed, where arrival replaced it.
    pub claimed_ts: Option<Timestamp>,
    /// Metric, value, whether it was late; in the order of the payload.
    pub values: Vec<(Arc<str>, Value, bool)>,
}

/// A stored reading as its bytes: for a reader that wants one metric of many rows, or none of the names owned.
#[derive(Debug, Clone, Copy)]
pub struct RowView<'a> {
    /// When the edge received it.
    pub received_at: Timestamp,
    /// The event time that the device claimed, where arrival replaced it.
    pub claimed_ts: Option<Timestamp>,
    count: usize,
    values: &'a [u8],
}

/// One value of a [`RowView`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field<'a> {
    /// The metric.
    pub metric: &'a str,
    /// Its value.
    pub value: ValueRef<'a>,
    /// Whether it was late.
    pub late: bool,
}

/// A value that borrows its text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueRef<'a> {
    /// As [`Value::Double`].
    Double(f64),
    /// As [`Value::Int64`].
    Int64(i64),
    /// As [`Value::Bool`].
    Bool(bool),
    /// As [`Value::String`].
    String(&'a str),
    /// As [`Value::Bytes`].
    Bytes(&'a [u8]),
}

impl ValueRef<'_> {
    /// The owned value.
    pub fn to_value(self) -> Value {
        match self {
            Self::Double(value) => Value::Double(value),
            Self::Int64(value) => Value::Int64(value),
            Self::Bool(value) => Value::Bool(value),
            Self::String(text) => Value::String(text.to_owned()),
            Self::Bytes(bytes) => Value::Bytes(Bytes::copy_from_slice(bytes)),
        }
    }

    /// As [`Value::as_f64`].
    #[allow(clippy::cast_precision_loss)] // what a number beyond 2^53 means to an aggregate is the same in Value
    pub fn as_f64(self) -> Option<f64> {
        match self {
            Self::Double(value) => Some(value),
            Self::Int64(value) => Some(value as f64),
            Self::Bool(value) => Some(f64::from(u8::from(value))),
            Self::String(_) | Self::Bytes(_) => None,
        }
    }
}

/// A stored newest value.
#[derive(Debug, Clone, PartialEq)]
pub struct Latest {
    /// When the edge received it.
    pub received_at: Timestamp,
    /// The value.
    pub value: Value,
}

/// A reading as a row's body; `late(i)` says whether its i-th value is late. The same reading and bits give the same
/// bytes for ever.
pub fn encode_row(reading: &Reading, late: impl Fn(usize) -> bool) -> Bytes {
    let mut out = Vec::with_capacity(20 + reading.values.len() * 24);
    out.push(VERSION);
    out.push(if reading.claimed_ts.is_some() { CLAIMED } else { 0 });
    out.extend_from_slice(&reading.received_at.as_micros().to_le_bytes());
    if let Some(claimed) = reading.claimed_ts {
        out.extend_from_slice(&claimed.as_micros().to_le_bytes());
    }
    put_varint(&mut out, reading.values.len() as u64);
    for (index, (metric, value)) in reading.values.iter().enumerate() {
        put_varint(&mut out, metric.len() as u64);
        out.extend_from_slice(metric.as_bytes());
        put_value(&mut out, value, late(index));
    }
    out.into()
}

/// A row from its body.
///
/// # Errors
/// `ROW_INVALID` (`DataLoss`) where the bytes are not a whole row; `ROW_VERSION_UNKNOWN` (`FailedPrecondition`) where a
/// newer release wrote it.
pub fn decode_row(body: &[u8]) -> Result<Row> {
    let view = RowView::parse(body)?;
    let mut values = Vec::with_capacity(view.count.min(view.values.len() / 3)); // a value has at least three bytes
    for field in view.fields() {
        let field = field?;
        values.push((Arc::from(field.metric), field.value.to_value(), field.late));
    }
    Ok(Row { received_at: view.received_at, claimed_ts: view.claimed_ts, values })
}

impl<'a> RowView<'a> {
    /// Reads the head of a row's body; the values are read by [`RowView::fields`].
    ///
    /// # Errors
    /// As [`decode_row`].
    pub fn parse(body: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        version(&mut reader, "row")?;
        let mut parse = || -> Option<Self> {
            let flags = reader.byte().filter(|flags| *flags <= CLAIMED)?;
            let received_at = Timestamp::from_micros(reader.i64()?);
            let claimed_ts = match flags {
                CLAIMED => Some(Timestamp::from_micros(reader.i64()?)),
                _ => None,
            };
            let count = reader.size()?;
            Some(Self { received_at, claimed_ts, count, values: reader.take(reader.left())? })
        };
        parse().ok_or_else(|| damaged("row"))
    }

    /// How many values it says it has.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether it has no value.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Its values in order; an error ends them.
    pub fn fields(&self) -> impl Iterator<Item = Result<Field<'a>>> + use<'a> {
        let (mut reader, mut left) = (Reader::new(self.values), self.count);
        std::iter::from_fn(move || {
            if left == 0 && reader.is_empty() {
                return None;
            }
            let field = left.checked_sub(1).and_then(|fewer| {
                left = fewer;
                field(&mut reader)
            });
            if field.is_none() {
                (reader, left) = (Reader::new(&[]), 0);
            }
            Some(field.ok_or_else(|| damaged("row")))
        })
    }
}

/// A newest value as its cell's body.
pub fn encode_latest(value: &Value, received_at: Timestamp) -> Bytes {
    let mut out = Vec::with_capacity(24);
    out.push(VERSION);
    out.extend_from_slice(&received_at.as_micros().to_le_bytes());
    put_value(&mut out, value, false);
    out.into()
}

/// A newest value from its cell's body.
///
/// # Errors
/// As [`decode_row`].
pub fn decode_latest(body: &[u8]) -> Result<Latest> {
    let mut reader = Reader::new(body);
    version(&mut reader, "latest value")?;
    let mut parse = || -> Option<Latest> {
        let received_at = Timestamp::from_micros(reader.i64()?);
        let (value, late) = value(&mut reader)?;
        (!late && reader.is_empty()).then(|| Latest { received_at, value: value.to_value() })
    };
    parse().ok_or_else(|| damaged("latest value"))
}

fn put_value(out: &mut Vec<u8>, value: &Value, late: bool) {
    let late = if late { LATE } else { 0 };
    out.push(type_tag(value.value_type()) | late | if *value == Value::Bool(true) { TRUE } else { 0 });
    let mut blob = |bytes: &[u8]| {
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    };
    match value {
        Value::String(text) => blob(text.as_bytes()),
        Value::Bytes(bytes) => blob(bytes),
        Value::Double(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::Int64(value) => put_varint(out, zigzag(*value)),
        Value::Bool(_) => {}
    }
}

fn field<'a>(reader: &mut Reader<'a>) -> Option<Field<'a>> {
    let len = reader.size()?;
    let metric = reader.text(len)?;
    let (value, late) = value(reader)?;
    Some(Field { metric, value, late })
}

fn value<'a>(reader: &mut Reader<'a>) -> Option<(ValueRef<'a>, bool)> {
    let tag = reader.byte()?;
    let is_true = tag & TRUE != 0;
    let value_type = tagged_type(tag & !(LATE | TRUE))?;
    let value = match value_type {
        ValueType::Bool => ValueRef::Bool(is_true),
        _ if is_true => return None,
        ValueType::Double => ValueRef::Double(f64::from_le_bytes(reader.array()?)),
        ValueType::Int64 => ValueRef::Int64(unzigzag(reader.varint()?)),
        ValueType::String => {
            let len = reader.size()?;
            ValueRef::String(reader.text(len)?)
        }
        ValueType::Bytes => {
            let len = reader.size()?;
            ValueRef::Bytes(reader.take(len)?)
        }
    };
    Some((value, tag & LATE != 0))
}

fn version(reader: &mut Reader<'_>, what: &str) -> Result<()> {
    match reader.byte() {
        Some(VERSION) => Ok(()),
        None => Err(damaged(what)),
        Some(other) => Err(Error::new(
            ErrorKind::FailedPrecondition,
            "ROW_VERSION_UNKNOWN",
            format!("stored {what} has version {other}, and this release reads version {VERSION}"),
        )),
    }
}

fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::DataLoss, "ROW_INVALID", format!("stored {what} is damaged"))
}
