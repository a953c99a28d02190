//! The store as its users hold it.

use std::{
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
};

use tokio::sync::{mpsc, oneshot};
use weir_core::{Error, Result};

use crate::{
    Options,
    directory::Directory,
    failure,
    shared::Shared,
    writer::{Job, Writer},
};

/// Writes that wait for the writer; past it callers wait. Two groups' worth.
const QUEUE: usize = 1_024;

/// Records and telemetry in one directory: an `Arc` of it is an `Arc<dyn Records>` and an `Arc<dyn TelemetryStore>`.
///
/// Dropping it finishes what was accepted, syncs and gives the directory free.
pub struct EmbeddedStore {
    pub(crate) shared: Arc<Shared>,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl EmbeddedStore {
    /// Opens the store in `dir`, which is made where it is missing. Blocks: a moment, or after a crash as long as it takes
    /// to read up to [`Options::journal`] bytes.
    ///
    /// # Errors
    /// `FailedPrecondition`: `DATA_DIR_IN_USE` where another process has it open, `DATA_DIR_VERSION` where another release
    /// made it; `DataLoss` where a file is damaged; `ResourceExhausted` (`STORE_FULL`) or `Unavailable` of the disk.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Arc<Self>> {
        let shared = Arc::new(Shared::open(Directory::open(dir.as_ref())?, options)?);
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = Writer::new(Arc::clone(&shared));
        let writer = thread::Builder::new()
            .name("weir-store".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|source| failure::io(dir.as_ref(), "start the writer", source))?;
        Ok(Arc::new(Self { shared, jobs: Some(jobs), writer: Some(writer) }))
    }

    /// Whether a write would be accepted now, for readiness.
    ///
    /// # Errors
    /// What a write would fail with.
    pub fn writable(&self) -> Result<()> {
        self.shared.room_for(self.shared.options.free_min.0)?;
        self.shared.with(|database| database.check().map(Ok))
    }

    /// Bytes on disk, journal included.
    ///
    /// # Errors
    /// `Unavailable` while the store is being opened anew after a failure.
    pub fn disk_bytes(&self) -> Result<u64> {
        self.shared.with(|database| database.disk_bytes().map(Ok))
    }

    /// Hands a job to the writer and waits for its answer.
    pub(crate) async fn submit<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T>>) -> Job) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let closed = || failure::away(self.shared.directory.path(), "is closed");
        let jobs = self.jobs.as_ref().ok_or_else(closed)?;
        jobs.send(job(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| Error::internal("the writer of the store gave no answer"))?
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            // A panic of the writer was printed when it happened; there is nothing left to do about it here.
            let _ = writer.join();
        }
        drop(self.shared.database.write().take());
    }
}
