//! The newest records in memory, so that a reader that keeps up never touches the disk.

use std::collections::{BTreeMap, VecDeque};

use weir_core::{Partition, port::Record};

/// Twenty of the largest groups that sixteen partitions make of small frames, or sixteen full frames; older records are
/// dropped from here, and read from the file.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// What an entry costs beside its bytes.
const OVERHEAD: usize = 128;

#[derive(Debug)]
pub(crate) struct Tail {
    /// The sequence of the oldest record here; that of the next record where there is none.
    first: u64,
    bytes: usize,
    order: VecDeque<(Partition, usize)>,
    of_partition: BTreeMap<Partition, VecDeque<Record>>,
}

impl Tail {
    /// Nothing yet; the next record of the stream has sequence `next`.
    pub(crate) const fn new(next: u64) -> Self {
        Self { first: next, bytes: 0, order: VecDeque::new(), of_partition: BTreeMap::new() }
    }

    pub(crate) const fn first(&self) -> u64 {
        self.first
    }

    pub(crate) fn push(&mut self, partition: Partition, record: Record) {
        let size = record.bytes.len() + OVERHEAD;
        self.bytes += size;
        self.order.push_back((partition, size));
        self.of_partition.entry(partition).or_default().push_back(record);
        while self.bytes > BYTES_MAX
            && let Some((partition, size)) = self.order.pop_front()
        {
            self.bytes -= size;
            self.first += 1;
            if let Some(records) = self.of_partition.get_mut(&partition) {
                records.pop_front();
            }
        }
    }

    /// Records of a partition from a sequence that is not below [`Tail::first`]: at most `bytes_max`, but one at least.
    pub(crate) fn read(&self, partition: Partition, from: u64, bytes_max: usize) -> Vec<Record> {
        let Some(records) = self.of_partition.get(&partition) else { return vec![] };
        let start = records.partition_point(|record| record.sequence < from);
        let mut bytes = 0_usize;
        records
            .range(start..)
            .take_while(|record| {
                let first = bytes == 0;
                bytes = bytes.saturating_add(record.bytes.len().max(1));
                first || bytes <= bytes_max
            })
            .cloned()
            .collect()
    }
}
