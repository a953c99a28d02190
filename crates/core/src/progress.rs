//! How far a reader has come in a log, who may say so, and which log it was.
//!
//! The log holds no authoritative progress: a shared durable consumer with cumulative acks loses what a dead owner had
//! pulled. Each reader (`storage`, `analytics`, `commands`) keeps its own here, fenced by an epoch: whoever claims a
//! partition raises the epoch by a conditional write, and every later write of the old owner fails.
//!
//! A stream's *generations* tell frames of a log that fell back or was made anew from the frames that were lost. The list
//! of (generation, log identity, first sequence) is kept once for each stream; a frame's generation is the last entry of
//! the current identity whose first sequence is not above its own.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    Error, ErrorKind, Partition, Result, Stream, Uid, json,
    port::{Expect, Log, LogIdentity, Records, Stored, Table, Write},
};

/// Progress of every reader, one record partition for each (reader, stream, partition).
pub const PROGRESS: Table = Table("progress");
/// Generations, one record partition for each stream.
pub const GENERATIONS: Table = Table("generations");

/// Enough (sequence, id) pairs to find where a log that lost its tail still agrees.
const RECENT_MAX: usize = 64;
/// Every owner of a stream may raise a generation for the same loss at the same time; each attempt that loses sees the
/// winner's next.
const RAISE_ATTEMPTS: usize = 10;
/// An owner that is taken over writes a few times a second: whoever loses against it so often has another rival.
const CLAIM_TRIES: usize = 8;
const PROGRESS_KEY: &[u8] = b"progress";
const GENERATIONS_KEY: &[u8] = b"generations";

/// How far a reader has come: what is safe to trim.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The generation of `sequence`.
    pub generation: u32,
    /// Every frame of the partition up to this one is durably dealt with.
    pub sequence: u64,
    /// The last frames that this reader dealt with, oldest first: (sequence, id).
    #[serde(default)]
    pub recent: VecDeque<(u64, Uid)>,
}

impl Progress {
    /// Moves over a frame.
    pub fn passed(&mut self, generation: u32, sequence: u64, id: Uid) {
        self.generation = generation;
        self.sequence = sequence;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((sequence, id));
    }

    /// Moves to the end of the stream as seen before an empty read. In a newer generation that end may be a lower one.
    pub fn idle_through(&mut self, generation: u32, end: u64) {
        if generation > self.generation || end > self.sequence {
            self.generation = generation;
            self.sequence = end;
        }
    }

    /// The same progress, taken back to before `from`, where a log has other frames now.
    fn rewound(&self, generation: u32, from: u64) -> Self {
        let recent = self.recent.iter().filter(|(sequence, _)| *sequence < from).copied().collect();
        Self { generation, sequence: from.saturating_sub(1), recent }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct ClaimRecord {
    epoch: u64,
    progress: Progress,
}

/// The right to move the progress of one reader over one partition, until somebody else claims it.
pub struct Claim {
    records: Arc<dyn Records>,
    place: Bytes,
    epoch: u64,
    version: u64,
    progress: Progress,
    /// A commit was not answered: it may have been written, under a version that is not known here.
    uncertain: bool,
}

impl Claim {
    /// Claims: raises the epoch, so that the former owner's writes fail from now on. Where that owner records something at
    /// the same moment, looks again.
    ///
    /// # Errors
    /// `Unavailable` of the store; `Aborted` where others keep writing at the same time.
    pub async fn take(
        records: Arc<dyn Records>,
        reader: &str,
        stream: Stream,
        partition: Partition,
    ) -> Result<Self> {
        let place = place(reader, stream, partition);
        let mut tries = 1;
        loop {
            match Self::try_take(&records, &place).await {
                Err(error) if error.kind() == ErrorKind::Aborted && tries < CLAIM_TRIES => tries += 1,
                taken => return taken,
            }
        }
    }

    async fn try_take(records: &Arc<dyn Records>, place: &Bytes) -> Result<Self> {
        let stored = records.get(PROGRESS, place, PROGRESS_KEY).await?;
        let (mut record, expect) = match &stored {
            Some(stored) => (json::from_stored::<ClaimRecord>(stored)?, Expect::Version(stored.version)),
            None => (ClaimRecord::default(), Expect::Absent),
        };
        record.epoch += 1;
        let write = Write {
            key: Bytes::from_static(PROGRESS_KEY),
            expect,
            op: crate::port::Op::Put(json::to_bytes(&record)?),
        };
        let version = first(&records.commit(PROGRESS, place, vec![write]).await?);
        Ok(Self {
            records: Arc::clone(records),
            place: place.clone(),
            epoch: record.epoch,
            version,
            progress: record.progress,
            uncertain: false,
        })
    }

    /// The epoch of this claim; rises with each claim of the partition.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The progress as this owner last recorded or found it.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Checks, as [`resume`] does, that the log is the one that this claim's progress is about, and where it is not,
    /// records at once how far back the progress lies now: a trimmer must not take the old one for the new log's.
    ///
    /// # Errors
    /// As of [`resume`] and [`Claim::advance`].
    pub async fn resume(&mut self, log: &dyn Log, stream: Stream, partitions: u16) -> Result<Resume> {
        let records = Arc::clone(&self.records);
        let resume = resume(&*records, log, stream, partitions, &self.progress).await?;
        if resume.progress != self.progress {
            self.advance(resume.progress.clone(), vec![]).await?;
        }
        Ok(resume)
    }

    /// Records progress and, in the same atomic commit, `also`: what must agree with it (keys other than `progress`,
    /// in this claim's own record partition; read back by [`Claim::checkpoint`]). After an error that leaves open whether
    /// it was written, the next call finds that out first, so writes without expectations may simply be tried again.
    ///
    /// # Errors
    /// `Aborted` where somebody else has claimed since, or an expectation of `also` did not hold: stop owning.
    /// `Unavailable` of the store: try again.
    pub async fn advance(&mut self, progress: Progress, also: Vec<Write>) -> Result<()> {
        if self.uncertain {
            self.find_version().await?;
        }
        let record = ClaimRecord { epoch: self.epoch, progress };
        let mut writes = Vec::with_capacity(also.len() + 1);
        writes.push(Write::replace(Bytes::from_static(PROGRESS_KEY), self.version, json::to_bytes(&record)?));
        writes.extend(also);
        let outcome = self.records.commit(PROGRESS, &self.place, writes).await;
        self.uncertain = outcome.as_ref().is_err_and(|error| error.kind() != ErrorKind::Aborted);
        self.version = first(&outcome?);
        self.progress = record.progress;
        Ok(())
    }

    async fn find_version(&mut self) -> Result<()> {
        let stored = self.records.get(PROGRESS, &self.place, PROGRESS_KEY).await?;
        if let Some(stored) = stored {
            let record: ClaimRecord = json::from_stored(&stored)?;
            if record.epoch == self.epoch {
                (self.version, self.progress, self.uncertain) = (stored.version, record.progress, false);
                return Ok(());
            }
        }
        Err(Error::aborted(format!("epoch {} of a claim is over: another has claimed since", self.epoch)))
    }

    /// What was recorded beside progress: a page of this claim's record partition, without the progress itself.
    ///
    /// # Errors
    /// `Unavailable` of the store.
    pub async fn checkpoint(&self, range: crate::port::KeyRange, limit: usize) -> Result<Vec<Stored>> {
        // One more than asked, so that a page is full though the progress lies among its keys.
        let found = self.records.scan(PROGRESS, &self.place, range, limit.saturating_add(1)).await?;
        Ok(found.into_iter().filter(|stored| stored.key != PROGRESS_KEY).take(limit).collect())
    }

    /// Records that must be fenced by this claim but live in the claim's record partition: one commit that fails if
    /// somebody else has claimed since.
    ///
    /// # Errors
    /// `Aborted` where somebody else has claimed since; `Unavailable` of the store.
    pub async fn commit_fenced(&mut self, writes: Vec<Write>) -> Result<()> {
        self.advance(self.progress.clone(), writes).await
    }
}

/// The progress of one reader over one partition, for lag and trimming.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderProgress {
    /// `storage`, `analytics` or `commands`.
    pub reader: String,
    /// The partition.
    pub partition: Partition,
    /// The epoch of the current owner.
    pub epoch: u64,
    /// How far it is.
    pub progress: Progress,
}

/// The progress of each of `readers` over each partition of a stream. A reader that has never claimed a partition is at 0
/// there: it blocks trimming.
///
/// # Errors
/// `Unavailable` of the store.
pub async fn all_progress(
    records: &dyn Records,
    stream: Stream,
    readers: &[&str],
    partitions: u16,
) -> Result<Vec<ReaderProgress>> {
    let mut found = Vec::new();
    for reader in readers {
        for partition in (0..partitions).map(Partition) {
            let stored = records.get(PROGRESS, &place(reader, stream, partition), PROGRESS_KEY).await?;
            let record =
                stored.as_ref().map(json::from_stored::<ClaimRecord>).transpose()?.unwrap_or_default();
            found.push(ReaderProgress {
                reader: (*reader).to_owned(),
                partition,
                epoch: record.epoch,
                progress: record.progress,
            });
        }
    }
    Ok(found)
}

/// What the owner of a partition recorded beside its progress ([`Claim::advance`]), for whoever only reads it: a page
/// without the progress itself.
///
/// # Errors
/// `Unavailable` of the store.
pub async fn beside(
    records: &dyn Records,
    reader: &str,
    stream: Stream,
    partition: Partition,
    range: crate::port::KeyRange,
    limit: usize,
) -> Result<Vec<Stored>> {
    let found = records.scan(PROGRESS, &place(reader, stream, partition), range, limit).await?;
    Ok(found.into_iter().filter(|stored| stored.key != PROGRESS_KEY).collect())
}

/// One entry of a stream's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Rises from 1.
    pub generation: u32,
    /// Which log.
    pub identity: Uid,
    /// The first sequence of that log which belongs to this generation.
    pub first_sequence: u64,
}

/// The generations of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generations {
    current: LogIdentity,
    list: Vec<Generation>,
    version: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct GenerationsRecord {
    partitions: u16,
    list: Vec<Generation>,
}

impl Generations {
    /// Reads the list of a stream, making its first entry where there is none, and one more where the log is another
    /// one than the list knows.
    ///
    /// # Errors
    /// `FailedPrecondition` (`PARTITIONS_CHANGED`) where the recorded partition count is another than `partitions`;
    /// `Unavailable` of store or log.
    pub async fn open(records: &dyn Records, log: &dyn Log, stream: Stream, partitions: u16) -> Result<Self> {
        let current = log.identity(stream).await?;
        for _ in 0..RAISE_ATTEMPTS {
            let known = Self::read(records, stream, partitions, current).await?;
            if known.list.iter().any(|entry| entry.identity == current.0) {
                return Ok(known);
            }
            // Every frame of a log that the list does not know is of the new generation.
            match known.raise(records, stream, partitions, 1).await {
                Err(error) if error.kind() == ErrorKind::Aborted => {} // somebody else raised it: read again
                done => return done,
            }
        }
        Err(contended(stream))
    }

    async fn read(
        records: &dyn Records,
        stream: Stream,
        partitions: u16,
        current: LogIdentity,
    ) -> Result<Self> {
        let stored = records.get(GENERATIONS, stream.as_str().as_bytes(), GENERATIONS_KEY).await?;
        let Some(stored) = stored else { return Ok(Self { current, list: vec![], version: 0 }) };
        let record: GenerationsRecord = json::from_stored(&stored)?;
        if record.partitions != partitions {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                "PARTITIONS_CHANGED",
                format!(
                    "stream {stream} was made with {} partitions and cannot be opened with {partitions}",
                    record.partitions
                ),
            )
            .with_field("log.partitions")
            .with_limit(record.partitions));
        }
        Ok(Self { current, list: record.list, version: stored.version })
    }

    async fn raise(
        mut self,
        records: &dyn Records,
        stream: Stream,
        partitions: u16,
        first_sequence: u64,
    ) -> Result<Self> {
        let generation = self.list.last().map_or(1, |last| last.generation + 1);
        self.list.push(Generation { generation, identity: self.current.0, first_sequence });
        let record = json::to_bytes(&GenerationsRecord { partitions, list: self.list.clone() })?;
        let key = Bytes::from_static(GENERATIONS_KEY);
        let write = match self.version {
            0 => Write::insert(key, record),
            version => Write::replace(key, version, record),
        };
        let place = stream.as_str().as_bytes();
        self.version = first(&records.commit(GENERATIONS, place, vec![write]).await?);
        Ok(self)
    }

    /// The generation of a frame of the current log.
    pub fn of(&self, sequence: u64) -> u32 {
        self.list
            .iter()
            .rev()
            .find(|entry| entry.identity == self.current.0 && entry.first_sequence <= sequence)
            .map_or(0, |entry| entry.generation)
    }

    /// Whether a position can still be reached: its generation is the one that its sequence has today.
    pub fn holds(&self, generation: u32, sequence: u64) -> bool {
        self.list.iter().any(|entry| entry.generation == generation && entry.first_sequence <= sequence)
            && !self
                .list
                .iter()
                .any(|entry| entry.generation > generation && entry.first_sequence <= sequence)
    }

    /// The sequence at which to go on after everything up to (generation, sequence): the next one, or an earlier one where
    /// the log began again below it since.
    pub fn next_after(&self, generation: u32, sequence: u64) -> u64 {
        let of_log = self.list.iter().filter(|entry| entry.identity == self.current.0);
        let begun =
            of_log.filter(|entry| entry.generation > generation).map(|entry| entry.first_sequence).min();
        let next = sequence.saturating_add(1);
        begun.map_or(next, |first| first.min(next))
    }

    /// The generation of the frame (or end of the stream) `to`, for a reader that comes to it from `progress`.
    ///
    /// # Errors
    /// `Aborted` where the log began again at or below `progress` since: the reader has passed frames that it never saw,
    /// and must [`resume`] before it moves on.
    pub fn step(&self, progress: &Progress, to: u64) -> Result<u32> {
        let next = self.next_after(progress.generation, progress.sequence);
        if next <= progress.sequence {
            return Err(Error::aborted(format!(
                "the log began again at sequence {next} under generation {}, below {} of generation {}",
                self.of(next),
                progress.sequence,
                progress.generation
            )));
        }
        Ok(self.of(to))
    }

    /// The newest generation.
    pub fn newest(&self) -> u32 {
        self.list.last().map_or(0, |entry| entry.generation)
    }
}

/// Where an owner starts to read, after the check that the log is the one that its progress is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The generations to number frames with.
    pub generations: Generations,
    /// The first sequence to read.
    pub from: u64,
    /// What the log has lost, in words, where it fell back: log it as an error.
    pub lost: Option<String>,
    /// The progress to go on from: taken back to before `from` where the log fell back. [`Claim::resume`] records it.
    pub progress: Progress,
}

/// Checks at a claim, and after each reconnect, that the log is the one that the progress is about: the same identity,
/// a last sequence not below it, and the same id at each recorded pair that is still there. Where that fails, raises the
/// generation from one past the newest recorded pair that matches and is below all that differ. Where it all holds, but
/// another reader has raised a generation at or below this progress, reads again from there. An owner calls
/// [`Claim::resume`].
///
/// # Errors
/// `FailedPrecondition` for a changed partition count; `Unavailable` of store or log; `Aborted` where others keep
/// changing the generations.
pub async fn resume(
    records: &dyn Records,
    log: &dyn Log,
    stream: Stream,
    partitions: u16,
    progress: &Progress,
) -> Result<Resume> {
    for _ in 0..RAISE_ATTEMPTS {
        match try_resume(records, log, stream, partitions, progress).await {
            Err(error) if error.kind() == ErrorKind::Aborted => {} // somebody else raised a generation: look again
            done => return done,
        }
    }
    Err(contended(stream))
}

async fn try_resume(
    records: &dyn Records,
    log: &dyn Log,
    stream: Stream,
    partitions: u16,
    progress: &Progress,
) -> Result<Resume> {
    let generations = Generations::open(records, log, stream, partitions).await?;
    let same_identity = generations
        .list
        .iter()
        .any(|entry| entry.generation == progress.generation && entry.identity == generations.current.0);
    let known = if same_identity { progress.sequence } else { 0 };
    let bounds = log.bounds_with(stream, known).await?;
    let first = bounds.first.max(1);
    if progress.sequence == 0 {
        return Ok(Resume { generations, from: first, lost: None, progress: progress.clone() });
    }
    let sequences: Vec<u64> = progress.recent.iter().rev().map(|(sequence, _)| *sequence).collect();
    let ids = log.ids(stream, &sequences).await?;
    // Newest first. Any pair that differs shows that the log fell back, also where it agrees at the newest: it may have
    // grown again under an owner that went on reading.
    let pairs = || progress.recent.iter().rev().zip(&ids);
    let differs = pairs()
        .filter(|((_, known), found)| found.is_some_and(|found| found != *known))
        .map(|((sequence, _), _)| *sequence)
        .min();
    if same_identity && bounds.last >= progress.sequence && differs.is_none() {
        let next = generations.next_after(progress.generation, progress.sequence);
        return Ok(if next <= progress.sequence {
            go_back(stream, generations, next.max(first), progress)
        } else {
            go_on(stream, generations, first, progress)
        });
    }
    let agreed = pairs()
        .find(|((sequence, known), found)| {
            **found == Some(*known) && differs.is_none_or(|differs| *sequence < differs)
        })
        .map(|((sequence, _), _)| *sequence);
    let from = agreed.map_or(first, |sequence| sequence + 1);
    let lost = format!(
        "stream {stream} ends at sequence {}, but frames up to {} were read from it; it agrees up to {}, and is read \
         from {from} under a new generation",
        bounds.last,
        progress.sequence,
        agreed.map_or("none of the recorded frames".to_owned(), |sequence| sequence.to_string()),
    );
    let generations = if generations.of(from) > progress.generation {
        generations // somebody raised it already, for the same loss
    } else {
        generations.raise(records, stream, partitions, from).await?
    };
    let progress = progress.rewound(generations.of(from), from);
    Ok(Resume { generations, from, lost: Some(lost), progress })
}

/// Nothing that this reader knows differs from the log, but another one found that the log fell back to before `from`: what
/// came in its place since was not read, where this reader was idle and so had no frame to tell the loss by.
fn go_back(stream: Stream, generations: Generations, from: u64, progress: &Progress) -> Resume {
    let lost = format!(
        "stream {stream} began again below sequence {from} after frames up to {} were read from it, as another reader has \
         found; it is read again from {from}",
        progress.sequence
    );
    let progress = progress.rewound(generations.of(from), from);
    Resume { generations, from, lost: Some(lost), progress }
}

/// The log is the one that the progress is about; but it may have been trimmed past it.
fn go_on(stream: Stream, generations: Generations, first: u64, progress: &Progress) -> Resume {
    let mut progress = progress.clone();
    let mut lost = None;
    if first > progress.sequence + 1 {
        lost = Some(format!(
            "stream {stream} was trimmed below sequence {first}, but was read only up to {}",
            progress.sequence
        ));
        progress.idle_through(generations.of(first - 1), first - 1);
    }
    Resume { generations, from: progress.sequence + 1, lost, progress }
}

fn contended(stream: Stream) -> Error {
    Error::aborted(format!(
        "generations of stream {stream} changed {RAISE_ATTEMPTS} times while they were read"
    ))
}

fn place(reader: &str, stream: Stream, partition: Partition) -> Bytes {
    format!("{reader}/{stream}/{:05}", partition.0).into()
}

fn first(versions: &[u64]) -> u64 {
    versions.first().copied().unwrap_or_default()
}
