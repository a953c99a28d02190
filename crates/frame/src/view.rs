//! Reading a checked frame.

use std::{str, sync::Arc};

use bytes::Bytes;
use weir_core::{DeviceId, Message, Reading, TenantId, Timestamp, Uid, Value, ValueType};

use crate::{
    decode::{Frame, pair},
    dictionary::{Counts, Device},
    wire::entry,
};

/// The messages of a frame in order; stepping over one costs a few additions for each of its readings.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    frame: &'a Frame,
    message: u32,
    reading: u32,
    before: Counts,
}

impl<'a> Messages<'a> {
    pub(crate) fn new(frame: &'a Frame) -> Self {
        Self { frame, message: 0, reading: 0, before: Counts::default() }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = MessageView<'a>;

    fn next(&mut self) -> Option<MessageView<'a>> {
        let [device, readings] = pair(&self.frame.columns.messages, self.message as usize)?;
        let view = MessageView {
            frame: self.frame,
            device: self.frame.devices.get(device as usize)?,
            message: self.message,
            first: self.reading,
            end: self.reading + readings,
            before: self.before,
        };
        for index in view.first..view.end {
            self.before.add(self.frame.counts_of(index)?);
        }
        self.message += 1;
        self.reading = view.end;
        Some(view)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.frame.messages - self.message) as usize;
        (left, Some(left))
    }
}

/// One message; its readings are decoded only when asked for.
#[derive(Debug, Clone, Copy)]
pub struct MessageView<'a> {
    frame: &'a Frame,
    device: &'a Device,
    message: u32,
    first: u32,
    end: u32,
    before: Counts,
}

impl<'a> MessageView<'a> {
    /// Whose it is.
    pub const fn tenant(&self) -> &'a TenantId {
        &self.device.tenant
    }

    /// The device's public id.
    pub const fn device(&self) -> &'a DeviceId {
        &self.device.id
    }

    /// The device's internal uid.
    pub const fn uid(&self) -> Uid {
        self.device.uid
    }

    /// The index in the frame of its first reading.
    pub const fn first_reading(&self) -> u32 {
        self.first
    }

    /// How many readings it has.
    pub const fn reading_count(&self) -> u32 {
        self.end - self.first
    }

    /// W3C `traceparent` of the sender, where it gave one.
    pub fn trace_context(&self) -> Option<&'a str> {
        let traces = &self.frame.traces;
        let found = traces.binary_search_by_key(&self.message, |(message, ..)| *message).ok()?;
        let (_, at, len) = *traces.get(found)?;
        let at = at as usize;
        str::from_utf8(self.frame.columns.traces.get(at..at + usize::from(len))?).ok()
    }

    /// Its readings, each with its index in the frame. Metric names are shared with the frame.
    pub const fn readings(&self) -> Readings<'a> {
        Readings { frame: self.frame, next: self.first, end: self.end, at: self.before }
    }

    /// The message as it was pushed.
    pub fn to_message(&self) -> Message {
        Message {
            tenant: self.tenant().clone(),
            device: self.device().clone(),
            uid: self.uid(),
            readings: self.readings().map(|(_, reading)| reading).collect(),
            trace_context: self.trace_context().map(Arc::from),
        }
    }
}

/// The readings of a message: (index in the frame, reading).
#[derive(Debug, Clone)]
pub struct Readings<'a> {
    frame: &'a Frame,
    next: u32,
    end: u32,
    at: Counts,
}

// `Frame::decode` has checked every index, end and string: a `?` here ends the iteration only where it has not.
impl Iterator for Readings<'_> {
    type Item = (u32, Reading);

    fn next(&mut self) -> Option<(u32, Reading)> {
        if self.next == self.end {
            return None;
        }
        let (index, row) = (self.next, self.next as usize);
        let (frame, columns) = (self.frame, &self.frame.columns);
        let fields = frame.shapes.fields(frame.shape_of(index)?)?;
        let mut values = Vec::with_capacity(fields.len());
        for (name, value_type) in fields {
            values.push((Arc::clone(frame.names.get(*name as usize)?), self.value(*value_type)?));
        }
        self.next += 1;
        let time = |column| entry(column, row).map(|bytes| Timestamp::from_micros(i64::from_le_bytes(bytes)));
        let reading = Reading {
            ts: time(&columns.times)?,
            received_at: time(&columns.received)?,
            claimed_ts: frame.claim(index),
            values,
        };
        Some((index, reading))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.end - self.next) as usize;
        (left, Some(left))
    }
}

impl Readings<'_> {
    fn value(&mut self, value_type: ValueType) -> Option<Value> {
        let (columns, at) = (&self.frame.columns, &mut self.at);
        Some(match value_type {
            ValueType::Double => {
                Value::Double(f64::from_le_bytes(entry(&columns.doubles, next(&mut at.doubles))?))
            }
            ValueType::Int64 => Value::Int64(i64::from_le_bytes(entry(&columns.ints, next(&mut at.ints))?)),
            ValueType::Bool => Value::Bool(*columns.bools.get(next(&mut at.bools))? != 0),
            ValueType::String => {
                let text = blob(&columns.string_ends, &columns.string_heap, next(&mut at.strings))?;
                Value::String(str::from_utf8(text).ok()?.to_owned())
            }
            // Copied, so that a value that is kept does not keep its whole frame.
            ValueType::Bytes => Value::Bytes(Bytes::copy_from_slice(blob(
                &columns.bytes_ends,
                &columns.bytes_heap,
                next(&mut at.bytes),
            )?)),
        })
    }
}

impl Frame {
    fn shape_of(&self, reading: u32) -> Option<u32> {
        entry(&self.columns.reading_shapes, reading as usize).map(u32::from_le_bytes)
    }

    fn counts_of(&self, reading: u32) -> Option<&Counts> {
        self.shapes.counts(self.shape_of(reading)?)
    }

    fn claim(&self, reading: u32) -> Option<Timestamp> {
        let (claims, _) = self.columns.claims.as_chunks::<12>();
        let index = |claim: &[u8; 12]| claim.first_chunk().map_or(0, |index| u32::from_le_bytes(*index));
        let claim = claims.get(claims.binary_search_by_key(&reading, index).ok()?)?;
        claim.last_chunk().map(|ts| Timestamp::from_micros(i64::from_le_bytes(*ts)))
    }
}

const fn next(index: &mut usize) -> usize {
    let this = *index;
    *index += 1;
    this
}

fn blob<'a>(ends: &[u8], heap: &'a [u8], index: usize) -> Option<&'a [u8]> {
    let end = |index| entry(ends, index).map(|end| u32::from_le_bytes(end) as usize);
    let start = match index.checked_sub(1) {
        Some(before) => end(before)?,
        None => 0,
    };
    heap.get(start..end(index)?)
}
