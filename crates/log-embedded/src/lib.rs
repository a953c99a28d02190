//! The embedded engine of the `Log` port, on plain files, and of the `Signals` and `Leases` ports, in process.
//!
//! # Log
//!
//! `<dir>/<stream>/<first sequence>.log` are append-only segments; one sequence and one writer for each stream, all
//! partitions interleaved, so that one fdatasync serves all of them. The bytes are described in `format.rs`. A record
//! is seen by readers and acknowledged only after it is as durable as [`Durability`] says.
//!
//! - **Torn or damaged.** Each record carries `synced_through`: how far the file was durable when it was written. A bad
//!   record below any later record's `synced_through`, in a segment that has a successor, or with a cut that would fall
//!   below [`Options::progress_floor`], is damage: [`EmbeddedLog::open`] refuses and names file and offset. Any other is
//!   a torn tail, whose publishers were never answered: it is cut. When the log falls idle for a second, or closes, a
//!   marker says the same of all that is there.
//! - **A failed sync** stops the stream until a restart (`LOG_FAILED`), and [`EmbeddedLog::open`] writes the unproven tail
//!   again: the page cache cannot be trusted after it.
//! - **A full disk** or limit refuses (`LOG_FULL`), takes the partial write out, and keeps nothing of it; publishing
//!   goes on by itself when there is room. Before that, [`Options::disk_reserve_bytes`] are left to whatever must be
//!   written elsewhere for the log to be drained and trimmed.
//! - **Memory** is bounded: 4 MiB of newest records a stream, 8 bytes a record for the newest segment and at most four
//!   others, 16 MiB of waiting publishes, 131,072 ids of the duplicate window (above 218 records a second it is
//!   therefore shorter than ten minutes).
//!
//! It is not a database: records are opaque, it has no key but the sequence, and it keeps no reading progress.
//!
//! Rejected: fjall as the log (an LSM tree writes everything twice and its journal syncs for others too); memory maps
//! (`unsafe`, and a failed write is a signal instead of an error); one file for each partition (sixteen fdatasyncs for
//! one); a checkpoint file of the durable end (a second fdatasync for each group; `synced_through` rides along).
//!
//! Sources: group commit (DeWitt et al. 1984); "All file systems are not created equal" (Pillai et al., OSDI 2014) for
//! what a crash leaves behind; "Can applications recover from fsync failures?" (Rebello et al., ATC 2020).

mod dedup;
mod disk;
mod error;
#[cfg(test)]
mod failing_disk;
mod format;
mod index;
mod leases;
mod log;
mod options;
mod reader;
mod recover;
mod scan;
mod segment;
mod signals;
mod state;
mod tail;
mod writer;

pub use leases::LocalLeases;
pub use log::EmbeddedLog;
pub use options::Options;
pub use signals::LocalSignals;
pub use weir_config::Durability;
