//! The one thread that writes: group commit, and what happens when the disk fails.
//!
//! fjall stops for good after any failed write, sync, flush or compaction, and asks to be opened again. So:
//! - a full disk is noticed before the database is touched, and the write refused (`STORE_FULL`); records are still
//!   taken when telemetry no longer is, so that progress can be recorded and logs trimmed;
//! - a database that has stopped is opened anew in place, at once and then every second while there is room, without a
//!   restart of the process. Its journal is read from the disk, not from a cache that a failed sync has made a liar;
//!   telemetry that was accepted but not yet synced is kept here until it is, and is written again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};
use weir_core::{Error, Result};

use crate::{
    database::Database,
    failure, journal,
    records::{Commit, Staging},
    shared::Shared,
    telemetry::Encoded,
};

/// Jobs of one group: as many as can wait in half of the queue, so that callers refill it meanwhile.
const GROUP_JOBS: usize = 512;
/// A group ends at this many bytes: a few milliseconds of writing.
const GROUP_BYTES: usize = 8 << 20;
/// Telemetry that was accepted but not synced is kept up to this many bytes, then synced unasked.
const UNSYNCED_BYTES: usize = 16 << 20;
/// Between two attempts to open a failed database: each reads the whole journal.
const REOPEN_EVERY: Duration = Duration::from_secs(1);

type Reply<T> = oneshot::Sender<Result<T>>;

/// What the writer is asked for.
pub(crate) enum Job {
    /// Records, answered when durable.
    Commit { commit: Commit, reply: Reply<Vec<u64>> },
    /// Telemetry, answered when readers see it.
    Write { batch: Arc<Encoded>, reply: Reply<()> },
    /// Answered when all telemetry before it is durable.
    Sync { reply: Reply<()> },
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Self::Commit { commit, .. } => commit.bytes(),
            Self::Write { batch, .. } => batch.bytes(),
            Self::Sync { .. } => 0,
        }
    }

    /// Answers with a failure; a caller that went away does not want it.
    fn fail(self, error: Error) {
        match self {
            Self::Commit { reply, .. } => drop(reply.send(Err(error))),
            Self::Write { reply, .. } | Self::Sync { reply } => drop(reply.send(Err(error))),
        }
    }
}

/// The writer's state.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    /// Accepted since the last sync, oldest first.
    unsynced: Vec<Arc<Encoded>>,
    unsynced_bytes: usize,
    /// Whether anything was applied since the last sync.
    dirty: bool,
    opened_at: Option<Instant>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, unsynced: vec![], unsynced_bytes: 0, dirty: false, opened_at: None }
    }

    /// Serves until the store is dropped.
    pub(crate) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut bytes = first.bytes();
            let mut group = vec![first];
            while group.len() < GROUP_JOBS
                && bytes < GROUP_BYTES
                && let Ok(job) = jobs.try_recv()
            {
                bytes += job.bytes();
                group.push(job);
            }
            self.serve(group);
        }
        if self.dirty
            && let Err(error) = self.on_database(Database::sync)
        {
            tracing::error!(%error, "the last writes of the store are not synced");
        }
    }

    fn serve(&mut self, group: Vec<Job>) {
        if let Err(error) = self.ready() {
            group.into_iter().for_each(|job| job.fail(error.clone()));
            return;
        }
        let free = self.shared.directory.free_bytes();
        let free_min = self.shared.options.free_min;
        let mut staging = match self.on_database(Staging::begin) {
            Ok(staging) => staging,
            Err(error) => return group.into_iter().for_each(|job| job.fail(error.clone())),
        };
        let mut syncs = Vec::new();
        for job in group {
            let needed = match &job {
                Job::Commit { .. } => free_min.0 / 2,
                Job::Write { .. } => free_min.0,
                Job::Sync { .. } => 0,
            };
            if free < needed {
                job.fail(failure::full(self.shared.directory.path(), weir_config::ByteSize(needed)));
                continue;
            }
            match job {
                Job::Commit { commit, reply } => self.stage(&mut staging, commit, reply),
                Job::Write { batch, reply } => drop(reply.send(self.write(batch))),
                Job::Sync { reply } => syncs.push(reply),
            }
        }
        let must_sync = !staging.is_empty() || !syncs.is_empty() || self.unsynced_bytes >= UNSYNCED_BYTES;
        let outcome = self.finish(&mut staging, must_sync);
        staging.answer(outcome.clone());
        for reply in syncs {
            let _ = reply.send(outcome.clone());
        }
    }

    fn stage(&self, staging: &mut Staging, commit: Commit, reply: Reply<Vec<u64>>) {
        match self.on_database(|database| staging.refusal(database, &commit)) {
            Ok(None) => staging.accept(commit, reply),
            Ok(Some(error)) | Err(error) => staging.refuse(error, reply),
        }
    }

    fn write(&mut self, batch: Arc<Encoded>) -> Result<()> {
        self.on_database(|database| batch.apply(database))?;
        self.dirty = true;
        self.unsynced_bytes += batch.bytes();
        self.unsynced.push(batch);
        Ok(())
    }

    fn finish(&mut self, staging: &mut Staging, must_sync: bool) -> Result<()> {
        self.dirty |= self.on_database(|database| staging.apply(database))?;
        if must_sync && self.dirty {
            self.on_database(Database::sync)?;
            self.dirty = false;
            self.unsynced.clear();
            self.unsynced_bytes = 0;
        }
        Ok(())
    }

    /// Makes sure that there is a working database.
    fn ready(&mut self) -> Result<()> {
        match self.on_database(Database::check) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.shared.room_for(self.shared.options.free_min.0)?;
                if self.opened_at.is_some_and(|at| at.elapsed() < REOPEN_EVERY) {
                    return Err(error);
                }
                tracing::error!(%error, "the database of the store has stopped; opening it anew");
                self.reopen()
            }
        }
    }

    fn reopen(&mut self) -> Result<()> {
        self.opened_at = Some(Instant::now());
        // Waits for the readers: their reads are bounded.
        let mut database = self.shared.database.write();
        drop(database.take());
        journal::forget_cached(&self.shared.directory.database());
        *database = Some(Database::open(&self.shared.directory, &self.shared.options)?);
        drop(database);
        for batch in &self.unsynced {
            self.on_database(|database| batch.apply(database))?;
        }
        self.dirty = true;
        Ok(())
    }

    fn on_database<T>(&self, work: impl FnOnce(&Database) -> fjall::Result<T>) -> Result<T> {
        self.shared.with(|database| work(database).map(Ok))
    }
}
