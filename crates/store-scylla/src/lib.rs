//! The engine of the store ports on CQL: [`weir_core::port::Records`] and [`weir_core::port::TelemetryStore`] on ScyllaDB or
//! Apache Cassandra 5 (4.1 and later should do), for a Weir of many processes. Made and brought up to date by [`migrate`].
//!
//! | table               | partition                       | row                 | what |
//! | ------------------- | ------------------------------- | ------------------- | ---- |
//! | `records`           | `tbl`, `part`                   | `key`               | `version`, `value`; static `commit_id` |
//! | `record_partitions` | `tbl`, `shard`                  | `part`              | which partitions there are |
//! | `readings`          | `tenant`, `uid`, `bucket`, `width` | `ts`, `position` | `body`: one immutable reading |
//! | `latest`            | `tenant`, `uid`                 | `metric`            | `value`: position, then body; written at event time |
//! | `buckets`           | `tenant`, `uid`, `class`, `period` | `start`, `width` | which buckets there are, and their bytes |
//! | `bucket_periods`    | `tenant`, `uid`                 | `class`, `period`   | which partitions `buckets` has |
//! | `schema_version`    | `scope`                         | `step`              | the steps of the schema that are done |
//! | `schema_lease`      | `scope`                         |                     | whose turn it is to change the schema |
//!
//! **Records.** One table for all tables of the port: they are constants of services, so a new one needs no change of the
//! schema, and none is so large or so different that it wants compaction of its own. A commit is one conditional batch in
//! one partition, so it is all or nothing, and linearizable by Paxos (Lamport, "Paxos Made Simple"; the light-weight
//! transactions of CQL). Nothing ever writes these rows otherwise, since plain writes and Paxos do not see each other.
//! Rows are only updated, never inserted, so that a row is there while it has a `version`: `IF version = null` is "absent".
//! A commit begins by writing its id into the partition, on the condition that a column which is never set is null: that
//! makes also a commit without expectations a conditional one, and tells later whether it was written. A check adds nothing
//! to an empty set, which writes nothing. Versions are hashes of the commit's unique id. Lost answers: `records/settle.rs`.
//!
//! Reads are at `LOCAL_QUORUM`, and see every commit that was answered before: the commit's last phase waits for a quorum,
//! every two quorums share a node, and a commit that is settled later is finished on a quorum by the `LOCAL_SERIAL` read
//! that settles it. What a read has seen stays seen: a quorum whose nodes differ is repaired before it answers. Reading at
//! `LOCAL_SERIAL` would cost a Paxos round each, and contend with the writers.
//!
//! A deleted record leaves a mark that reads step over, and 100,000 of them in one read are too many for Cassandra. So users
//! of the port overwrite rather than delete under ever-new keys where they can, and servers keep the marks for three hours
//! only, which is what `schema.rs` argues: **a node that was away for longer than that must be repaired or rebuilt before it
//! serves again** (`nodetool repair`, or replaced), or records that were deleted meanwhile may come back.
//!
//! **Telemetry.** All writes are idempotent, at `LOCAL_QUORUM`, in unlogged batches of one partition: buckets before rows
//! before newest values. Rows are immutable by position, so a stalled owner that writes again writes the same bytes. A newest
//! value is written `USING TIMESTAMP` its event time, and of two cells with one timestamp CQL keeps the greater value, which
//! begins with the position: so (ts, position) decides, whatever the order of writes, without a read. A bucket's rows are
//! written with this process's clock, since one owner writes a bucket at a time and servers' clocks differ. Readings are
//! never deleted and have no TTL yet; time-window compaction keeps what was written in a week apart from the next, so that
//! old readings are not rewritten for ever. The other tables have the server's default compaction.
//!
//! **Durability** is the servers' to give: see `durability.rs` for how it is found out and what
//! [`weir_core::port::TelemetryStore::sync`] waits for.
//!
//! It is not a cache, holds no data but names it has written, and knows nothing of what it stores: bodies and values are
//! opaque bytes. It retries only what may be repeated, with a bound, and has no speculative execution: tails are the
//! servers' matter.
//!
//! Rejected: one CQL table for each table of the port (a change of the schema for each, and dozens of memtables);
//! `SELECT DISTINCT` for the list of partitions (reads the whole table, in hash order); a `latest` that reads before it
//! writes, or by light-weight transactions (one Paxos round a metric); counters for a bucket's bytes (not idempotent); logged
//! batches (a second copy of everything, where single-partition batches are atomic already); the design's partition of
//! `buckets` by year alone (a device that fills a bucket a second would have 31 million rows in one).
//!
//! Only Cassandra 5.0.4 is run in the tests here. What ScyllaDB has of its own is used where it is detected: that its
//! light-weight transactions sync the commit log whatever the setting, and that tablets are turned off for the keyspace
//! where they have no light-weight transactions. Sources: "Apache Cassandra 5.0, CQL: DML" (batches, conditions), "ScyllaDB,
//! How does ScyllaDB LWT Differ from Apache Cassandra", "ScyllaDB, Data Definition" (tablets).

mod backoff;
mod client;
mod config;
mod durability;
mod failure;
mod known;
pub mod migrate;
mod records;
mod schema;
mod store;
mod telemetry;
mod tls;

pub use config::{Config, TlsConfig};
pub use store::ScyllaStore;
pub use weir_config::Durability;
