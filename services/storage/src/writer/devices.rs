//! The devices of a partition that are in memory: a bounded cache over the store.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use weir_core::{
    Error, Position, Result, Timestamp,
    port::{BucketId, BucketRow, SeriesKey, Width},
};

use super::{
    Heard, clock,
    device::{Device, day_of},
};
use crate::read::Reader;

/// Reads of the store under way at once while a batch waits for its devices: enough to hide a network's latency.
const LOADS: usize = 16;
/// Buckets in one read.
const PAGE: usize = 1_000;

/// Bytes of buckets that the `buckets` table does not tell yet: those changed since a checkpoint.
pub(super) type Changed = HashMap<SeriesKey, HashMap<BucketId, u64>>;

/// Two generations: what is used moves to the young one; when that is half full the old one is forgotten. As good as least
/// recently used, without a list to keep. Forgets only between batches, so that what it reads again is all in the store.
pub(super) struct Devices {
    reader: Reader,
    young: HashMap<SeriesKey, Device>,
    old: HashMap<SeriesKey, Device>,
    young_weight: usize,
    weight_max: usize,
}

/// What a message needs to know that is not in memory.
struct Missing {
    series: SeriesKey,
    clock_before: Option<Position>,
    days: Vec<Timestamp>,
}

impl Devices {
    /// `weight_max`: devices kept; one with many buckets counts as several.
    pub(super) fn new(reader: Reader, weight_max: usize) -> Self {
        Self { reader, young: HashMap::new(), old: HashMap::new(), young_weight: 0, weight_max }
    }

    /// Devices that are kept, as they count against the bound.
    pub(super) fn weight(&self) -> usize {
        self.young_weight + self.old.len()
    }

    /// Makes sure that every device of `heard`, and every day that it has readings of, is in memory. All that was heard
    /// before must be in the store, and what its table of buckets does not tell in `changed`, the newest last.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn load(&mut self, heard: &[Arc<Heard>], changed: &[&Changed]) -> Result<()> {
        if self.young_weight * 2 >= self.weight_max {
            self.old = std::mem::take(&mut self.young);
            self.young_weight = 0;
        }
        let missing = self.missing(heard);
        let reader = &self.reader;
        let mut loads =
            stream::iter(missing).map(|missing| load(reader, missing, changed)).buffer_unordered(LOADS);
        while let Some((series, clock, days)) = loads.try_next().await? {
            if let Some(clock) = clock {
                self.young_weight += 1;
                self.young.insert(series.clone(), Device::new(clock));
            }
            if let Some(device) = self.young.get_mut(&series) {
                let before = device.weight();
                device.forget_if_large();
                days.into_iter().for_each(|(day, rows)| device.load_day(day, &rows));
                self.young_weight = (self.young_weight + device.weight()).saturating_sub(before);
            }
        }
        Ok(())
    }

    /// A device that was loaded.
    ///
    /// # Errors
    /// `Internal` where it was not.
    pub(super) fn get(&mut self, series: &SeriesKey) -> Result<&mut Device> {
        self.young.get_mut(series).ok_or_else(|| Error::internal("a device was not loaded"))
    }

    fn missing(&mut self, heard: &[Arc<Heard>]) -> Vec<Missing> {
        let mut found: HashMap<&SeriesKey, (Option<Position>, HashSet<Timestamp>)> = HashMap::new();
        for message in heard {
            let known = self.rejuvenate(&message.series);
            let mut last = None;
            for (index, reading) in &message.readings {
                let day = day_of(reading.ts);
                if last == Some(day) {
                    continue;
                }
                last = Some(day);
                let device = if known { self.young.get_mut(&message.series) } else { None };
                if device.is_some_and(|device| device.knows_day(day)) {
                    continue;
                }
                // The first message of a device comes first, so this is the lowest position that needs its clock.
                let before = (!known).then(|| message.position(*index));
                found.entry(&message.series).or_insert_with(|| (before, HashSet::new())).1.insert(day);
            }
        }
        // A large device forgets its days before it loads more, so it must then load all that it needs.
        for message in heard {
            if let Some((None, days)) = found.get_mut(&message.series)
                && self.young.get(&message.series).is_some_and(Device::is_large)
            {
                days.extend(message.readings.iter().map(|(_, reading)| day_of(reading.ts)));
            }
        }
        found
            .into_iter()
            .map(|(series, (clock_before, days))| Missing {
                series: series.clone(),
                clock_before,
                days: days.into_iter().collect(),
            })
            .collect()
    }

    /// Moves a device to the young generation; false where it is in neither.
    fn rejuvenate(&mut self, series: &SeriesKey) -> bool {
        if self.young.contains_key(series) {
            return true;
        }
        let Some(device) = self.old.remove(series) else { return false };
        self.young_weight += device.weight();
        self.young.insert(series.clone(), device);
        true
    }
}

type Loaded = (SeriesKey, Option<weir_core::event_clock::EventClock>, Vec<(Timestamp, Vec<BucketRow>)>);

async fn load(reader: &Reader, missing: Missing, changed: &[&Changed]) -> Result<Loaded> {
    let Missing { series, clock_before, days } = missing;
    let clock = match clock_before {
        Some(before) => Some(clock::derive(reader, &series, before).await?),
        None => None,
    };
    let mut loaded = Vec::with_capacity(days.len());
    for day in days {
        let mut rows = buckets_of(reader, &series, day).await?;
        for changed in changed.iter().filter_map(|changed| changed.get(&series)) {
            rows.iter_mut().for_each(|row| row.bytes = *changed.get(&row.bucket).unwrap_or(&row.bytes));
        }
        loaded.push((day, rows));
    }
    Ok((series, clock, loaded))
}

async fn buckets_of(reader: &Reader, series: &SeriesKey, day: Timestamp) -> Result<Vec<BucketRow>> {
    let end = BucketId { start: day, width: Width::Day }.end();
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = reader.store.buckets(series, day, end, after, PAGE).await?;
        let complete = page.len() < PAGE;
        after = page.last().map(|row| row.bucket);
        rows.extend(page.into_iter().filter(|row| row.bucket.end() > day));
        if complete {
            return Ok(rows);
        }
    }
}
