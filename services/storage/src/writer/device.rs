//! What the writer knows of one device: its clock, and how full its buckets are.

use std::collections::HashMap;

use weir_core::{
    Error, Result, Timestamp,
    event_clock::EventClock,
    port::{BucketId, BucketRow, Width},
};

/// Buckets known of one device at most: a day in which every second has its own bucket fits. Past it all are forgotten and
/// read again day by day.
const BUCKETS_MAX: usize = 100_000;
/// Sixteen known buckets are as large as the rest of a device.
const BUCKETS_PER_WEIGHT: usize = 16;

/// A bucket that a row goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) bucket: BucketId,
    /// Bytes in it, this row included.
    pub(super) bytes: u64,
    /// Whether this is its first row.
    pub(super) new: bool,
}

/// A device, as of the last reading that was taken in.
#[derive(Debug, Default)]
pub(super) struct Device {
    pub(super) clock: EventClock,
    /// All buckets of each day that was loaded, with their bytes.
    days: HashMap<Timestamp, HashMap<BucketId, u64>>,
    buckets: usize,
}

impl Device {
    pub(super) fn new(clock: EventClock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// Against the bound of the cache.
    pub(super) fn weight(&self) -> usize {
        1 + self.buckets / BUCKETS_PER_WEIGHT
    }

    pub(super) fn knows_day(&self, day: Timestamp) -> bool {
        self.days.contains_key(&day)
    }

    /// Takes in all buckets of a day.
    pub(super) fn load_day(&mut self, day: Timestamp, rows: &[BucketRow]) {
        self.buckets += rows.len();
        self.days.insert(day, rows.iter().map(|row| (row.bucket, row.bytes)).collect());
    }

    /// Whether it knows so many buckets that it must forget before it loads more.
    pub(super) fn is_large(&self) -> bool {
        self.buckets > BUCKETS_MAX
    }

    /// Makes room before more days are loaded.
    pub(super) fn forget_if_large(&mut self) {
        if self.is_large() {
            self.days = HashMap::new();
            self.buckets = 0;
        }
    }

    /// The widest bucket that holds `ts` and is not full, and counts a row of `len` bytes into it. Depends only on rows
    /// of lower positions, so that a re-read chooses the same.
    ///
    /// # Errors
    /// `Internal` where the day was not loaded.
    pub(super) fn choose(&mut self, ts: Timestamp, len: usize, full: u64) -> Result<Chosen> {
        let day = self
            .days
            .get_mut(&day_of(ts))
            .ok_or_else(|| Error::internal("a day's buckets were not loaded"))?;
        let mut bucket = BucketId::containing(ts, Width::Day);
        while day.get(&bucket).is_some_and(|bytes| *bytes >= full)
            && let Some(finer) = bucket.width.finer()
        {
            bucket = BucketId::containing(ts, finer);
        }
        let known = day.len();
        let bytes = day.entry(bucket).or_default();
        *bytes += len as u64;
        let bytes = *bytes;
        let new = day.len() > known;
        self.buckets += usize::from(new);
        Ok(Chosen { bucket, bytes, new })
    }
}

/// The UTC day that every bucket of `ts` lies in.
pub(super) fn day_of(ts: Timestamp) -> Timestamp {
    BucketId::containing(ts, Width::Day).start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_bucket_opens_the_next_finer_width_down_to_a_second() {
        let mut device = Device::default();
        let ts = Timestamp::from_micros(1_700_000_000_000_000);
        device.load_day(day_of(ts), &[]);
        let chosen: Vec<Chosen> = (0..12).map(|_| device.choose(ts, 10, 20).unwrap()).collect();
        let widths: Vec<Width> = chosen.iter().map(|chosen| chosen.bucket.width).collect();
        let expected: Vec<Width> =
            [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4].iter().map(|n| Width::from_u8(*n).unwrap()).collect();
        assert_eq!(widths, expected);
        assert_eq!(chosen.iter().filter(|chosen| chosen.new).count(), 5);
        assert_eq!(chosen.last().unwrap().bytes, 40);
    }

    #[test]
    fn a_day_that_was_not_loaded_is_refused() {
        assert!(Device::default().choose(Timestamp::from_micros(0), 1, 1).is_err());
    }
}
