//! What can be configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weir_config::{ByteSize, Durability};

/// The embedded store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// What a durable write survives: `power-loss` or `process`.
    pub durability: Durability,
    /// Memory for blocks read from disk.
    pub cache: ByteSize,
    /// Memory in which the rows of the telemetry store gather before they become a file; up to three times this while the
    /// disk is behind. At least 1 MiB.
    pub memtable: ByteSize,
    /// Bytes of journal files on disk, past which old ones are made superfluous by writing memory out. At least 64 MiB;
    /// what a start after a crash may have to read.
    pub journal: ByteSize,
    /// Below this much free space on the disk telemetry is refused (`STORE_FULL`), below half of it everything else is:
    /// room for the files that memory still has to become.
    pub free_min: ByteSize,
}

impl Options {
    /// fjall refuses a smaller bound: its journal files have this size.
    pub(crate) const JOURNAL_MIN: u64 = 64 << 20;
    /// Below this every second of load would make a file.
    pub(crate) const MEMTABLE_MIN: u64 = 1 << 20;
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::PowerLoss,
            // an idle process stays under 40 MiB; the page cache of the operating system holds the rest
            cache: ByteSize(8 << 20),
            // a second and more of full load, and small enough for a gateway with 256 MiB
            memtable: ByteSize(16 << 20),
            // two files: one being written, one on its way out; read in under a second
            journal: ByteSize(128 << 20),
            // half of what the log leaves, so that what it holds can still be written here, and trimmed there
            free_min: ByteSize(8 << 20),
        }
    }
}
