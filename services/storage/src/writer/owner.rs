//! The loop of one partition.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use weir_core::{
    Error, ErrorKind, Partition, Result, Stream,
    port::{Batch, Record, TelemetryBatch},
};

use super::{
    Heard, Shared, batch,
    devices::{Changed, Devices},
    start::{Claimed, Engines},
};
use crate::{poison, read::Reader};

/// How long an idle owner waits for a frame before it looks at the stream's end again: its mark is that far behind, which
/// a rule that is read again may wait for.
const IDLE_WAIT: Duration = Duration::from_secs(1);
/// How often an idle owner records that it is idle: only trimming wants to know, and that keeps an hour.
const IDLE_CHECKPOINT: Duration = Duration::from_secs(30);
/// Changed bucket counts after which progress is recorded before its time: about a chunk of a checkpoint.
const CHANGED_MAX: usize = 20_000;
/// The first wait after a failure, and the longest: quick for a blip, and no storm against a store that is down.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Owns a partition until the service stops.
#[derive(Clone)]
pub(crate) struct Owner {
    shared: Arc<Shared>,
    partition: Partition,
}

/// A claimed partition and everything in memory about it.
struct Session<'a> {
    owner: &'a Owner,
    claimed: Claimed,
    devices: Devices,
    changed: Changed,
    /// Bytes of frames since the last checkpoint; none: nothing to record but the end of an idle stream.
    bytes: Option<u64>,
    idle_moved: bool,
    checkpoint_at: Instant,
}

impl Owner {
    pub(crate) fn new(shared: Arc<Shared>, partition: Partition) -> Self {
        Self { shared, partition }
    }

    /// Writes what the log has until the service stops. A failure ends the session and its memory; the next begins at the
    /// recorded progress.
    pub(crate) async fn run(self, claimed: Claimed) {
        let (mut next, mut backoff) = (Some(claimed), BACKOFF.0);
        while !self.shared.stop.is_cancelled() {
            let claimed = match next.take() {
                Some(claimed) => Ok(claimed),
                None => self.claim_again().await,
            };
            let began = Instant::now();
            let outcome = match claimed {
                Ok(claimed) => self.clone().own(claimed).await,
                Err(error) => Err(error),
            };
            let Err(error) = outcome else { break };
            self.shared.health.failed(self.partition, &error);
            self.shared.metrics.restarts.inc();
            tracing::error!(partition = %self.partition, error = ?error, "the owner of a partition failed and begins anew");
            backoff = if began.elapsed() > BACKOFF.1 { BACKOFF.0 } else { (backoff * 2).min(BACKOFF.1) };
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                () = self.shared.stop.cancelled() => {}
            }
        }
    }

    /// A session in a task of its own, so that a panic in it is a failure like any other and not a partition that nobody
    /// writes.
    async fn own(self, claimed: Claimed) -> Result<()> {
        let session = tokio::spawn(async move { Session::new(&self, claimed).run().await });
        session.await.unwrap_or_else(|source| Err(Error::internal("an owner panicked").with_source(source)))
    }

    async fn claim_again(&self) -> Result<Claimed> {
        let shared = &self.shared;
        let engines = Engines {
            log: &*shared.log,
            records: &shared.records,
            store: &*shared.store,
            metrics: &shared.metrics,
            partitions: shared.marks.partitions(),
        };
        let claimed = Claimed::take(&engines, self.partition).await?;
        shared.marks.adopt(claimed.generations.clone());
        shared.marks.advance(self.partition, claimed.mark());
        Ok(claimed)
    }
}

impl<'a> Session<'a> {
    fn new(owner: &'a Owner, claimed: Claimed) -> Self {
        let shared = &owner.shared;
        let devices = shared.config.devices_cached / usize::from(shared.marks.partitions()).max(1);
        Self {
            owner,
            claimed,
            devices: Devices::new(Reader::new(Arc::clone(&shared.store)), devices.max(1)),
            changed: Changed::new(),
            bytes: None,
            idle_moved: false,
            checkpoint_at: Instant::now(),
        }
    }

    async fn run(mut self) -> Result<()> {
        let Owner { shared, partition } = self.owner;
        let mut reader = shared.log.read_from(Stream::Readings, *partition, self.claimed.from).await?;
        loop {
            let batch = tokio::select! {
                () = shared.stop.cancelled() => break,
                batch = reader.next(shared.config.read.as_usize(), self.wait()) => batch?,
            };
            if batch.records.is_empty() {
                self.idle(batch.end);
            } else {
                self.take(batch).await?;
            }
            shared.health.works(*partition);
            if self.is_due() {
                self.checkpoint().await?;
            }
        }
        self.checkpoint().await
    }

    /// How long to wait for frames.
    fn wait(&self) -> Duration {
        match self.bytes {
            Some(_) => {
                self.checkpoint_at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
            }
            None => IDLE_WAIT,
        }
    }

    fn is_due(&self) -> bool {
        let config = &self.owner.shared.config;
        let now = Instant::now();
        match self.bytes {
            Some(bytes) => {
                now >= self.checkpoint_at
                    || bytes >= config.checkpoint_bytes.0
                    || self.changed.values().map(|buckets| buckets.len()).sum::<usize>() >= CHANGED_MAX
            }
            None => self.idle_moved && now >= self.checkpoint_at + IDLE_CHECKPOINT,
        }
    }

    /// Nothing of the partition is at or below the stream's end.
    fn idle(&mut self, end: u64) {
        let progress = &mut self.claimed.progress;
        let generation = self.owner.shared.marks.generation_of(end);
        self.idle_moved |= end > progress.sequence;
        progress.idle_through(generation, end);
        self.tell(end);
    }

    async fn take(&mut self, read: Batch) -> Result<()> {
        let shared = &self.owner.shared;
        let _slot = shared.slots.acquire().await.map_err(|_| Error::unavailable("storage is stopping"))?;
        let mut heard = Vec::new();
        for record in &read.records {
            heard.extend(self.decode(record).await?);
        }
        self.devices.load(&heard, &self.changed).await?;
        let batch = batch::build(&heard, &mut self.devices, &mut self.changed, shared.config.bucket.0)?;
        let rows = batch.rows.len() as u64;
        shared.store.write(batch).await?;
        for record in &read.records {
            let generation = shared.marks.generation_of(record.sequence);
            self.claimed.progress.passed(generation, record.sequence, record.id);
        }
        shared.metrics.rows.inc_by(rows);
        shared.metrics.frames.inc_by(read.records.len() as u64);
        if self.bytes.is_none() {
            self.checkpoint_at = Instant::now() + shared.config.checkpoint_interval;
        }
        let bytes = read.records.iter().map(|record| record.bytes.len() as u64).sum::<u64>();
        self.bytes = Some(self.bytes.unwrap_or(0) + bytes);
        // First the tails, then the mark: a tail that sees the mark has got everything up to it.
        shared.fan_out.publish(&heard);
        self.tell(read.end);
        Ok(())
    }

    async fn decode(&self, record: &Record) -> Result<Vec<Arc<Heard>>> {
        let Owner { shared, partition } = self.owner;
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

    /// Tells how far this partition is.
    fn tell(&self, end: u64) {
        let Owner { shared, partition } = self.owner;
        let mark = self.claimed.mark();
        shared.marks.advance(*partition, mark);
        let behind = i64::try_from(end.saturating_sub(mark.sequence)).unwrap_or(i64::MAX);
        shared.metrics.lag.with_label_values(&[&partition.to_string()]).set(behind);
    }

    async fn checkpoint(&mut self) -> Result<()> {
        if self.bytes.is_none() && !self.idle_moved {
            return Ok(());
        }
        let shared = &self.owner.shared;
        // Also where nothing but an idle stream's end is new: the counts of the last checkpoint must be durable in the
        // `buckets` table before it is replaced.
        shared.store.sync().await?;
        let Claimed { claim, checkpoints, progress, .. } = &mut self.claimed;
        let buckets = checkpoints.save(claim, progress.clone(), &self.changed).await?;
        if !buckets.is_empty() {
            shared.store.write(TelemetryBatch { buckets, ..TelemetryBatch::default() }).await?;
        }
        shared.metrics.checkpoints.inc();
        self.changed.clear();
        (self.bytes, self.idle_moved, self.checkpoint_at) = (None, false, Instant::now());
        Ok(())
    }
}
