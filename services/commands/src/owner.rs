//! The owner of a partition: reads the log from its progress, copies, and moves its progress. And what keeps it, and
//! whatever else works in the background, at work.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::time::Instant;
use weir_core::{
    Error, ErrorKind, Partition, Result, Stream,
    port::{Batch, Records},
    progress::{Claim, Progress},
};

use crate::Service;

/// This reader's name in the records of progress.
pub(crate) const READER: &str = "commands";
/// Read at once: bounds the memory of a partition that catches up.
const READ_MAX: usize = 256 * 1024;
/// How long a read waits; after an empty one it is certain that nothing came.
const READ_WAIT: Duration = Duration::from_secs(1);
/// An idle partition records how far the stream is this often, so that it does not pin the trim.
const IDLE_RECORD_EVERY: Duration = Duration::from_secs(10);
/// First and longest pause after a failure: quick for a blip, and no storm against a store that is down.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Another process may be claiming too; the last one wins.
const CLAIM_TRIES: usize = 8;

/// What works in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Worker {
    /// Copies a partition.
    Owner(Partition),
    /// Ends what is over.
    Sweep,
}

impl fmt::Display for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(partition) => write!(f, "partition {partition} of commands"),
            Self::Sweep => f.write_str("the end of commands whose time is over"),
        }
    }
}

/// Claims a partition of the stream.
///
/// # Errors
/// `Unavailable` of the store; `Aborted` where others claim it again and again.
pub(crate) async fn claim(records: Arc<dyn Records>, partition: Partition) -> Result<Claim> {
    let mut tries = 1;
    loop {
        match Claim::take(Arc::clone(&records), READER, Stream::Commands, partition).await {
            Err(error) if error.kind() == ErrorKind::Aborted && tries < CLAIM_TRIES => tries += 1,
            done => return done,
        }
    }
}

impl Service {
    /// Runs a worker until it ends well, which it does when the service stops. Each attempt is a task of its own, so that
    /// a panic in it is a failure like any other and not work that nobody does; [`Service::works`] tells that it is over.
    pub(crate) async fn keep_at_work<F>(
        self: Arc<Self>,
        worker: Worker,
        mut start: impl FnMut(Arc<Self>) -> F,
    ) where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let mut pause = BACKOFF.0;
        while !self.stop.is_cancelled() {
            let started = Instant::now();
            let ended = tokio::spawn(start(Arc::clone(&self))).await;
            let Err(error) =
                ended.unwrap_or_else(|source| Err(Error::internal("it panicked").with_source(source)))
            else {
                return;
            };
            self.trouble.lock().insert(worker, error.to_string());
            if error.kind() == ErrorKind::Unavailable {
                tracing::warn!(%worker, %error, "a worker failed and begins anew");
            } else {
                tracing::error!(%worker, error = ?error, "a worker failed and begins anew");
            }
            if started.elapsed() > BACKOFF.1 {
                pause = BACKOFF.0; // it went well for a while
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(BACKOFF.1),
            }
        }
    }

    /// A worker does what it is for.
    pub(crate) fn works(&self, worker: Worker) {
        self.trouble.lock().remove(&worker);
    }

    /// Owns a partition until the service stops. A failure, or another's claim, ends what is known here; the next attempt
    /// claims again and begins at the recorded progress.
    pub(crate) async fn own(self: Arc<Self>, partition: Partition, claimed: Claim) {
        let mut claimed = Some(claimed);
        let session = |service: Arc<Self>| {
            let claimed = claimed.take();
            async move {
                let claim = match claimed {
                    Some(claim) => claim,
                    None => claim(Arc::clone(&service.records), partition).await?,
                };
                service.read(partition, claim).await
            }
        };
        self.keep_at_work(Worker::Owner(partition), session).await;
    }

    async fn read(&self, partition: Partition, mut claim: Claim) -> Result<()> {
        let resumed = claim.resume(&*self.log, Stream::Commands, self.config.partitions).await?;
        if let Some(lost) = &resumed.lost {
            tracing::error!(%partition, lost, "the log of commands has lost what it had accepted");
        }
        let mut progress = resumed.progress;
        *self.generations.write() = Some(resumed.generations);
        let mut reader = self.log.read_from(Stream::Commands, partition, resumed.from).await?;
        self.works(Worker::Owner(partition));
        let mut recorded_at = Instant::now();
        loop {
            let batch = tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                batch = reader.next(READ_MAX, READ_WAIT) => batch?,
            };
            if batch.records.is_empty() {
                progress.idle_through(self.generation_of(batch.end), batch.end);
                self.set_copied(partition, batch.end);
                let behind = progress.sequence > claim.progress().sequence;
                if behind && recorded_at.elapsed() >= IDLE_RECORD_EVERY {
                    claim.advance(progress.clone(), Vec::new()).await?;
                    recorded_at = Instant::now();
                }
                continue;
            }
            self.take(partition, &batch, &mut progress).await?;
            claim.advance(progress.clone(), Vec::new()).await?;
            recorded_at = Instant::now();
        }
    }

    async fn take(&self, partition: Partition, batch: &Batch, progress: &mut Progress) -> Result<()> {
        self.copy(partition, &batch.records).await?;
        for record in &batch.records {
            progress.passed(self.generation_of(record.sequence), record.sequence, record.id);
        }
        self.set_copied(partition, progress.sequence);
        Ok(())
    }

    fn set_copied(&self, partition: Partition, through: u64) {
        self.copied.send_if_modified(|copied| match copied.get_mut(usize::from(partition.0)) {
            Some(known) if *known < through => {
                *known = through;
                true
            }
            _ => false,
        });
    }

    /// The generation of a sequence of the log as it is now.
    pub(crate) fn generation_of(&self, sequence: u64) -> u32 {
        self.generations.read().as_ref().map_or(0, |generations| generations.of(sequence))
    }
}
