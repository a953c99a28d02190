//! What the columns refer to: devices, metric names, shapes.

use std::{ops::Range, sync::Arc};

use weir_core::{DeviceId, TenantId, Uid, ValueType};

use crate::wire::{Reader, tagged_type};

/// Fewest bytes of a device in its section: uid, tenant, length, one character.
const DEVICE_MIN: usize = 16 + 1 + 1 + 1;
/// Fewest bytes of a name: its length and one character.
const NAME_MIN: usize = 2;

#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) tenant: TenantId,
    pub(crate) id: DeviceId,
    pub(crate) uid: Uid,
}

/// How many values of each type: of a shape, or before a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) doubles: usize,
    pub(crate) ints: usize,
    pub(crate) bools: usize,
    pub(crate) strings: usize,
    pub(crate) bytes: usize,
}

impl Counts {
    pub(crate) const fn add(&mut self, other: &Self) {
        self.doubles += other.doubles;
        self.ints += other.ints;
        self.bools += other.bools;
        self.strings += other.strings;
        self.bytes += other.bytes;
    }

    const fn count(&mut self, value_type: ValueType) {
        match value_type {
            ValueType::Double => self.doubles += 1,
            ValueType::Int64 => self.ints += 1,
            ValueType::Bool => self.bools += 1,
            ValueType::String => self.strings += 1,
            ValueType::Bytes => self.bytes += 1,
        }
    }
}

/// The shapes of a frame: the fields of all of them in one list, so that a shape costs no allocation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shapes {
    fields: Vec<(u32, ValueType)>,
    shapes: Vec<(Range<u32>, Counts)>,
}

impl Shapes {
    pub(crate) fn fields(&self, shape: u32) -> Option<&[(u32, ValueType)]> {
        let (range, _) = self.shapes.get(shape as usize)?;
        self.fields.get(range.start as usize..range.end as usize)
    }

    pub(crate) fn counts(&self, shape: u32) -> Option<&Counts> {
        self.shapes.get(shape as usize).map(|(_, counts)| counts)
    }

    pub(crate) fn parse(section: &[u8], names: usize) -> Option<Self> {
        let mut reader = Reader::new(section);
        let mut parsed = Self { fields: Vec::with_capacity(section.len().min(1_024)), shapes: vec![] };
        while !reader.is_empty() {
            let fields = reader.size()?;
            let start = parsed.fields.len() as u32;
            let mut counts = Counts::default();
            for _ in 0..fields {
                let field = u32::try_from(reader.varint()?).ok()?;
                let value_type = tagged_type((field & 7) as u8)?;
                let name = field >> 3;
                if name as usize >= names {
                    return None;
                }
                counts.count(value_type);
                parsed.fields.push((name, value_type));
            }
            parsed.shapes.push((start..parsed.fields.len() as u32, counts));
        }
        Some(parsed)
    }
}

pub(crate) fn devices(tenants: &[u8], section: &[u8]) -> Option<Vec<Device>> {
    let tenants = self::tenants(tenants)?;
    let mut reader = Reader::new(section);
    let mut devices = Vec::with_capacity(section.len() / DEVICE_MIN);
    while !reader.is_empty() {
        let uid = Uid::from_bytes(reader.array()?);
        let tenant = tenants.get(reader.size()?)?.clone();
        let len = reader.byte()?;
        let id = DeviceId::new(reader.text(usize::from(len))?).ok()?;
        devices.push(Device { tenant, id, uid });
    }
    Some(devices)
}

fn tenants(section: &[u8]) -> Option<Vec<TenantId>> {
    let mut reader = Reader::new(section);
    let mut tenants = vec![];
    while !reader.is_empty() {
        let len = reader.byte()?;
        tenants.push(TenantId::new(reader.text(usize::from(len))?).ok()?);
    }
    Some(tenants)
}

pub(crate) fn names(section: &[u8]) -> Option<Vec<Arc<str>>> {
    let mut reader = Reader::new(section);
    let mut names = Vec::with_capacity(section.len() / (NAME_MIN * 4));
    while !reader.is_empty() {
        let len = reader.size()?;
        if len == 0 {
            return None; // so that a byte of the section never buys a whole allocation
        }
        names.push(Arc::from(reader.text(len)?));
    }
    Some(names)
}
