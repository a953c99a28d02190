//! The one thread that writes a stream: it takes everything that waits, appends it in one write, syncs once, and answers
//! all of it (group commit: DeWitt et al., "Implementation techniques for main memory database systems", 1984). There
//! is no timer in that path: while one group syncs, the next one gathers.
//!
//! After a failed sync the stream stops until a restart (Rebello et al., "Can applications recover from fsync
//! failures?", 2020): the page cache may then show what the disk does not have. Open writes the unproven tail again
//! before it believes in it.

use std::{
    collections::HashMap,
    io, mem,
    sync::{Arc, mpsc},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::{error as log_error, warn};
use weir_core::{Error, Partition, Result, Timestamp, Uid, port::Record};

use crate::{
    dedup::Dedup,
    disk::SegmentFile,
    error,
    format::{Kind, RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader},
    index::{Index, RECORDS_MAX},
    recover,
    segment::{Sealed, SegmentReader},
    state::{Active, Shared},
};

/// A group takes no more records from here on: a few milliseconds of a disk's time.
const GROUP_BYTES: usize = 4 * 1024 * 1024;

/// Zeros written ahead, so that most syncs find the file's length and blocks as they were and write no metadata (about
/// twice the syncs a second on ext4). Only small groups do it: for large ones it would be a second write.
const AHEAD: usize = 256 * 1024;

/// With nothing to write for this long, the log marks its end as durable and gives back what it wrote ahead.
const IDLE: Duration = Duration::from_secs(1);

/// The buffer of a group is given back above this.
const BUFFER_KEPT: usize = 512 * 1024;

/// One publish that waits.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) partition: Partition,
    pub(crate) id: Uid,
    pub(crate) bytes: Bytes,
    pub(crate) answer: oneshot::Sender<Result<u64>>,
    /// Its share of what may wait at once; given back when it is answered.
    pub(crate) _room: OwnedSemaphorePermit,
}

/// A record of the group that is being written, and everyone who waits for it.
struct Entry {
    pending: Pending,
    offset: u64,
    sequence: u64,
    again: Vec<oneshot::Sender<Result<u64>>>,
}

/// Writes the newest segment of a stream.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) file: SegmentFile,
    pub(crate) header: SegmentHeader,
    /// The offset after the last record or marker.
    pub(crate) end: u64,
    /// Up to here the file is durable.
    pub(crate) synced: u64,
    /// The file's length: `end`, and zeros.
    pub(crate) len: u64,
    pub(crate) next_sequence: u64,
    pub(crate) dedup: Dedup,
    /// Whether a marker proves all that is there.
    pub(crate) marked: bool,
    pub(crate) buffer: Vec<u8>,
}

/// Why a group was not written.
enum Failure {
    /// There is no room; nothing of it is left in the file.
    NoRoom(Error),
    /// The stream has stopped.
    Stopped(Error),
}

impl Writer {
    /// Until every sender is gone.
    pub(crate) fn run(mut self, queue: &mpsc::Receiver<Pending>) {
        loop {
            let first = if self.marked {
                queue.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected)
            } else {
                queue.recv_timeout(IDLE)
            };
            match first {
                Ok(first) => {
                    let mut bytes = first.bytes.len();
                    let mut group = vec![first];
                    while bytes < GROUP_BYTES
                        && let Ok(pending) = queue.try_recv()
                    {
                        bytes += pending.bytes.len() + RECORD_HEADER;
                        group.push(pending);
                    }
                    self.commit(group);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => self.settle(),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        if !self.marked {
            self.settle();
        }
        if self.has_failed().is_none()
            && let Err(source) = self.file.sync()
        {
            warn!(stream = %self.shared.stream, error = %source, "cannot sync the log while it closes");
        }
    }

    /// Writes a group, in as many pieces as it needs segments, and answers all of it.
    fn commit(&mut self, group: Vec<Pending>) {
        let mut entries: Vec<Entry> = Vec::with_capacity(group.len());
        let mut places: HashMap<Uid, usize> = HashMap::new();
        let stored_at = self.shared.options.clock.now();
        for pending in group {
            if let Some(sequence) = self.dedup.find(pending.id) {
                answer(pending.answer, Ok(sequence));
                continue;
            }
            if let Some(entry) = places.get(&pending.id).and_then(|place| entries.get_mut(*place)) {
                entry.again.push(pending.answer);
                continue;
            }
            let size = (RECORD_HEADER + pending.bytes.len()) as u64;
            if !self.fits(size, entries.len()) {
                self.flush(&mut entries, stored_at);
                places.clear();
                if let Err(failed) = self.rotate() {
                    answer(pending.answer, Err(failed));
                    continue;
                }
            }
            if let Err(refused) = self.admit(size) {
                answer(pending.answer, Err(refused));
                continue;
            }
            places.insert(pending.id, entries.len());
            let offset = self.end + self.buffer.len() as u64;
            let sequence = self.next_sequence + entries.len() as u64;
            self.put(&pending, sequence, stored_at);
            entries.push(Entry { pending, offset, sequence, again: vec![] });
        }
        self.flush(&mut entries, stored_at);
        if self.buffer.capacity() > BUFFER_KEPT {
            self.buffer = Vec::new();
        }
    }

    /// Whether one more record goes into this segment; the first one always does.
    fn fits(&self, size: u64, waiting: usize) -> bool {
        let end = self.end + self.buffer.len() as u64;
        let records = (self.next_sequence - self.header.base) as usize + waiting;
        records == 0
            || (records < RECORDS_MAX && end.saturating_add(size) <= self.shared.options.segment_bytes())
    }

    fn admit(&self, size: u64) -> Result<()> {
        if let Some(failed) = self.has_failed() {
            return Err(failed);
        }
        let waiting = self.buffer.len() as u64;
        let used = self.shared.state.lock().bytes();
        if waiting == 0 {
            return self.shared.room_for(used, size);
        }
        // The disk was asked for the first of the group; the limit counts for each.
        match self.shared.options.bytes_max {
            Some(max) if used + waiting + size > max => Err(error::full(self.shared.stream, max)),
            _ => Ok(()),
        }
    }

    fn put(&mut self, pending: &Pending, sequence: u64, stored_at: Timestamp) {
        let header = RecordHeader {
            crc: 0,
            len: pending.bytes.len() as u32,
            kind: Kind::Record,
            partition: pending.partition,
            sequence,
            synced_through: self.synced,
            stored_at,
            id: pending.id,
        };
        header.put(&mut self.buffer, self.header.seed(), &pending.bytes);
    }

    /// Makes what was put durable, shows it to readers, and answers.
    fn flush(&mut self, entries: &mut Vec<Entry>, stored_at: Timestamp) {
        let entries = mem::take(entries);
        if entries.is_empty() {
            return;
        }
        let written = self.write();
        self.buffer.clear();
        match written {
            Ok(()) => self.show(entries, stored_at),
            Err(failure) => {
                let failed = self.note(failure);
                for entry in entries {
                    for waiting in entry.again.into_iter().chain([entry.pending.answer]) {
                        answer(waiting, Err(failed.clone()));
                    }
                }
            }
        }
    }

    fn write(&mut self) -> Result<(), Failure> {
        let group = self.buffer.len();
        let end = self.end + group as u64;
        if end > self.len && group < AHEAD {
            self.buffer.resize(group + AHEAD, 0);
            if self.append().is_err() {
                self.buffer.truncate(group); // what is missing may be the room for the zeros
                self.cut()?;
                self.append().map_err(|source| self.refused(source))?;
            }
        } else {
            self.append().map_err(|source| self.refused(source))?;
        }
        self.len = self.len.max(self.end + self.buffer.len() as u64);
        if self.shared.syncs() {
            self.file.sync().map_err(|source| self.stopped("sync", source))?;
            self.synced = end;
        }
        self.end = end;
        self.marked = false;
        Ok(())
    }

    fn append(&self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.end)
    }

    /// After a failed write: takes out what came through, so that nobody finds records that were refused.
    fn refused(&mut self, source: io::Error) -> Failure {
        match self.cut() {
            Err(stopped) => stopped,
            Ok(()) if error::is_no_space(&source) => {
                Failure::NoRoom(error::no_space(self.shared.stream, source))
            }
            Ok(()) => self.stopped("write", source),
        }
    }

    fn cut(&mut self) -> Result<(), Failure> {
        self.file.set_len(self.end).map_err(|source| self.stopped("truncate", source))?;
        self.len = self.end;
        Ok(())
    }

    /// What to answer with; a stream that has stopped says so from now on.
    fn note(&self, failure: Failure) -> Error {
        match failure {
            Failure::NoRoom(failed) => failed,
            Failure::Stopped(failed) => {
                log_error!(stream = %self.shared.stream, error = %failed, "the log has stopped");
                self.shared.state.lock().failed = Some(failed.clone());
                failed
            }
        }
    }

    fn stopped(&self, what: &str, source: io::Error) -> Failure {
        Failure::Stopped(error::failed(self.shared.stream, &self.path(), what, source))
    }

    fn path(&self) -> std::path::PathBuf {
        recover::segment_path(&self.shared.dir, self.header.base)
    }

    fn has_failed(&self) -> Option<Error> {
        self.shared.state.lock().failed.clone()
    }

    fn show(&mut self, entries: Vec<Entry>, stored_at: Timestamp) {
        let mut answers = Vec::with_capacity(entries.len());
        {
            let mut state = self.shared.state.lock();
            let mut rung: Vec<Partition> = Vec::new();
            state.active.end = self.end;
            for Entry { pending, offset, sequence, again } in entries {
                let Pending { partition, id, bytes, answer, _room } = pending;
                self.next_sequence = sequence + 1;
                self.dedup.insert(stored_at, id, sequence);
                state.active.index.push(partition, offset);
                let first = state.active.stored.map_or(stored_at, |(first, _)| first);
                state.active.stored = Some((first, stored_at));
                state.tail.push(partition, Record { sequence, id, stored_at, bytes });
                if !rung.contains(&partition) {
                    rung.push(partition);
                }
                answers.push((sequence, answer, again));
            }
            for partition in rung {
                state.ring(partition);
            }
        }
        for (sequence, first, again) in answers {
            for waiting in again.into_iter().chain([first]) {
                answer(waiting, Ok(sequence));
            }
        }
    }

    /// Seals the segment and makes the next one.
    fn rotate(&mut self) -> Result<()> {
        if let Some(failed) = self.has_failed() {
            return Err(failed);
        }
        self.seal().map_err(|failure| self.note(failure))?;
        let (stream, base) = (self.shared.stream, self.next_sequence);
        let header = SegmentHeader { id: Uid::random(), base, ..self.header };
        let path = recover::segment_path(&self.shared.dir, base);
        let file = self.shared.disk.create(&path, &header.to_bytes()).map_err(|source| {
            if error::is_no_space(&source) {
                error::no_space(stream, source)
            } else {
                error::io(&path, "create", source)
            }
        })?;
        let active = Active {
            reader: SegmentReader { path: path.into(), file: file.reader(), seed: header.seed() },
            index: Index::new(base),
            end: SEGMENT_HEADER as u64,
            stored: None,
        };
        let mut state = self.shared.state.lock();
        let old = mem::replace(&mut state.active, active);
        state.sealed.extend(Sealed::of(&old.reader.path, &old.index, old.end, old.stored));
        drop(state);
        (self.file, self.header) = (file, header);
        self.end = SEGMENT_HEADER as u64;
        (self.synced, self.len) = (self.end, self.end);
        Ok(())
    }

    /// Nothing but records stays in a segment, all of it durable, before its successor exists.
    fn seal(&mut self) -> Result<(), Failure> {
        self.cut()?;
        self.file.sync().map_err(|source| self.stopped("sync", source))?;
        self.synced = self.end;
        Ok(())
    }

    /// Marks the end as durable, so that damage to any record before it can be told from a torn tail, and gives back
    /// what was written ahead.
    fn settle(&mut self) {
        self.marked = true; // tried once; the next record asks for it again
        if self.has_failed().is_some() {
            return;
        }
        if !self.shared.syncs() {
            if let Err(source) = self.file.sync() {
                warn!(stream = %self.shared.stream, error = %source, "cannot sync the idle log");
                return;
            }
            self.synced = self.end;
        }
        let marker = RecordHeader {
            crc: 0,
            len: 0,
            kind: Kind::Marker,
            partition: Partition(0),
            sequence: self.next_sequence - 1,
            synced_through: self.synced,
            stored_at: self.shared.options.clock.now(),
            id: Uid::from_u128(0),
        };
        marker.put(&mut self.buffer, self.header.seed(), &[]);
        let written = self.append();
        if written.is_ok() {
            self.end += self.buffer.len() as u64;
        }
        self.buffer.clear();
        // A full disk has no room for a marker; without one the log is only less sure of itself.
        match self.cut() {
            Ok(()) => self.shared.state.lock().active.end = self.end,
            Err(failure) => drop(self.note(failure)),
        }
    }
}

/// Nobody may be waiting any more: a publish that was dropped is written all the same.
fn answer(waiting: oneshot::Sender<Result<u64>>, result: Result<u64>) {
    let _ = waiting.send(result);
}
