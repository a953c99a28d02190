//! The ports: what Weir asks of an engine, and what services ask of each other.
//!
//! Callers cannot tell whether a port is bound in process or over the network. Each engine port has one conformance suite
//! in `crates/conformance`, run against every engine.

mod calls;
mod leases;
mod limits;
mod log;
mod records;
mod signals;
mod telemetry;

pub use calls::{
    CommandQueue, CommandSender, Queued, Registry, RuleRow, RuleRows, RuleScan, SESSION_ENDED,
    SESSION_ENDING, SendCommand, Session, SessionEpoch, TelemetryReader,
};
pub use leases::{Leases, Member, Membership, View};
pub use limits::check_writes;
pub use log::{Batch, Bounds, LOG_FAILED, Log, LogIdentity, LogReader, Record};
pub use records::{Expect, KeyRange, Op, Records, Stored, Table, Write};
pub use signals::{Signal, SignalStream, Signals, Topic};
pub use telemetry::{
    BucketId, BucketRow, LatestCell, Row, RowScan, ScanOrder, SeriesKey, TelemetryBatch, TelemetryStore,
    Width,
};
