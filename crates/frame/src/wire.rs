//! Primitives of both codecs: varints, fixed-width columns, and a reader of untrusted bytes.

use weir_core::ValueType;

/// First bytes of a frame.
pub(crate) const MAGIC: [u8; 2] = *b"WF";
/// The version that this release writes, and the only one that it reads.
pub(crate) const VERSION: u8 = 1;
/// Bytes before the section table.
pub(crate) const HEADER: usize = 16;
/// Bytes of one entry of the section table.
pub(crate) const ENTRY: usize = 8;
/// Where the checksummed part begins.
pub(crate) const CHECKED_FROM: usize = 8;

pub(crate) const fn type_tag(value_type: ValueType) -> u8 {
    match value_type {
        ValueType::Double => 0,
        ValueType::Int64 => 1,
        ValueType::Bool => 2,
        ValueType::String => 3,
        ValueType::Bytes => 4,
    }
}

pub(crate) const fn tagged_type(tag: u8) -> Option<ValueType> {
    match tag {
        0 => Some(ValueType::Double),
        1 => Some(ValueType::Int64),
        2 => Some(ValueType::Bool),
        3 => Some(ValueType::String),
        4 => Some(ValueType::Bytes),
        _ => None,
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Small magnitudes of either sign become small numbers.
pub(crate) const fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

pub(crate) const fn unzigzag(number: u64) -> i64 {
    ((number >> 1) as i64) ^ -((number & 1) as i64)
}

/// The `index`-th entry of a column of `N` bytes each.
pub(crate) fn entry<const N: usize>(column: &[u8], index: usize) -> Option<[u8; N]> {
    let at = index.checked_mul(N)?;
    column.get(at..)?.first_chunk().copied()
}

/// Takes from the front of untrusted bytes; `None` where they end early.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) const fn left(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// A varint of at most 64 bits in its shortest form.
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return None;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return (part > 0 || shift == 0).then_some(number);
            }
        }
        None
    }

    /// A varint that is a length or an index on this machine.
    pub(crate) fn size(&mut self) -> Option<usize> {
        usize::try_from(self.varint()?).ok()
    }

    /// UTF-8 text of `len` bytes.
    pub(crate) fn text(&mut self, len: usize) -> Option<&'a str> {
        std::str::from_utf8(self.take(len)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_varint_gives_its_number_back(number: u64) {
            let mut bytes = vec![];
            put_varint(&mut bytes, number);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Some(number));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn zigzag_is_undone(number: i64) {
            prop_assert_eq!(unzigzag(zigzag(number)), number);
        }

        #[test]
        fn any_bytes_are_a_varint_in_its_one_form_or_none(bytes: [u8; 11]) {
            let mut reader = Reader::new(&bytes);
            if let Some(number) = reader.varint() {
                let mut again = vec![];
                put_varint(&mut again, number);
                prop_assert_eq!(bytes.len() - reader.left(), again.len());
            }
        }
    }
}
