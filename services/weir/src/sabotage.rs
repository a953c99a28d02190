//! Two promises broken on purpose, so that the fault harness can show that it would notice. Built only with the feature
//! `sabotage`, into a binary that is never shipped; `WEIR_SABOTAGE` says which promise:
//!
//! - `acks-early`: a publish is acknowledged before the log has it
//! - `progress-early`: rows are reported as written and synced while they are only in memory, so that progress passes them
//!
//! As long as the process lives nobody can tell; only a fault shows it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Mutex, mpsc};
use weir_core::{
    Error, ErrorKind, Partition, Result, Stream, Timestamp, Uid,
    port::{
        Bounds, BucketId, BucketRow, LatestCell, Log, LogIdentity, LogReader, Row, RowScan, SeriesKey,
        TelemetryBatch, TelemetryStore,
    },
};

use crate::engines::Engines;

/// How long what was acknowledged stays in memory: a kill between finds something to lose.
const DELAY: Duration = Duration::from_millis(1_500);
/// Publishes that wait; past it a publisher waits, as it would for a log.
const WAITING_MAX: usize = 10_000;

/// Breaks the promise that `WEIR_SABOTAGE` names; none where it is not set.
///
/// # Errors
/// `SABOTAGE_UNKNOWN` for another name: a control that breaks nothing would prove nothing.
pub(crate) async fn apply(mut engines: Engines) -> Result<Engines> {
    match std::env::var("WEIR_SABOTAGE").as_deref() {
        Err(_) => {}
        Ok("acks-early") => engines.log = Arc::new(AcksEarly::over(engines.log).await?),
        Ok("progress-early") => engines.telemetry = ProgressEarly::over(engines.telemetry),
        Ok(other) => {
            let message = format!("WEIR_SABOTAGE is {other}, it must be acks-early or progress-early");
            return Err(Error::new(ErrorKind::InvalidArgument, "SABOTAGE_UNKNOWN", message));
        }
    }
    Ok(engines)
}

struct Waiting {
    stream: Stream,
    partition: Partition,
    id: Uid,
    bytes: Bytes,
}

/// A log that acknowledges what it has only in memory.
struct AcksEarly {
    log: Arc<dyn Log>,
    waiting: mpsc::Sender<Waiting>,
    readings: AtomicU64,
    commands: AtomicU64,
}

impl AcksEarly {
    async fn over(log: Arc<dyn Log>) -> Result<Self> {
        let (waiting, mut receiver) = mpsc::channel::<Waiting>(WAITING_MAX);
        let readings = AtomicU64::new(log.bounds(Stream::Readings).await?.last);
        let commands = AtomicU64::new(log.bounds(Stream::Commands).await?.last);
        let below = Arc::clone(&log);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(DELAY).await;
                let mut due = Vec::new();
                if receiver.recv_many(&mut due, WAITING_MAX).await == 0 {
                    return;
                }
                // At once, as the edge does it: one after the other a log that syncs would never keep up.
                let publish =
                    due.into_iter().map(|due| below.publish(due.stream, due.partition, due.id, due.bytes));
                drop(futures::future::join_all(publish).await);
            }
        });
        Ok(Self { log, waiting, readings, commands })
    }
}

#[async_trait]
impl Log for AcksEarly {
    async fn publish(&self, stream: Stream, partition: Partition, id: Uid, bytes: Bytes) -> Result<u64> {
        let last = match stream {
            Stream::Readings => &self.readings,
            Stream::Commands => &self.commands,
        };
        let waiting = Waiting { stream, partition, id, bytes };
        self.waiting.send(waiting).await.map_err(|_| Error::unavailable("the log is closed"))?;
        Ok(last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    async fn read_from(&self, stream: Stream, partition: Partition, from: u64) -> Result<Box<dyn LogReader>> {
        self.log.read_from(stream, partition, from).await
    }

    async fn trim(&self, stream: Stream, through: u64) -> Result<()> {
        self.log.trim(stream, through).await
    }

    async fn sequence_before(&self, stream: Stream, instant: Timestamp) -> Result<u64> {
        self.log.sequence_before(stream, instant).await
    }

    async fn identity(&self, stream: Stream) -> Result<LogIdentity> {
        self.log.identity(stream).await
    }

    async fn bounds(&self, stream: Stream) -> Result<Bounds> {
        self.log.bounds(stream).await
    }

    async fn ids(&self, stream: Stream, sequences: &[u64]) -> Result<Vec<Option<Uid>>> {
        self.log.ids(stream, sequences).await
    }

    async fn writable(&self) -> Result<()> {
        self.log.writable().await
    }
}

/// A store that reports as written and synced what it has only in memory.
struct ProgressEarly {
    store: Arc<dyn TelemetryStore>,
    waiting: Mutex<Vec<TelemetryBatch>>,
}

impl ProgressEarly {
    fn over(store: Arc<dyn TelemetryStore>) -> Arc<Self> {
        let early = Arc::new(Self { store, waiting: Mutex::default() });
        let late = Arc::downgrade(&early);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(DELAY * 4).await;
                let Some(early) = late.upgrade() else { return };
                drop(early.flush().await);
            }
        });
        early
    }

    /// Writes what waits: also before anything is read, so that only a fault shows the difference.
    async fn flush(&self) -> Result<()> {
        let mut waiting = self.waiting.lock().await;
        for batch in waiting.drain(..) {
            self.store.write(batch).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl TelemetryStore for ProgressEarly {
    async fn write(&self, batch: TelemetryBatch) -> Result<()> {
        let full = {
            let mut waiting = self.waiting.lock().await;
            waiting.push(batch);
            waiting.len() >= WAITING_MAX
        };
        if full { self.flush().await } else { Ok(()) }
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }

    async fn rows(&self, series: &SeriesKey, bucket: BucketId, scan: RowScan) -> Result<Vec<Row>> {
        self.flush().await?;
        self.store.rows(series, bucket, scan).await
    }

    async fn latest(&self, series: &SeriesKey) -> Result<Vec<LatestCell>> {
        self.flush().await?;
        self.store.latest(series).await
    }

    async fn buckets(
        &self,
        series: &SeriesKey,
        from: Timestamp,
        to: Timestamp,
        after: Option<BucketId>,
        limit: usize,
    ) -> Result<Vec<BucketRow>> {
        self.flush().await?;
        self.store.buckets(series, from, to, after, limit).await
    }
}
