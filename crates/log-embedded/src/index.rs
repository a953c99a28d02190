//! Where the records of one segment stand, by sequence and by partition.

use std::{collections::BTreeMap, ops::RangeInclusive};

use weir_core::Partition;

/// A segment is closed at this many records too, so that an index of tiny records has at most 0.5 MiB.
pub(crate) const RECORDS_MAX: usize = 65_536;

/// Eight bytes a record. Sequences in a segment have no gaps, so a record's place among them gives its sequence.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    base: u64,
    offsets: Vec<u32>,
    of_partition: BTreeMap<Partition, Vec<u32>>,
}

impl Index {
    pub(crate) const fn new(base: u64) -> Self {
        Self { base, offsets: Vec::new(), of_partition: BTreeMap::new() }
    }

    /// Adds the next record.
    pub(crate) fn push(&mut self, partition: Partition, offset: u64) {
        self.of_partition.entry(partition).or_default().push(self.offsets.len() as u32);
        self.offsets.push(offset as u32); // a segment is at most 1 GiB
    }

    /// The sequence of the first record.
    pub(crate) const fn base(&self) -> u64 {
        self.base
    }

    /// The sequence after the last record.
    pub(crate) const fn next(&self) -> u64 {
        self.base + self.offsets.len() as u64
    }

    /// Where the record of this sequence stands.
    pub(crate) fn offset(&self, sequence: u64) -> Option<u64> {
        let place = usize::try_from(sequence.checked_sub(self.base)?).ok()?;
        self.offsets.get(place).copied().map(u64::from)
    }

    /// Where the records of a partition stand whose sequences are in `range`.
    pub(crate) fn offsets_of(
        &self,
        partition: Partition,
        range: RangeInclusive<u64>,
    ) -> impl Iterator<Item = u64> + '_ {
        let places = self.of_partition.get(&partition).map_or(&[][..], Vec::as_slice);
        let start = places.partition_point(|place| self.base + u64::from(*place) < *range.start());
        let wanted = places.get(start..).unwrap_or_default().iter();
        wanted
            .take_while(move |place| self.base + u64::from(**place) <= *range.end())
            .filter_map(|place| self.offsets.get(*place as usize).copied().map(u64::from))
    }

    /// The last sequence of each partition that has a record here.
    pub(crate) fn lasts(&self) -> impl Iterator<Item = (Partition, u64)> + '_ {
        self.of_partition
            .iter()
            .filter_map(|(partition, places)| Some((*partition, self.base + u64::from(*places.last()?))))
    }
}
