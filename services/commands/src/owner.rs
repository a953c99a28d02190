//! The owner of a partition: reads the log from its progress, copies, and moves its progress.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use weir_core::{
    ErrorKind, Partition, Result, Stream,
    port::Batch,
    progress::{Claim, Progress, resume},
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
/// First and longest pause after a failure of log or store.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

impl Service {
    /// Reads until the service stops, or somebody else claims the partition.
    pub(crate) async fn own(self: Arc<Self>, partition: Partition, mut claim: Claim) {
        let mut pause = BACKOFF.0;
        loop {
            let started = Instant::now();
            let Err(error) = self.read(partition, &mut claim).await else { return };
            self.set_trouble(partition, Some(error.to_string()));
            if error.kind() == ErrorKind::Aborted {
                tracing::error!(%partition, %error, "another process claimed the partition of commands");
                return;
            }
            if started.elapsed() > BACKOFF.1 {
                pause = BACKOFF.0; // it went well for a while
            }
            tracing::warn!(%partition, %error, "cannot copy commands from the log; will try again");
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(BACKOFF.1),
            }
        }
    }

    async fn read(&self, partition: Partition, claim: &mut Claim) -> Result<()> {
        let mut progress = claim.progress().clone();
        let resumed =
            resume(&*self.records, &*self.log, Stream::Commands, self.config.partitions, &progress).await?;
        if let Some(lost) = &resumed.lost {
            tracing::error!(%partition, lost, "the log of commands has lost what it had accepted");
            let generation = resumed.generations.newest();
            progress.recent.retain(|(sequence, _)| *sequence < resumed.from);
            progress = Progress { generation, sequence: resumed.from.saturating_sub(1), ..progress };
        }
        *self.generations.write() = Some(resumed.generations);
        let mut reader = self.log.read_from(Stream::Commands, partition, resumed.from).await?;
        self.set_trouble(partition, None);
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

    fn set_trouble(&self, partition: Partition, what: Option<String>) {
        let mut trouble = self.trouble.lock();
        match what {
            Some(what) => drop(trouble.insert(partition, what)),
            None => drop(trouble.remove(&partition)),
        }
    }

    /// The generation of a sequence of the log as it is now.
    pub(crate) fn generation_of(&self, sequence: u64) -> u32 {
        self.generations.read().as_ref().map_or(0, |generations| generations.of(sequence))
    }
}
