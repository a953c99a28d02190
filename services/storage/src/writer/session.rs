//! The loop of one claimed partition.
//!
//! Progress is recorded in three steps of which only the middle one takes long: freeze progress and the counts that belong
//! to it; let the store make everything durable that was written before, in the background, while frames are read and
//! written on; then save what was frozen. Why that keeps its promises stands at [`super::checkpoint`].

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use weir_core::{
    Clock as _, Error, ErrorKind, Partition, Result, Stream, SystemClock,
    port::{Batch, LogReader, Record, TelemetryBatch},
    progress::Progress,
};
use weir_runtime::ownership::Held;

use super::{
    Heard, Shared, batch,
    devices::{Changed, Devices},
    start::Claimed,
};
use crate::{marks::Mark, poison, read::Reader};

/// How long an idle owner waits for a frame before it looks at the stream's end again: its mark is that far behind, which
/// a rule that is read again may wait for.
const IDLE_WAIT: Duration = Duration::from_secs(1);
/// How often an idle owner records that it is idle: only trimming wants to know, and that keeps an hour.
const IDLE_CHECKPOINT: Duration = Duration::from_secs(30);
/// Changed bucket counts after which progress is recorded before its time: about a chunk of a checkpoint.
const CHANGED_MAX: usize = 20_000;
/// While a checkpoint is under way, so many times more may be written than one holds: a sync takes up to 20 s, and an
/// early checkpoint is less than a second of full load. Past it the owner waits: a failure must not make it read
/// much more again, nor may memory grow.
const AHEAD_BYTES: u64 = 20;
/// The same of changed bucket counts, which take some 100 bytes each.
const AHEAD_CHANGED: usize = 5;

/// What a partition that moves waits for its last sync: the next owner begins at the last checkpoint without it. A store
/// that syncs at once takes less, one with a periodic commit log far more.
const MOVE_SYNC_MAX: Duration = Duration::from_secs(1);

/// A claimed partition and everything in memory about it.
pub(super) struct Session {
    shared: Arc<Shared>,
    partition: Partition,
    claimed: Claimed,
    devices: Devices,
    /// Counts that changed since the last freeze.
    changed: Changed,
    /// Bytes of frames since the last freeze; none: nothing to record but the end of an idle stream.
    bytes: Option<u64>,
    idle_moved: bool,
    checkpoint_at: Instant,
    frozen: Option<Frozen>,
}

/// A checkpoint that is under way.
struct Frozen {
    progress: Progress,
    changed: Changed,
    began: Instant,
    /// Everything up to `progress` is being made durable.
    sync: AbortOnDropHandle<Result<()>>,
}

type Reading = BoxFuture<'static, (Box<dyn LogReader>, Result<Batch>)>;

impl Session {
    pub(super) fn new(shared: Arc<Shared>, partition: Partition, claimed: Claimed) -> Self {
        let devices = shared.config.devices_cached / usize::from(shared.marks.partitions()).max(1);
        shared.metrics.writer.devices_max.set(i64::try_from(devices.max(1)).unwrap_or(i64::MAX));
        Self {
            devices: Devices::new(Reader::new(Arc::clone(&shared.store)), devices.max(1)),
            shared,
            partition,
            claimed,
            changed: Changed::new(),
            bytes: None,
            idle_moved: false,
            checkpoint_at: Instant::now(),
            frozen: None,
        }
    }

    /// Writes what the log has until it is stopped, then records its progress.
    ///
    /// # Errors
    /// Whatever goes wrong: all that is in memory is given up.
    pub(super) async fn run(mut self, held: &Held) -> Result<()> {
        let bytes_max = self.shared.config.read.as_usize();
        let reader = self.shared.log.read_from(Stream::Readings, self.partition, self.claimed.from).await?;
        // The first read does not wait, so that it is known at once that the owner works. None is dropped under way, so
        // that an engine need not care.
        let mut reading = read(reader, bytes_max, Duration::ZERO);
        loop {
            let (room, due) = (self.has_room(), self.due_at());
            tokio::select! {
                () = held.stop().cancelled() => break,
                (reader, batch) = &mut reading, if room => {
                    let batch = batch?;
                    if batch.records.is_empty() {
                        self.idle(batch.end)?;
                    } else {
                        self.take(batch).await?;
                    }
                    held.works();
                    reading = read(reader, bytes_max, IDLE_WAIT);
                }
                synced = synced(&mut self.frozen) => {
                    synced?;
                    self.save().await?;
                }
                () = sleep_until(due) => {}
            }
            if self.frozen.is_none() && self.is_due() {
                self.freeze();
            }
        }
        self.finish(held).await
    }

    /// When time alone makes a checkpoint due; never while there is nothing new, or one is under way.
    fn due_at(&self) -> Option<Instant> {
        match self.bytes {
            _ if self.frozen.is_some() => None,
            Some(_) => Some(self.checkpoint_at),
            None => self.idle_moved.then(|| self.checkpoint_at + IDLE_CHECKPOINT),
        }
    }

    fn is_due(&self) -> bool {
        self.due_at().is_some_and(|due| Instant::now() >= due)
            || self.bytes.is_some_and(|bytes| bytes >= self.shared.config.checkpoint_bytes.0)
            || self.changed_counts() >= CHANGED_MAX
    }

    /// Whether more may be written before a checkpoint has passed it.
    fn has_room(&self) -> bool {
        let bytes_max = self.shared.config.checkpoint_bytes.0.saturating_mul(AHEAD_BYTES);
        self.frozen.is_none()
            || (self.bytes.unwrap_or(0) < bytes_max && self.changed_counts() < CHANGED_MAX * AHEAD_CHANGED)
    }

    fn changed_counts(&self) -> usize {
        self.changed.values().map(|buckets| buckets.len()).sum()
    }

    /// Nothing of the partition is at or below the stream's end.
    fn idle(&mut self, end: u64) -> Result<()> {
        let from = self.claimed.mark();
        let progress = &mut self.claimed.progress;
        let generation = self.shared.marks.step(progress, end)?;
        self.idle_moved |= end > progress.sequence;
        progress.idle_through(generation, end);
        self.shared.metrics.behind.reached(self.partition, SystemClock.now());
        self.tell(from, &[], end);
        Ok(())
    }

    async fn take(&mut self, read: Batch) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let _slot = shared.slots.acquire().await.map_err(|_| Error::unavailable("storage is stopping"))?;
        let mut heard = Vec::new();
        for record in &read.records {
            heard.extend(self.decode(record).await?);
        }
        let untold = self.frozen.as_ref().map(|frozen| &frozen.changed);
        let untold: Vec<&Changed> = untold.into_iter().chain([&self.changed]).collect();
        self.devices.load(&heard, &untold).await?;
        let batch = batch::build(&heard, &mut self.devices, &mut self.changed, shared.config.bucket.0)?;
        let rows = batch.rows.len() as u64;
        shared.store.write(batch).await?;
        let from = self.claimed.mark();
        for record in &read.records {
            let generation = shared.marks.step(&self.claimed.progress, record.sequence)?;
            self.claimed.progress.passed(generation, record.sequence, record.id);
        }
        shared.metrics.rows.inc_by(rows);
        self.count(&heard);
        shared.metrics.frames.inc_by(read.records.len() as u64);
        if self.bytes.is_none() {
            self.checkpoint_at = Instant::now() + shared.config.checkpoint_interval;
        }
        let bytes = read.records.iter().map(|record| record.bytes.len() as u64).sum::<u64>();
        self.bytes = Some(self.bytes.unwrap_or(0) + bytes);
        self.tell(from, &heard, read.end);
        if let Some(last) = read.records.last() {
            shared.metrics.behind.reached(self.partition, last.stored_at);
        }
        Ok(())
    }

    /// What was just written can be read.
    fn count(&self, heard: &[Arc<Heard>]) {
        let metrics = &self.shared.metrics;
        let (now, fresh) = (SystemClock.now(), metrics.freshness.local());
        let mut newest = None;
        for message in heard {
            newest = newest.max(message.readings.iter().map(|(_, reading)| reading.ts).max());
            if let Some((_, reading)) = message.readings.last() {
                fresh.observe(now.since(reading.received_at).as_secs_f64());
            }
        }
        fresh.flush();
        if let Some(newest) = newest {
            metrics.behind.passed(self.partition, newest);
        }
        let devices = i64::try_from(self.devices.weight()).unwrap_or(i64::MAX);
        metrics.writer.devices.with_label_values(&[&self.partition.to_string()]).set(devices);
    }

    async fn decode(&self, record: &Record) -> Result<Vec<Arc<Heard>>> {
        let Self { shared, partition, .. } = self;
        let generation = shared.marks.generation_of(record.sequence);
        match batch::decode(record, *partition, generation) {
            Err(error) if error.kind() == ErrorKind::DataLoss => {
                let sequence = record.sequence;
                tracing::error!(%partition, sequence, id = %record.id, %error, "a frame cannot be decoded and is kept aside");
                shared.metrics.poison.inc();
                let frames_max = shared.config.poison_frames;
                poison::keep(&*shared.records, *partition, generation, record, &error, frames_max).await?;
                Ok(vec![])
            }
            decoded => decoded,
        }
    }

    /// Tells what came after `from`, and how far this partition is: first the tails, then the mark, so that the follower
    /// finds nothing left to do.
    fn tell(&self, from: Mark, heard: &[Arc<Heard>], end: u64) {
        let Self { shared, partition, .. } = self;
        let mark = self.claimed.mark();
        shared.fan_out.hand_over(*partition, from, mark, heard);
        shared.marks.advance(*partition, mark);
        let behind = i64::try_from(end.saturating_sub(mark.sequence)).unwrap_or(i64::MAX);
        shared.metrics.lag.with_label_values(&[&partition.to_string()]).set(behind);
    }

    /// Begins a checkpoint of everything that was written so far.
    fn freeze(&mut self) {
        let store = Arc::clone(&self.shared.store);
        self.frozen = Some(Frozen {
            progress: self.claimed.progress.clone(),
            changed: std::mem::take(&mut self.changed),
            began: Instant::now(),
            sync: AbortOnDropHandle::new(tokio::spawn(async move { store.sync().await })),
        });
        (self.bytes, self.idle_moved, self.checkpoint_at) = (None, false, Instant::now());
    }

    /// Records what was frozen; the store has it durably.
    async fn save(&mut self) -> Result<()> {
        let Some(Frozen { progress, changed, began, .. }) = self.frozen.take() else { return Ok(()) };
        if self.shared.store.losses() != self.claimed.losses {
            // Another partition's sync came upon it, and this one's began after: what it waited for may be gone all the same.
            return Err(Error::unavailable(
                "the store may have lost what it accepted since this claim began",
            ));
        }
        let Claimed { claim, checkpoints, .. } = &mut self.claimed;
        let buckets = checkpoints.save(claim, progress, &changed).await?;
        if !buckets.is_empty() {
            self.shared.store.write(TelemetryBatch { buckets, ..TelemetryBatch::default() }).await?;
        }
        self.shared.metrics.checkpoint.observe(began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Records everything. A checkpoint that is under way becomes part of the last one: the store syncs once more for
    /// both, and nothing was saved of the former. A partition that moves is another's within a moment, and is claimed
    /// without waiting for this: a sync that takes long is not waited for here either.
    async fn finish(mut self, held: &Held) -> Result<()> {
        let mut moved = self.bytes.is_some() || self.idle_moved;
        if let Some(frozen) = self.frozen.take() {
            moved = true;
            for (series, newer) in std::mem::replace(&mut self.changed, frozen.changed) {
                self.changed.entry(series).or_default().extend(newer);
            }
        }
        if !moved {
            return Ok(());
        }
        self.freeze();
        tokio::select! {
            synced = synced(&mut self.frozen) => synced?,
            () = tokio::time::sleep(MOVE_SYNC_MAX), if held.moves() => return Ok(()),
        }
        self.save().await
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Returns when the checkpoint that is under way can be saved; never where there is none.
async fn synced(frozen: &mut Option<Frozen>) -> Result<()> {
    let Some(frozen) = frozen else { return std::future::pending().await };
    let ended = (&mut frozen.sync).await;
    ended.unwrap_or_else(|source| Err(Error::internal("a sync of the store panicked").with_source(source)))
}

fn read(mut reader: Box<dyn LogReader>, bytes_max: usize, wait: Duration) -> Reading {
    Box::pin(async move {
        let batch = reader.next(bytes_max, wait).await;
        (reader, batch)
    })
}
