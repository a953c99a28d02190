//! Checking a frame once, so that reading it cannot fail.

use std::sync::Arc;

use bytes::Bytes;
use weir_core::{Error, ErrorKind, Result};

use crate::{
    FRAME_MAX,
    dictionary::{self, Counts, Device, Shapes},
    encode::checksum,
    section,
    view::Messages,
    wire::{ENTRY, HEADER, MAGIC, Reader, VERSION, entry},
};

/// A frame whose bytes have been checked. Holds them; dictionaries are parsed, values are decoded as they are read.
#[derive(Debug, Clone)]
pub struct Frame {
    pub(crate) devices: Vec<Device>,
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) shapes: Shapes,
    pub(crate) messages: u32,
    pub(crate) readings: u32,
    pub(crate) columns: Columns,
    /// (message, where its trace context begins in its section, its length), ascending.
    pub(crate) traces: Vec<(u32, u32, u8)>,
}

/// The sections that are read by index.
#[derive(Debug, Clone, Default)]
pub(crate) struct Columns {
    pub(crate) messages: Bytes,
    pub(crate) times: Bytes,
    pub(crate) received: Bytes,
    pub(crate) reading_shapes: Bytes,
    pub(crate) doubles: Bytes,
    pub(crate) ints: Bytes,
    pub(crate) bools: Bytes,
    pub(crate) string_ends: Bytes,
    pub(crate) string_heap: Bytes,
    pub(crate) bytes_ends: Bytes,
    pub(crate) bytes_heap: Bytes,
    pub(crate) traces: Bytes,
    pub(crate) claims: Bytes,
}

/// The dictionaries' sections.
#[derive(Default)]
struct Dictionaries {
    tenants: Bytes,
    devices: Bytes,
    names: Bytes,
    shapes: Bytes,
}

impl Frame {
    /// Checks header, checksum, dictionaries and columns.
    ///
    /// # Errors
    /// `FRAME_INVALID` (`DataLoss`) where the bytes are not a whole frame; `FRAME_VERSION_UNKNOWN`
    /// (`FailedPrecondition`) where a newer release wrote it. A retry cannot help.
    pub fn decode(bytes: Bytes) -> Result<Self> {
        let (messages, readings, sections) = header(&bytes)?;
        let (dictionaries, columns) = split(&bytes, sections)?;
        let devices = dictionary::devices(&dictionaries.tenants, &dictionaries.devices)
            .ok_or_else(|| damaged("devices"))?;
        let names = dictionary::names(&dictionaries.names).ok_or_else(|| damaged("metric names"))?;
        let shapes = Shapes::parse(&dictionaries.shapes, names.len()).ok_or_else(|| damaged("shapes"))?;
        let traces = traces(&columns.traces, messages).ok_or_else(|| damaged("trace contexts"))?;
        let frame = Self { devices, names, shapes, messages, readings, columns, traces };
        frame.check_messages().ok_or_else(|| damaged("messages"))?;
        frame.check_values().ok_or_else(|| damaged("values"))?;
        frame.check_claims().ok_or_else(|| damaged("claimed times"))?;
        Ok(frame)
    }

    /// The messages in order.
    pub fn messages(&self) -> Messages<'_> {
        Messages::new(self)
    }

    /// How many messages it has.
    pub const fn message_count(&self) -> u32 {
        self.messages
    }

    /// How many readings it has: their indices are 0 to this.
    pub const fn reading_count(&self) -> u32 {
        self.readings
    }

    /// Each metric name once.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    fn check_messages(&self) -> Option<()> {
        let mut readings = 0_u64;
        for index in 0..self.messages as usize {
            let [device, count] = pair(&self.columns.messages, index)?;
            self.devices.get(device as usize)?;
            readings += u64::from(count);
        }
        (self.columns.messages.len() == self.messages as usize * 8 && readings == u64::from(self.readings))
            .then_some(())
    }

    fn check_values(&self) -> Option<()> {
        let columns = &self.columns;
        let readings = self.readings as usize;
        if columns.times.len() != readings * 8
            || columns.received.len() != readings * 8
            || columns.reading_shapes.len() != readings * 4
        {
            return None;
        }
        let mut sum = Counts::default();
        for index in 0..readings {
            let shape = u32::from_le_bytes(entry(&columns.reading_shapes, index)?);
            sum.add(self.shapes.counts(shape)?);
        }
        let sizes_agree = columns.doubles.len() == sum.doubles.checked_mul(8)?
            && columns.ints.len() == sum.ints.checked_mul(8)?
            && columns.bools.len() == sum.bools
            && columns.string_ends.len() == sum.strings.checked_mul(4)?
            && columns.bytes_ends.len() == sum.bytes.checked_mul(4)?;
        let text = std::str::from_utf8(&columns.string_heap).ok()?;
        (sizes_agree
            && columns.bools.iter().all(|byte| *byte <= 1)
            && ends_rise(&columns.string_ends, text.len(), |at| text.is_char_boundary(at))
            && ends_rise(&columns.bytes_ends, columns.bytes_heap.len(), |_| true))
        .then_some(())
    }

    fn check_claims(&self) -> Option<()> {
        let claims = &self.columns.claims;
        let mut next = 0;
        for claim in claims.chunks(12) {
            let index = u32::from_le_bytes(*claim.first_chunk()?);
            if claim.len() != 12 || index < next || index >= self.readings {
                return None;
            }
            next = index + 1;
        }
        Some(())
    }
}

/// Messages, readings, sections.
fn header(bytes: &Bytes) -> Result<(u32, u32, u8)> {
    if bytes.len() > FRAME_MAX {
        return Err(damaged(&format!("length {} above {FRAME_MAX} bytes", bytes.len())).with_limit(FRAME_MAX));
    }
    let mut reader = Reader::new(bytes);
    let mut parse = || -> Option<_> {
        let magic: [u8; 2] = reader.array()?;
        Some((magic, reader.byte()?, reader.byte()?, reader.u32()?, reader.u32()?, reader.u32()?))
    };
    let (magic, version, sections, crc, messages, readings) = parse().ok_or_else(|| damaged("header"))?;
    if magic != MAGIC {
        return Err(damaged("first bytes"));
    }
    if crc != checksum(bytes) {
        return Err(damaged("checksum"));
    }
    if version != VERSION {
        return Err(Error::new(
            ErrorKind::FailedPrecondition,
            "FRAME_VERSION_UNKNOWN",
            format!("frame has version {version}, and this release reads version {VERSION}"),
        ));
    }
    Ok((messages, readings, sections))
}

/// Follows the offset table.
fn split(bytes: &Bytes, sections: u8) -> Result<(Dictionaries, Columns)> {
    let mut dictionaries = Dictionaries::default();
    let mut columns = Columns::default();
    let mut at = HEADER + usize::from(sections) * ENTRY;
    let table = bytes.get(HEADER..at).ok_or_else(|| damaged("offset table"))?;
    let mut last = 0;
    for row in table.chunks_exact(ENTRY) {
        let [tag, 0, 0, 0, l0, l1, l2, l3] = *row else { return Err(damaged("offset table")) };
        let end = at.saturating_add(u32::from_le_bytes([l0, l1, l2, l3]) as usize);
        if tag <= last || end > bytes.len() {
            return Err(damaged("offset table"));
        }
        let target = match tag {
            section::TENANTS => &mut dictionaries.tenants,
            section::DEVICES => &mut dictionaries.devices,
            section::NAMES => &mut dictionaries.names,
            section::SHAPES => &mut dictionaries.shapes,
            section::MESSAGES => &mut columns.messages,
            section::TIMES => &mut columns.times,
            section::RECEIVED => &mut columns.received,
            section::READING_SHAPES => &mut columns.reading_shapes,
            section::DOUBLES => &mut columns.doubles,
            section::INTS => &mut columns.ints,
            section::BOOLS => &mut columns.bools,
            section::STRING_ENDS => &mut columns.string_ends,
            section::STRING_HEAP => &mut columns.string_heap,
            section::BYTES_ENDS => &mut columns.bytes_ends,
            section::BYTES_HEAP => &mut columns.bytes_heap,
            section::TRACES => &mut columns.traces,
            section::CLAIMS => &mut columns.claims,
            _ if tag >= section::OPTIONAL => &mut Bytes::new(),
            _ => return Err(damaged(&format!("unknown section {tag}"))),
        };
        *target = bytes.slice(at..end);
        (last, at) = (tag, end);
    }
    if at != bytes.len() {
        return Err(damaged("length"));
    }
    Ok((dictionaries, columns))
}

fn traces(section: &[u8], messages: u32) -> Option<Vec<(u32, u32, u8)>> {
    let mut reader = Reader::new(section);
    let mut traces = vec![];
    let mut next = 0;
    while !reader.is_empty() {
        let message = reader.u32()?;
        let len = reader.byte()?;
        let at = section.len() - reader.left();
        reader.text(usize::from(len))?;
        if message < next || message >= messages {
            return None;
        }
        next = message + 1;
        traces.push((message, at as u32, len));
    }
    Some(traces)
}

/// Two u32 of one entry.
pub(crate) fn pair(column: &[u8], index: usize) -> Option<[u32; 2]> {
    let [a0, a1, a2, a3, b0, b1, b2, b3] = entry(column, index)?;
    Some([u32::from_le_bytes([a0, a1, a2, a3]), u32::from_le_bytes([b0, b1, b2, b3])])
}

fn ends_rise(ends: &[u8], heap: usize, boundary: impl Fn(usize) -> bool) -> bool {
    let mut last = 0;
    for end in ends.chunks_exact(4).filter_map(|end| end.first_chunk()) {
        let end = u32::from_le_bytes(*end) as usize;
        if end < last || end > heap || !boundary(end) {
            return false;
        }
        last = end;
    }
    last == heap
}

fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::DataLoss, "FRAME_INVALID", format!("frame is damaged: {what}"))
}
