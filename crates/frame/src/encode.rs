//! Building a frame, message by message.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use weir_core::{DeviceId, Error, ErrorKind, Message, Reading, Result, TenantId, Uid, Value};

use crate::{
    FRAME_CLOSE, MESSAGE_MAX, section,
    wire::{self, ENTRY, HEADER, MAGIC, VERSION, put_varint},
};

/// Shapes that are compared before the maps are asked: as many kinds of devices as often take turns.
const RECENT_MAX: usize = 4;

/// Builds one frame. Push until [`Encoder::is_full`] or nothing waits, then [`Encoder::finish`].
#[derive(Debug, Default)]
pub struct Encoder {
    tenants: Vec<TenantId>,
    devices: Vec<(TenantId, DeviceId, Uid)>,
    device_of: HashMap<Uid, u32>,
    name_of: HashMap<Arc<str>, u32>,
    shape_of: HashMap<Vec<u32>, u32>,
    /// The shapes met last, newest first: most readings have one of them, which spares the maps.
    recent: VecDeque<Recent>,
    fields: Vec<u32>,
    messages: u32,
    readings: u32,
    columns: Columns,
}

/// A shape by its metrics and their type tags.
#[derive(Debug)]
struct Recent {
    fields: Vec<(Arc<str>, u8)>,
    shape: u32,
}

/// One byte vector for each section of [`section`].
#[derive(Debug, Default)]
struct Columns {
    tenants: Vec<u8>,
    devices: Vec<u8>,
    names: Vec<u8>,
    shapes: Vec<u8>,
    messages: Vec<u8>,
    times: Vec<u8>,
    received: Vec<u8>,
    reading_shapes: Vec<u8>,
    doubles: Vec<u8>,
    ints: Vec<u8>,
    bools: Vec<u8>,
    string_ends: Vec<u8>,
    string_heap: Vec<u8>,
    bytes_ends: Vec<u8>,
    bytes_heap: Vec<u8>,
    traces: Vec<u8>,
    claims: Vec<u8>,
}

impl Columns {
    /// In the order of [`section::ALL`].
    const fn in_order(&self) -> [&Vec<u8>; section::ALL.len()] {
        [
            &self.tenants,
            &self.devices,
            &self.names,
            &self.shapes,
            &self.messages,
            &self.times,
            &self.received,
            &self.reading_shapes,
            &self.doubles,
            &self.ints,
            &self.bools,
            &self.string_ends,
            &self.string_heap,
            &self.bytes_ends,
            &self.bytes_heap,
            &self.traces,
            &self.claims,
        ]
    }
}

impl Encoder {
    /// An empty frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a message and returns the index of its first reading in the frame.
    ///
    /// # Errors
    /// `MESSAGE_TOO_LARGE` where the message alone encodes above [`MESSAGE_MAX`] (never retry it); `FRAME_FULL` where the
    /// frame had reached [`FRAME_CLOSE`] before (finish it, and push to the next).
    pub fn push(&mut self, message: &Message) -> Result<u32> {
        if self.is_full() {
            let text = format!("frame is full: it has reached {FRAME_CLOSE} bytes");
            return Err(Error::new(ErrorKind::ResourceExhausted, "FRAME_FULL", text).with_limit(FRAME_CLOSE));
        }
        check(message)?;
        Ok(self.append(message))
    }

    /// Whether it takes no more messages.
    pub fn is_full(&self) -> bool {
        self.size() >= FRAME_CLOSE
    }

    /// Whether nothing was pushed.
    pub const fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// How many messages it has.
    pub const fn messages(&self) -> u32 {
        self.messages
    }

    /// How many readings it has.
    pub const fn readings(&self) -> u32 {
        self.readings
    }

    /// The bytes that [`Encoder::finish`] would give now.
    pub fn size(&self) -> usize {
        let sections = self.columns.in_order();
        let full = sections.iter().filter(|column| !column.is_empty()).count();
        HEADER + full * ENTRY + sections.iter().map(|column| column.len()).sum::<usize>()
    }

    /// The frame.
    pub fn finish(self) -> Bytes {
        let mut out = Vec::with_capacity(self.size());
        let sections = || section::ALL.iter().zip(self.columns.in_order()).filter(|(_, c)| !c.is_empty());
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        out.push(sections().count() as u8);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.messages.to_le_bytes());
        out.extend_from_slice(&self.readings.to_le_bytes());
        for (tag, column) in sections() {
            out.extend_from_slice(&[*tag, 0, 0, 0]);
            out.extend_from_slice(&(column.len() as u32).to_le_bytes());
        }
        for (_, column) in sections() {
            out.extend_from_slice(column);
        }
        let crc = checksum(&out).to_le_bytes();
        if let Some(place) = out.get_mut(4..8) {
            place.copy_from_slice(&crc);
        }
        out.into()
    }

    fn append(&mut self, message: &Message) -> u32 {
        let first = self.readings;
        let device = self.device(message);
        self.columns.messages.extend_from_slice(&device.to_le_bytes());
        self.columns.messages.extend_from_slice(&(message.readings.len() as u32).to_le_bytes());
        if let Some(trace) = message.trace_context.as_deref().and_then(short) {
            self.columns.traces.extend_from_slice(&self.messages.to_le_bytes());
            self.columns.traces.push(trace.len() as u8);
            self.columns.traces.extend_from_slice(trace.as_bytes());
        }
        for reading in &message.readings {
            self.reading(reading);
        }
        self.messages += 1;
        first
    }

    fn reading(&mut self, reading: &Reading) {
        let shape = self.shape(reading);
        let columns = &mut self.columns;
        columns.times.extend_from_slice(&reading.ts.as_micros().to_le_bytes());
        columns.received.extend_from_slice(&reading.received_at.as_micros().to_le_bytes());
        columns.reading_shapes.extend_from_slice(&shape.to_le_bytes());
        if let Some(claimed) = reading.claimed_ts {
            columns.claims.extend_from_slice(&self.readings.to_le_bytes());
            columns.claims.extend_from_slice(&claimed.as_micros().to_le_bytes());
        }
        for (_, value) in &reading.values {
            match value {
                Value::Double(value) => columns.doubles.extend_from_slice(&value.to_le_bytes()),
                Value::Int64(value) => columns.ints.extend_from_slice(&value.to_le_bytes()),
                Value::Bool(value) => columns.bools.push(u8::from(*value)),
                Value::String(text) => {
                    put_blob(&mut columns.string_ends, &mut columns.string_heap, text.as_bytes());
                }
                Value::Bytes(bytes) => put_blob(&mut columns.bytes_ends, &mut columns.bytes_heap, bytes),
            }
        }
        self.readings += 1;
    }

    fn device(&mut self, message: &Message) -> u32 {
        let same = |(tenant, device, uid): &(TenantId, DeviceId, Uid)| {
            *uid == message.uid && *tenant == message.tenant && *device == message.device
        };
        let known = self.device_of.get(&message.uid).copied();
        if let Some(index) = known
            && self.devices.get(index as usize).is_some_and(same)
        {
            return index;
        }
        let tenant = self.tenants.iter().position(|known| *known == message.tenant).unwrap_or_else(|| {
            put_short(&mut self.columns.tenants, message.tenant.as_str());
            self.tenants.push(message.tenant.clone());
            self.tenants.len() - 1
        });
        self.columns.devices.extend_from_slice(&message.uid.to_bytes());
        put_varint(&mut self.columns.devices, tenant as u64);
        put_short(&mut self.columns.devices, message.device.as_str());
        let index = self.devices.len() as u32;
        self.devices.push((message.tenant.clone(), message.device.clone(), message.uid));
        self.device_of.insert(message.uid, index);
        index
    }

    fn shape(&mut self, reading: &Reading) -> u32 {
        let tag = |value: &Value| wire::type_tag(value.value_type());
        let same = |recent: &&Recent| {
            let mut pairs = recent.fields.iter().zip(&reading.values);
            recent.fields.len() == reading.values.len()
                && pairs.all(|((known, known_tag), (name, value))| *known_tag == tag(value) && known == name)
        };
        if let Some(recent) = self.recent.iter().find(same) {
            return recent.shape;
        }
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        for (name, value) in &reading.values {
            fields.push(self.name(name) << 3 | u32::from(tag(value)));
        }
        let shape = self.shape_of.get(&fields).copied().unwrap_or_else(|| {
            put_varint(&mut self.columns.shapes, fields.len() as u64);
            for field in &fields {
                put_varint(&mut self.columns.shapes, u64::from(*field));
            }
            let shape = self.shape_of.len() as u32;
            self.shape_of.insert(fields.clone(), shape);
            shape
        });
        self.fields = fields;
        self.recent.truncate(RECENT_MAX - 1);
        let fields = reading.values.iter().map(|(name, value)| (Arc::clone(name), tag(value))).collect();
        self.recent.push_front(Recent { fields, shape });
        shape
    }

    fn name(&mut self, name: &Arc<str>) -> u32 {
        if let Some(index) = self.name_of.get(name) {
            return *index;
        }
        put_varint(&mut self.columns.names, name.len() as u64);
        self.columns.names.extend_from_slice(name.as_bytes());
        let index = self.name_of.len() as u32;
        self.name_of.insert(Arc::clone(name), index);
        index
    }
}

/// CRC32C of a frame without the field that holds it.
pub(crate) fn checksum(frame: &[u8]) -> u32 {
    let (head, rest) = frame.split_at_checked(wire::CHECKED_FROM).unwrap_or((frame, &[]));
    crc32c::crc32c_append(crc32c::crc32c(head.get(..4).unwrap_or(head)), rest)
}

/// The bytes of a frame of this message alone.
pub fn encoded_len(message: &Message) -> usize {
    let mut alone = Encoder::new();
    alone.append(message);
    alone.size()
}

/// Whether a message may go into a frame: what the edge asks before it queues one.
///
/// # Errors
/// `MESSAGE_TOO_LARGE` where the message alone encodes above [`MESSAGE_MAX`].
pub fn check(message: &Message) -> Result<()> {
    // The cheap bound counts every name as new; only what it doubts is encoded to be measured.
    if len_bound(message) <= MESSAGE_MAX || encoded_len(message) <= MESSAGE_MAX {
        return Ok(());
    }
    let text = format!(
        "message of device {:?} with {} readings encodes to more than {MESSAGE_MAX} bytes; send it in parts",
        message.device.as_str(),
        message.readings.len()
    );
    Err(Error::new(ErrorKind::InvalidArgument, "MESSAGE_TOO_LARGE", text)
        .with_field("readings")
        .with_limit(MESSAGE_MAX))
}

/// At least what [`encoded_len`] gives, without looking a name up.
fn len_bound(message: &Message) -> usize {
    const FIXED: usize = HEADER + section::ALL.len() * ENTRY + 512; // both ids, the uid, a trace context
    const READING: usize = 8 + 8 + 4 + 12 + 2; // times, shape, claimed time, the shape's field count
    const VALUE: usize = 8 + 5 + 2; // the value or where it ends, its field in the shape, the length of its name
    let heap = |value: &Value| match value {
        Value::String(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Double(_) | Value::Int64(_) | Value::Bool(_) => 0,
    };
    let values = message.readings.iter().flat_map(|reading| &reading.values);
    FIXED
        + message.readings.len() * READING
        + values.map(|(name, value)| VALUE + name.len() + heap(value)).sum::<usize>()
}

fn put_blob(ends: &mut Vec<u8>, heap: &mut Vec<u8>, blob: &[u8]) {
    heap.extend_from_slice(blob);
    ends.extend_from_slice(&(heap.len() as u32).to_le_bytes());
}

fn put_short(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8); // the alphabets' limits are 63 and 128
    out.extend_from_slice(text.as_bytes());
}

/// A trace context is a hint: one that is not of its version's length is left out rather than cut.
fn short(trace: &str) -> Option<&str> {
    (trace.len() <= usize::from(u8::MAX)).then_some(trace)
}
