//! The section `storage` of the configuration.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weir_config::ByteSize;

/// Telemetry and queries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `log.partitions`, filled in by whoever starts the service.
    #[serde(skip)]
    pub partitions: u16,
    /// `log.keep`, filled in by whoever starts the service: how long frames stay in the log after every reader is done.
    #[serde(skip)]
    pub keep: Duration,
    /// How frames become rows.
    pub writer: WriterConfig,
    /// How rows become answers.
    pub query: QueryConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            partitions: 16,                   // as `log.partitions`
            keep: Duration::from_secs(3_600), // as `log.keep`
            writer: WriterConfig::default(),
            query: QueryConfig::default(),
        }
    }
}

/// How frames become rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WriterConfig {
    /// Bytes of frames that become one write.
    pub read: ByteSize,
    /// How often progress is recorded while there is something new; what a start after a crash reads again.
    #[serde(with = "weir_config::duration")]
    #[schemars(with = "String")]
    pub checkpoint_interval: Duration,
    /// Bytes of frames after which progress is recorded before its time.
    pub checkpoint_bytes: ByteSize,
    /// Bytes in a bucket at which new rows go to the next finer width: what one partition of the store may hold.
    pub bucket: ByteSize,
    /// Devices whose clocks and buckets are kept in memory, over all partitions; others are read from the store when they
    /// speak again.
    pub devices_cached: usize,
    /// Frames that cannot be decoded and are kept for a person to look at, in each partition; then the oldest go.
    pub poison_frames: usize,
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self {
            read: ByteSize::kib(512), // two full frames: some ten thousand rows, and a few MiB once decoded
            checkpoint_interval: Duration::from_secs(1), // two syncs a second are nothing, a second re-read neither
            checkpoint_bytes: ByteSize::mib(32),         // less than a second of full load
            bucket: ByteSize::mib(4), // a partition that a wide-column store reads in one go
            devices_cached: 100_000,  // about 60 MB when full
            poison_frames: 64,        // enough to see a pattern; 48 MiB at most
        }
    }
}

/// How rows become answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueryConfig {
    /// Queries and aggregates that a tenant may run at once.
    pub queries_per_tenant: usize,
    /// Live tails that a tenant may hold at once.
    pub tails_per_tenant: usize,
    /// Readings that wait for one reader of a live tail, in bytes; past it the reader is slow and is told so.
    pub tail_buffer: ByteSize,
    /// Memory that one aggregate may hold; a query that needs more reads its range again for the rest.
    pub aggregate_memory: ByteSize,
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self {
            queries_per_tenant: 16,              // some dashboards' worth, and a bound on open pages
            tails_per_tenant: 64,                // one for each person and script that watches
            tail_buffer: ByteSize::mib(4), // seconds of a busy tenant, and a bound of memory with all of them slow
            aggregate_memory: ByteSize::mib(64), // 100,000 steps of one metric with every function fit
        }
    }
}
