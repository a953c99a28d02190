//! The fjall database: its keyspaces, how they are tuned, and how it is synced.

use std::{
    thread,
    time::{Duration, Instant},
};

use fjall::{
    AbstractTree as _, CompressionType, Database as Fjall, Keyspace, KeyspaceCreateOptions, PersistMode,
    Snapshot, UserKey, UserValue,
    config::{BlockSizePolicy, CompressionPolicy},
};
use weir_core::Result;

use crate::{Durability, Options, directory::Directory, failure, journal};

/// Flushing and compacting each need one, so that a long compaction never stops the flush that frees memory.
const WORKER_THREADS: usize = 2;
/// Records, newest values and buckets are small and rewritten often; their memory is bounded apart from the rows'.
const SMALL_MEMTABLE: u64 = 4 << 20;
/// Scans of rows are the reads that matter, and larger blocks compress better; points are read from memory mostly.
const ROW_BLOCK_BYTES: u32 = 16 << 10;
/// Open files that are kept; well below the usual limit of 1,024 for a process that also has connections.
const FILES_MAX: usize = 200;
/// With this many memtables waiting to become files the writer waits: fjall would at four, without looking whether the
/// thread that it waits for has died.
const SEALED_MAX: usize = 2;
/// With this many runs in the first level the writer waits for compaction; fjall stops at thirty.
const FIRST_LEVEL_RUNS_MAX: usize = 24;
/// Longer than any flush or compaction of these sizes takes on a disk that works.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);
const SETTLE_POLL: Duration = Duration::from_millis(1);

/// An open database.
pub(crate) struct Database {
    /// Small records, and the next version of them.
    pub(crate) records: Keyspace,
    /// Telemetry rows.
    pub(crate) rows: Keyspace,
    /// Newest values.
    pub(crate) latest: Keyspace,
    /// Which buckets exist.
    pub(crate) buckets: Keyspace,
    /// Records as of the last sync: what readers see.
    durable: parking_lot::Mutex<Snapshot>,
    mode: PersistMode,
    db: Fjall,
}

impl Database {
    /// Opens the database of a directory, making it where there is none.
    pub(crate) fn open(directory: &Directory, options: &Options) -> Result<Self> {
        let failed = |error| failure::database(directory.path(), "open the database", error);
        let mut opened = recover(directory, options);
        if let Err(fjall::Error::JournalRecovery(_)) = opened
            && journal::cut_at_unwritten_page(&directory.database())
                .map_err(|source| failure::io(directory.path(), "cut the journal", source))?
        {
            opened = recover(directory, options);
        }
        let db = opened.map_err(failed)?;
        let small = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(SMALL_MEMTABLE)
                .data_block_compression_policy(compression())
                .expect_point_read_hits(true)
        };
        let large = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(options.memtable.0.max(Options::MEMTABLE_MIN))
                .data_block_compression_policy(compression())
                .data_block_size_policy(BlockSizePolicy::all(ROW_BLOCK_BYTES))
        };
        Ok(Self {
            records: db.keyspace("records", small).map_err(failed)?,
            rows: db.keyspace("rows", large).map_err(failed)?,
            latest: db.keyspace("latest", small).map_err(failed)?,
            buckets: db.keyspace("buckets", small).map_err(failed)?,
            durable: parking_lot::Mutex::new(db.snapshot()),
            mode: match options.durability {
                Durability::PowerLoss => PersistMode::SyncData,
                Durability::Process => PersistMode::Buffer,
            },
            db,
        })
    }

    /// Everything that was applied, synced or not.
    pub(crate) fn applied(&self) -> Snapshot {
        self.db.snapshot()
    }

    /// Everything that was synced; of telemetry perhaps more.
    pub(crate) fn durable(&self) -> Snapshot {
        self.durable.lock().clone()
    }

    /// Applies all of `items` or none (`None` removes); readers of the applied state see them when it returns.
    pub(crate) fn apply<'a>(
        &self,
        items: impl ExactSizeIterator<Item = (&'a Keyspace, UserKey, Option<UserValue>)>,
    ) -> fjall::Result<()> {
        self.settle()?;
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.db.clone(), items.len())
            .durability(Some(PersistMode::Buffer));
        for (keyspace, key, value) in items {
            match value {
                Some(value) => batch.insert(keyspace, key, value),
                None => batch.remove(keyspace, key),
            }
        }
        batch.commit()
    }

    /// Makes durable what was applied, and shows it to the readers of records.
    pub(crate) fn sync(&self) -> fjall::Result<()> {
        self.db.persist(self.mode)?;
        let snapshot = self.db.snapshot();
        *self.durable.lock() = snapshot;
        Ok(())
    }

    /// Whether the database still works: it stops for good after any failed write, in the background too.
    pub(crate) fn check(&self) -> fjall::Result<()> {
        self.db.persist(PersistMode::Buffer)
    }

    /// Bytes on disk.
    pub(crate) fn disk_bytes(&self) -> fjall::Result<u64> {
        self.db.disk_space()
    }

    /// Waits until flush and compaction have caught up, or says that they never will.
    fn settle(&self) -> fjall::Result<()> {
        let behind = |keyspace: &Keyspace| {
            keyspace.sealed_memtable_count() >= SEALED_MAX
                || keyspace.tree.l0_run_count() >= FIRST_LEVEL_RUNS_MAX
        };
        let since = Instant::now();
        while [&self.records, &self.rows, &self.latest, &self.buckets].into_iter().any(behind) {
            self.check()?;
            if since.elapsed() > SETTLE_WITHIN {
                let text = "flush and compaction made no progress for 60 s";
                return Err(fjall::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text)));
            }
            thread::sleep(SETTLE_POLL);
        }
        Ok(())
    }
}

fn recover(directory: &Directory, options: &Options) -> fjall::Result<Fjall> {
    Fjall::builder(directory.database())
        .cache_size(options.cache.0)
        .worker_threads(WORKER_THREADS)
        .max_cached_files(Some(FILES_MAX))
        .max_journaling_size(options.journal.0.max(Options::JOURNAL_MIN))
        .open()
}

/// The first level is rewritten within seconds, so it is not worth the work there.
fn compression() -> CompressionPolicy {
    CompressionPolicy::new([CompressionType::None, CompressionType::Lz4])
}
