//! What a tail has given: a place in each partition.

use weir_core::{Error, Partition, Result};
use weir_grpc::page;

use crate::{marks::Mark, writer::Heard};

const VERSION: u8 = 1;

/// All readings of a partition below (generation, sequence, index) were given, or are not wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    pub(super) generation: u32,
    pub(super) sequence: u64,
    /// [`Place::WHOLE`] once all of the frame is.
    pub(super) index: u32,
}

impl Place {
    pub(super) const WHOLE: u32 = u32::MAX;

    /// After everything up to a mark.
    pub(super) fn through(mark: Mark) -> Self {
        Self { generation: mark.generation, sequence: mark.sequence, index: Self::WHOLE }
    }

    /// Whether a reading is at or above this.
    pub(super) fn precedes(self, message: &Heard, index: u32) -> bool {
        self <= Self { generation: message.generation, sequence: message.sequence, index }
    }

    /// The first sequence that may hold what was not given yet.
    pub(super) fn next_sequence(self) -> u64 {
        if self.index == Self::WHOLE { self.sequence.saturating_add(1) } else { self.sequence }
    }
}

/// A place for each partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor(Vec<Place>);

impl Cursor {
    /// After everything up to the marks.
    pub(super) fn through(marks: &[Mark]) -> Self {
        Self(marks.iter().map(|mark| Place::through(*mark)).collect())
    }

    pub(super) fn place(&self, partition: Partition) -> Place {
        self.0.get(usize::from(partition.0)).copied().unwrap_or_default()
    }

    /// The newest generation in it.
    pub(super) fn generation(&self) -> u32 {
        self.0.iter().map(|place| place.generation).max().unwrap_or_default()
    }

    /// Moves on; never back.
    pub(super) fn advance(&mut self, partition: Partition, to: Place) {
        if let Some(place) = self.0.get_mut(usize::from(partition.0)) {
            *place = to.max(*place);
        }
    }

    /// As text: version, then for each partition generation, sequence and index as LEB128, the index as 0 for a whole
    /// frame and one more otherwise.
    pub(super) fn to_text(&self) -> String {
        let mut bytes = vec![VERSION];
        for place in &self.0 {
            put_varint(&mut bytes, u64::from(place.generation));
            put_varint(&mut bytes, place.sequence);
            put_varint(&mut bytes, if place.index == Place::WHOLE { 0 } else { u64::from(place.index) + 1 });
        }
        page::token(bytes)
    }

    /// From text.
    ///
    /// # Errors
    /// `CURSOR_INVALID` where it is not one that a tail gave, or not of this many partitions.
    pub(super) fn parse(text: &str, partitions: u16) -> Result<Self> {
        let invalid = || {
            Error::invalid(
                "resume_cursor",
                "CURSOR_INVALID",
                "resume_cursor is not one that a tail of this cluster gave",
            )
        };
        let bytes = page::key(text).map_err(|_| invalid())?.ok_or_else(invalid)?;
        let (version, mut rest) = bytes.split_first().ok_or_else(invalid)?;
        let mut read = || -> Option<Self> {
            let mut places = Vec::with_capacity(usize::from(partitions));
            for _ in 0..partitions {
                let generation = u32::try_from(varint(&mut rest)?).ok()?;
                let sequence = varint(&mut rest)?;
                let index = match varint(&mut rest)? {
                    0 => Place::WHOLE,
                    index => u32::try_from(index - 1).ok()?,
                };
                places.push(Place { generation, sequence, index });
            }
            rest.is_empty().then_some(Self(places))
        };
        if *version != VERSION {
            return Err(invalid());
        }
        read().ok_or_else(invalid)
    }
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_place() -> impl Strategy<Value = Place> {
        let index = prop_oneof![Just(Place::WHOLE), 0..u32::MAX];
        (any::<u32>(), any::<u64>(), index).prop_map(|(generation, sequence, index)| Place {
            generation,
            sequence,
            index,
        })
    }

    proptest! {
        #[test]
        fn a_cursor_reads_back(places in prop::collection::vec(any_place(), 0..40)) {
            let cursor = Cursor(places);
            prop_assert_eq!(Cursor::parse(&cursor.to_text(), cursor.0.len() as u16).unwrap(), cursor.clone());
            prop_assert!(Cursor::parse(&cursor.to_text(), cursor.0.len() as u16 + 1).is_err());
        }

        #[test]
        fn any_text_is_a_cursor_or_an_error(text in ".{0,60}") {
            let _ = Cursor::parse(&text, 4);
        }
    }
}
