//! The embedded engines: files below one directory, for one process.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use weir_config::Durability;
use weir_core::{Error, ErrorKind, Result, Stream, port::Records, progress};
use weir_log_embedded::{EmbeddedLog, LocalLeases, LocalSignals};
use weir_store_embedded::EmbeddedStore;

use super::{Engines, know_each_other};
use crate::config::Config;

/// The layout of the data directory; another one is refused.
const VERSION: &str = "weir data 1\n";
/// Whoever keeps progress over a stream.
const READERS: [&str; 3] = ["storage", "analytics", "commands"];

/// Opens the engines below `config.data.dir`, making what is missing.
///
/// # Errors
/// `DATA_DIR_VERSION` for a directory of another release; `DATA_DIR_IN_USE` where another process has it; `DATA_LOSS` that
/// names file and offset where the log is damaged.
pub(super) async fn open(config: &Config) -> Result<Engines> {
    let dir = config.data.dir.clone();
    let options = weir_store_embedded::Options {
        durability: config.log.durability,
        cache: config.data.cache,
        ..Default::default()
    };
    let store = blocking(move || {
        prepare(&dir)?;
        EmbeddedStore::open(dir.join("store"), options)
    })
    .await?;
    let dir = config.data.dir.join("log");
    let options = weir_log_embedded::Options {
        durability: config.log.durability,
        bytes_max: Some(config.log.max_bytes.0),
        progress_floor: progress_floor(&*store, config.log.partitions).await?,
        ..Default::default()
    };
    let log = blocking(move || EmbeddedLog::open(&dir, options)).await?;
    know_each_other(
        &*store,
        &log,
        &config.data.dir.display().to_string(),
        "start anew with another --data-dir",
    )
    .await?;
    let (records, telemetry) = (Arc::clone(&store), store);
    let survives = match config.log.durability {
        Durability::PowerLoss => "power-loss: every acknowledgement follows an fdatasync",
        Durability::Process => {
            "process: acknowledged data survive a crash of the process, not of the machine"
        }
    };
    Ok(Engines {
        log: Arc::new(log),
        signals: Arc::new(LocalSignals::new()),
        leases: Arc::new(LocalLeases::new()),
        records,
        telemetry,
        retries: Arc::new(|| 0), // there is no server
        detail: vec![format!("durability of log and store (embedded): {survives}")],
    })
}

/// The highest sequence of each stream that somebody has dealt with: a log that ends below it has lost something.
async fn progress_floor(records: &dyn Records, partitions: u16) -> Result<BTreeMap<Stream, u64>> {
    let mut floor = BTreeMap::new();
    for stream in Stream::ALL {
        let known = progress::all_progress(records, stream, &READERS, partitions).await?;
        floor.insert(stream, known.iter().map(|reader| reader.progress.sequence).max().unwrap_or(0));
    }
    Ok(floor)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|source| Error::internal("opening the engines panicked").with_source(source))?
}

/// Writes the marker so that a power cut finds all of it or none: an empty one would refuse every later start.
fn write_durably(dir: &Path, marker: &Path) -> std::io::Result<()> {
    let new = marker.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    std::io::Write::write_all(&mut file, VERSION.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, marker)?;
    std::fs::File::open(dir)?.sync_all()?;
    // The directory's own name is in the one above it.
    let above = std::fs::canonicalize(dir)?.parent().map_or_else(|| dir.to_owned(), Path::to_owned);
    std::fs::File::open(above)?.sync_all()
}

/// Makes the data directory, or checks that it is one of this release.
///
/// # Errors
/// `DATA_DIR_VERSION`, `DATA_DIR_FOREIGN`, or what the file system says.
pub(crate) fn prepare(dir: &Path) -> Result<()> {
    let failed = |what: &str, source: std::io::Error| {
        Error::unavailable(format!("cannot {what} the data directory {}: {source}", dir.display()))
    };
    let refused = |reason: &'static str, message: String| {
        Err(Error::new(ErrorKind::FailedPrecondition, reason, message))
    };
    std::fs::create_dir_all(dir).map_err(|source| failed("make", source))?;
    let marker = dir.join("VERSION");
    match std::fs::read_to_string(&marker) {
        Ok(found) if found == VERSION => Ok(()),
        Ok(found) => {
            let found: String = found.trim().chars().take(40).collect();
            let message = format!(
                "{} holds {found:?}, this release reads {:?}; use the release that wrote it, or another --data-dir",
                dir.display(),
                VERSION.trim()
            );
            refused("DATA_DIR_VERSION", message)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let unfinished = marker.with_extension("new"); // of a first start that a power cut ended
            let mut entries = std::fs::read_dir(dir).map_err(|source| failed("read", source))?;
            if entries.any(|entry| !entry.is_ok_and(|entry| entry.path() == unfinished)) {
                let message = format!(
                    "{} is not empty and no data directory of Weir; give another --data-dir",
                    dir.display()
                );
                return refused("DATA_DIR_FOREIGN", message);
            }
            write_durably(dir, &marker).map_err(|source| failed("write to", source))
        }
        Err(source) => Err(failed("read", source)),
    }
}
