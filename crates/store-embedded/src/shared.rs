//! What readers and the writer share: the directory, and the database while it is open.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::Semaphore;
use weir_core::{Error, Result};

use crate::{Options, database::Database, directory::Directory, failure};

/// Reads are short and mostly from memory; more threads would only wait for the same disk.
const READERS_MAX: usize = 8;

/// Shared by readers and the writer.
pub(crate) struct Shared {
    /// Where everything is.
    pub(crate) directory: Directory,
    /// How it is tuned.
    pub(crate) options: Options,
    /// `None` while it is being opened anew. Only the writer takes it for writing.
    pub(crate) database: RwLock<Option<Database>>,
    readers: Semaphore,
}

impl Shared {
    /// Opens directory and database.
    pub(crate) fn open(directory: Directory, options: Options) -> Result<Self> {
        let database = Database::open(&directory, &options)?;
        directory.created()?;
        Ok(Self {
            directory,
            options,
            database: RwLock::new(Some(database)),
            readers: Semaphore::new(READERS_MAX),
        })
    }

    /// Runs `read` on a thread that may wait for the disk. Past the bound on readers a call waits for its turn.
    pub(crate) async fn read<T, F>(self: &Arc<Self>, read: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> fjall::Result<Result<T>> + Send + 'static,
    {
        let closed = |_| failure::away(self.directory.path(), "is closed");
        let _turn = self.readers.acquire().await.map_err(closed)?;
        let shared = Arc::clone(self);
        tokio::task::spawn_blocking(move || shared.with(|database| read(database)))
            .await
            .map_err(|source| Error::internal("a read of the store did not end").with_source(source))?
    }

    /// Runs `work` on the open database.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&Database) -> fjall::Result<Result<T>>) -> Result<T> {
        let database = self.database.read();
        let Some(database) = database.as_ref() else {
            return Err(failure::away(self.directory.path(), "is being opened anew after a failure"));
        };
        work(database).map_err(|error| failure::database(self.directory.path(), "use the database", error))?
    }

    /// Fails where less than `needed` bytes are free.
    pub(crate) fn room_for(&self, needed: u64) -> Result<()> {
        if self.directory.free_bytes() < needed {
            return Err(failure::full(self.directory.path(), weir_config::ByteSize(needed)));
        }
        Ok(())
    }
}
