//! The log: a directory, and a writer for each stream.

use std::{
    fmt,
    fs::{self, File},
    io,
    path::Path,
    sync::{Arc, mpsc},
    thread,
};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::FlockOperation;
use tokio::sync::{Semaphore, oneshot};
use weir_core::{
    Error, ErrorKind, Partition, Result, Stream, Timestamp, Uid,
    id::SLOTS,
    port::{Bounds, Log, LogIdentity, LogReader},
};

use crate::{
    disk::Disk,
    error,
    format::{RECORD_HEADER, RECORD_MAX},
    options::Options,
    reader::{Reader, blocking},
    recover,
    state::Shared,
    writer::Pending,
};

/// The layout of the directory.
const VERSION: &str = "weir log 1";

/// Bytes that may wait for a stream's writer: four groups. Above, a publish waits for room, in order of arrival.
const WAITING_BYTES: usize = 16 * 1024 * 1024;

/// A writer's stack; it holds no deep calls.
const STACK_BYTES: usize = 256 * 1024;

/// The embedded log. Dropping it writes what waits, syncs, and gives the directory free.
pub struct EmbeddedLog {
    readings: StreamLog,
    commands: StreamLog,
    _lock: File, // the last to be dropped
}

/// One stream.
struct StreamLog {
    shared: Arc<Shared>,
    waiting: Arc<Semaphore>,
    queue: Option<mpsc::Sender<Pending>>,
    writer: Option<thread::JoinHandle<()>>,
}

impl EmbeddedLog {
    /// Opens the log in a directory, making it where there is none. Reads and checks every record, and cuts a torn one
    /// from the end. Blocks.
    ///
    /// # Errors
    /// `DataLoss` (`LOG_DAMAGED`) that names file and offset, where what was durable is not what was written: a person
    /// must look. `FailedPrecondition` where the directory is in use (`DATA_DIR_IN_USE`) or of another version
    /// (`LOG_VERSION`). `Unavailable` where a file cannot be read or written.
    pub fn open(dir: &Path, options: Options) -> Result<Self> {
        Self::open_on(dir, &options, &Disk::default())
    }

    pub(crate) fn open_on(dir: &Path, options: &Options, disk: &Disk) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|source| error::io(dir, "create", source))?;
        let lock = lock(dir)?;
        check_version(dir, disk)?;
        Ok(Self {
            readings: StreamLog::open(dir, Stream::Readings, options, disk)?,
            commands: StreamLog::open(dir, Stream::Commands, options, disk)?,
            _lock: lock,
        })
    }

    fn stream(&self, stream: Stream) -> &StreamLog {
        match stream {
            Stream::Readings => &self.readings,
            Stream::Commands => &self.commands,
        }
    }

    /// Bytes of publishes that are not answered yet.
    #[cfg(test)]
    pub(crate) fn waiting_bytes(&self, stream: Stream) -> usize {
        WAITING_BYTES - self.stream(stream).waiting.available_permits()
    }

    fn shared(&self, stream: Stream) -> Arc<Shared> {
        Arc::clone(&self.stream(stream).shared)
    }
}

impl fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedLog").field("dir", &self.readings.shared.dir.parent()).finish_non_exhaustive()
    }
}

impl StreamLog {
    fn open(dir: &Path, stream: Stream, options: &Options, disk: &Disk) -> Result<Self> {
        let writer = recover::open(dir, stream, options, disk)?;
        let shared = Arc::clone(&writer.shared);
        let (queue, waiting) = mpsc::channel(); // bounded by the semaphore, in bytes
        let writer = thread::Builder::new()
            .name(format!("log-{stream}"))
            .stack_size(STACK_BYTES)
            .spawn(move || writer.run(&waiting))
            .map_err(|source| error::io(&shared.dir, "start the writer of", source))?;
        let waiting = Arc::new(Semaphore::new(WAITING_BYTES));
        Ok(Self { shared, waiting, queue: Some(queue), writer: Some(writer) })
    }

    async fn publish(&self, partition: Partition, id: Uid, bytes: Bytes) -> Result<u64> {
        let stream = self.shared.stream;
        if bytes.len() > RECORD_MAX {
            return Err(error::too_large(stream, bytes.len(), RECORD_MAX));
        }
        check_partition(partition)?;
        let closed = || error::closed(stream);
        let size = (bytes.len() + RECORD_HEADER) as u32; // both are bounded far below
        let room = Arc::clone(&self.waiting).acquire_many_owned(size).await.map_err(|_| closed())?;
        let (answer, answered) = oneshot::channel();
        let pending = Pending { partition, id, bytes, answer, _room: room };
        self.queue.as_ref().ok_or_else(closed)?.send(pending).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

impl Drop for StreamLog {
    fn drop(&mut self) {
        self.queue = None; // ends the writer when it has written what waits
        if let Some(writer) = self.writer.take() {
            let _ = writer.join(); // a panic there was reported there
        }
    }
}

#[async_trait]
impl Log for EmbeddedLog {
    async fn publish(&self, stream: Stream, partition: Partition, id: Uid, bytes: Bytes) -> Result<u64> {
        self.stream(stream).publish(partition, id, bytes).await
    }

    async fn read_from(&self, stream: Stream, partition: Partition, from: u64) -> Result<Box<dyn LogReader>> {
        check_partition(partition)?;
        Ok(Box::new(Reader::new(self.shared(stream), partition, from)))
    }

    async fn trim(&self, stream: Stream, through: u64) -> Result<()> {
        let shared = self.shared(stream);
        blocking(move || shared.trim(through)).await
    }

    async fn sequence_before(&self, stream: Stream, instant: Timestamp) -> Result<u64> {
        let shared = self.shared(stream);
        blocking(move || shared.sequence_before(instant)).await
    }

    async fn identity(&self, stream: Stream) -> Result<LogIdentity> {
        Ok(LogIdentity(self.stream(stream).shared.identity))
    }

    async fn bounds(&self, stream: Stream) -> Result<Bounds> {
        Ok(self.stream(stream).shared.bounds())
    }

    async fn ids(&self, stream: Stream, sequences: &[u64]) -> Result<Vec<Option<Uid>>> {
        let (shared, sequences) = (self.shared(stream), sequences.to_vec());
        blocking(move || sequences.into_iter().map(|sequence| shared.id_of(sequence)).collect()).await
    }

    async fn writable(&self) -> Result<()> {
        let streams = Stream::ALL.map(|stream| self.shared(stream));
        blocking(move || streams.iter().try_for_each(|shared| shared.writable())).await
    }
}

fn check_partition(partition: Partition) -> Result<()> {
    if partition.0 < SLOTS {
        return Ok(());
    }
    let text = format!("partition {partition} must be below {SLOTS}");
    Err(Error::invalid("partition", "PARTITION_INVALID", text).with_limit(SLOTS))
}

/// Holds the directory for this process; the system gives it free when the process ends, however it ends.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("LOCK");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|source| error::io(&path, "open", source))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|source| {
        let text = format!("log directory {} is in use by another process", dir.display());
        Error::new(ErrorKind::FailedPrecondition, "DATA_DIR_IN_USE", text).with_source(source)
    })?;
    Ok(file)
}

fn check_version(dir: &Path, disk: &Disk) -> Result<()> {
    let path = dir.join("VERSION");
    match fs::read_to_string(&path) {
        Ok(text) if text.trim_end() == VERSION => Ok(()),
        Ok(text) => {
            let shown: String = text.trim_end().chars().take(40).collect();
            let text = format!(
                "log directory {} has format {shown:?}, and this release reads {VERSION:?}",
                dir.display()
            );
            Err(Error::new(ErrorKind::FailedPrecondition, "LOG_VERSION", text))
        }
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => disk
            .create(&path, format!("{VERSION}\n").as_bytes())
            .map(drop)
            .map_err(|source| error::io(&path, "create", source)),
        Err(source) => Err(error::io(&path, "read", source)),
    }
}
