//! What a stream's writer and its readers share. Nothing is here before it is as durable as configured.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::Notify;
use weir_core::{
    Error, Partition, Result, Stream, Timestamp, Uid,
    port::{Bounds, Record},
};

use crate::{
    Durability,
    disk::Disk,
    error,
    index::Index,
    options::Options,
    segment::{Cache, Sealed, SegmentReader},
    tail::Tail,
};

/// Reads from the disk in one go at most; a reader asks again.
const OFFSETS_MAX: usize = 1_024;

/// One stream.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) stream: Stream,
    pub(crate) dir: PathBuf,
    pub(crate) identity: Uid,
    pub(crate) options: Options,
    pub(crate) disk: Disk,
    pub(crate) cache: Cache,
    pub(crate) state: Mutex<State>,
    /// Held over a whole trim, so that files go in order and no crash leaves a hole.
    trimming: Mutex<()>,
}

#[derive(Debug)]
pub(crate) struct State {
    /// Oldest first.
    pub(crate) sealed: VecDeque<Sealed>,
    /// Trimmed, so no reader sees them, but their files are still there: oldest first, each older than all of `sealed`.
    doomed: VecDeque<Sealed>,
    pub(crate) active: Active,
    pub(crate) tail: Tail,
    /// Set when the log has stopped.
    pub(crate) failed: Option<Error>,
    /// Readers that wait, by partition; at most [`weir_core::id::SLOTS`] entries.
    doorbells: BTreeMap<Partition, Arc<Notify>>,
    /// The first sequence that was there at open: what was below it is gone.
    first_at_open: u64,
    /// The last record of each partition that was trimmed since.
    trimmed: BTreeMap<Partition, u64>,
}

/// The segment that is written.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) reader: SegmentReader,
    pub(crate) index: Index,
    /// The offset after its last record.
    pub(crate) end: u64,
    pub(crate) stored: Option<(Timestamp, Timestamp)>,
}

/// Where a reader finds what it wants next.
pub(crate) enum Look {
    /// Here.
    Records(Vec<Record>),
    /// At these offsets of the active segment.
    Active(SegmentReader, Vec<u64>),
    /// In this sealed segment, if it has anything of the partition.
    Sealed(Sealed),
    /// Nowhere yet.
    Nothing,
}

impl State {
    pub(crate) fn new(sealed: VecDeque<Sealed>, active: Active) -> Self {
        let first_at_open = sealed.front().map_or(active.index.base(), |segment| segment.base);
        let tail = Tail::new(active.index.next());
        Self {
            sealed,
            doomed: VecDeque::new(),
            active,
            tail,
            failed: None,
            doorbells: BTreeMap::new(),
            first_at_open,
            trimmed: BTreeMap::new(),
        }
    }

    /// The sequence of the last record, 0 where there never was one.
    pub(crate) fn last(&self) -> u64 {
        self.active.index.next() - 1
    }

    /// The lowest sequence that is still there.
    fn first(&self) -> u64 {
        self.sealed.front().map_or(self.active.index.base(), |segment| segment.base)
    }

    pub(crate) fn bytes(&self) -> u64 {
        let closed = self.doomed.iter().chain(&self.sealed);
        closed.map(|segment| segment.bytes).sum::<u64>() + self.active.end
    }

    pub(crate) fn doorbell(&mut self, partition: Partition) -> Arc<Notify> {
        Arc::clone(self.doorbells.entry(partition).or_default())
    }

    /// Wakes the readers that wait at a partition.
    pub(crate) fn ring(&self, partition: Partition) {
        if let Some(doorbell) = self.doorbells.get(&partition) {
            doorbell.notify_waiters();
        }
    }

    /// The first sealed segment that has `sequence` or what follows it: whoever reads on from a trimmed place begins there.
    fn sealed_from(&self, sequence: u64) -> Option<&Sealed> {
        let place = self.sealed.partition_point(|segment| segment.last < sequence);
        self.sealed.get(place)
    }

    /// The segment that holds `sequence`, if it is sealed.
    fn sealed_with(&self, sequence: u64) -> Option<&Sealed> {
        self.sealed_from(sequence).filter(|segment| segment.base <= sequence)
    }

    /// Takes what has no record above `through` from the readers.
    fn doom(&mut self, through: u64) {
        while self.sealed.front().is_some_and(|oldest| oldest.last <= through) {
            let Some(segment) = self.sealed.pop_front() else { return };
            self.trimmed.extend(segment.lasts.iter().copied());
            self.doomed.push_back(segment);
        }
    }

    fn trimmed_past(&self, partition: Partition, from: u64) -> bool {
        from < self.first_at_open || self.trimmed.get(&partition).is_some_and(|last| from <= *last)
    }
}

impl Shared {
    pub(crate) fn new(
        stream: Stream,
        dir: PathBuf,
        identity: Uid,
        options: Options,
        disk: Disk,
        state: State,
    ) -> Self {
        let (cache, state) = (Cache::default(), Mutex::new(state));
        Self { stream, dir, identity, options, disk, cache, state, trimming: Mutex::new(()) }
    }

    /// Looks for records of a partition from a sequence, and gives the last sequence of the stream beside it.
    ///
    /// # Errors
    /// `TRIMMED_PAST` where records of the partition from there were trimmed.
    pub(crate) fn look(&self, partition: Partition, from: u64, bytes_max: usize) -> Result<(Look, u64)> {
        let state = self.state.lock();
        let end = state.last();
        if state.trimmed_past(partition, from) {
            return Err(error::trimmed(self.stream, partition, from, state.first()));
        }
        if from > end {
            return Ok((Look::Nothing, end));
        }
        if from < state.tail.first() {
            if let Some(segment) = state.sealed_from(from) {
                return Ok((Look::Sealed(segment.clone()), end));
            }
            let on_disk = from..=state.tail.first() - 1;
            let offsets: Vec<u64> =
                state.active.index.offsets_of(partition, on_disk).take(OFFSETS_MAX).collect();
            if !offsets.is_empty() {
                return Ok((Look::Active(state.active.reader.clone(), offsets), end));
            }
        }
        let records = state.tail.read(partition, from.max(state.tail.first()), bytes_max);
        Ok((if records.is_empty() { Look::Nothing } else { Look::Records(records) }, end))
    }

    pub(crate) fn bounds(&self) -> Bounds {
        let state = self.state.lock();
        Bounds {
            first: state.first(),
            last: state.last(),
            bytes: state.bytes(),
            bytes_max: self.options.bytes_max,
        }
    }

    /// Fails with what a publish would fail with. Blocks.
    pub(crate) fn writable(&self) -> Result<()> {
        let used = {
            let state = self.state.lock();
            if let Some(failed) = &state.failed {
                return Err(failed.clone());
            }
            state.bytes()
        };
        self.room_for(used, crate::format::RECORD_HEADER as u64)
    }

    /// Whether `more` bytes may be added to a stream of `used` bytes. Blocks.
    pub(crate) fn room_for(&self, used: u64, more: u64) -> Result<()> {
        if let Some(max) = self.options.bytes_max
            && used.saturating_add(more) > max
        {
            return Err(error::full(self.stream, max));
        }
        let reserve = self.options.disk_reserve_bytes;
        match self.disk.free(&self.dir) {
            Ok(free) if free < reserve.saturating_add(more) => Err(error::disk_full(self.stream, reserve)),
            // A file system that cannot tell is asked by writing.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Whether an acknowledgement waits for the disk.
    pub(crate) fn syncs(&self) -> bool {
        self.options.durability == Durability::PowerLoss
    }

    /// Removes sealed segments without a record above `through`, oldest first, and stops at the first that cannot be
    /// removed: a segment that is missing among others would be damage at the next start. Blocks.
    ///
    /// # Errors
    /// `Unavailable` where a file cannot be removed; it is tried again at the next trim.
    pub(crate) fn trim(&self, through: u64) -> Result<()> {
        let _one = self.trimming.lock();
        self.state.lock().doom(through);
        loop {
            let Some(segment) = self.state.lock().doomed.front().cloned() else { return Ok(()) };
            self.cache.forget(segment.base);
            self.disk.remove(&segment.path).map_err(|source| error::io(&segment.path, "remove", source))?;
            self.state.lock().doomed.pop_front();
        }
    }

    /// The highest sequence stored before `instant`. Blocks.
    pub(crate) fn sequence_before(&self, instant: Timestamp) -> Result<u64> {
        let sealed = {
            let state = self.state.lock();
            let active = &state.active;
            match active.stored {
                Some((_, last)) if last < instant => return Ok(state.last()),
                Some((first, _)) if first < instant => {
                    let (reader, index) = (active.reader.clone(), active.index.clone());
                    drop(state);
                    return last_before(&reader, &index, instant);
                }
                _ => {}
            }
            let Some(segment) = state.sealed.iter().rev().find(|segment| segment.stored.0 < instant) else {
                return Ok(0);
            };
            if segment.stored.1 < instant {
                return Ok(segment.last);
            }
            segment.clone()
        };
        match self.cache.get(&sealed)? {
            Some(open) => last_before(&open.reader, &open.index, instant),
            None => Ok(0), // trimmed meanwhile
        }
    }

    /// The id of a record that is still there. Blocks.
    pub(crate) fn id_of(&self, sequence: u64) -> Result<Option<Uid>> {
        let sealed = {
            let state = self.state.lock();
            if let Some(offset) = state.active.index.offset(sequence) {
                let reader = state.active.reader.clone();
                drop(state);
                return reader.header(offset).map(|header| Some(header.id));
            }
            match state.sealed_with(sequence) {
                Some(segment) => segment.clone(),
                None => return Ok(None),
            }
        };
        let Some(open) = self.cache.get(&sealed)? else { return Ok(None) };
        let offset = open.index.offset(sequence);
        offset.map(|offset| open.reader.header(offset).map(|header| header.id)).transpose()
    }
}

/// Within a segment, by halves over the times in the record headers (a clock that was set back in its midst makes this
/// approximate).
fn last_before(reader: &SegmentReader, index: &Index, instant: Timestamp) -> Result<u64> {
    let (mut low, mut high) = (index.base(), index.next());
    while low < high {
        let middle = low + (high - low) / 2;
        let Some(offset) = index.offset(middle) else { break };
        if reader.header(offset)?.stored_at < instant {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low - 1)
}
