//! The engine of the `Log`, `Signals` and `Leases` ports on NATS JetStream, for a Weir of many processes.
//!
//! # Log
//!
//! One stream a kind (`<prefix>_readings`, `<prefix>_commands`), one subject a partition (`<prefix>.log.<kind>.<n>`), so
//! that sequences rise over all partitions. Limits retention, no age, discard new: a full stream refuses, and forgets only
//! what a trim (a purge by sequence) takes. A record is a message; its id is its `Nats-Msg-Id`.
//!
//! - **Durability** is that of the servers' `sync_interval`, which no ordinary account can read (it stands in the server's
//!   configuration and in `varz` of the system account). So [`Config::sync_always`] declares it, and
//!   [`Durability::PowerLoss`] refuses to start without the declaration. Everything that a stream's own settings tell is
//!   checked, and refused by name (`reconcile.rs`).
//! - **Readers** pull with an ephemeral consumer in memory and keep their place themselves; when anything is odd (a gap in
//!   the consumer's own numbering, silence, a reconnect, another leader) the consumer is made anew from that place.
//! - **An empty read is a promise**, and a consumer on a replica that lags cannot give it. So the stream's leader is asked
//!   for its end, then for the next message of the subject, then whether it is still the leader since the same instant.
//! - **A log that fell back** under a running reader (servers that lost their tail, a stream made anew) is found within a
//!   second: the reader asks the leader whether the record that it read last still has its id. It then fails with
//!   `LOG_FELL_BACK`, and its owner resumes (`weir_core::progress`).
//! - **What was purged cannot be told apart** from what was never there: a reader whose place is below the stream's first
//!   sequence gets `TRIMMED_PAST`, also where its partition lost nothing. No owner is ever there: trims stay below the
//!   lowest progress.
//!
//! # Signals and leases
//!
//! Signals are core NATS messages; after whatever may have lost one (a reconnect, a slow consumer, a gap in a publisher's
//! numbering) subscribers get the gap. Leases are keys of one bucket that expire by age, and members that ask their
//! neighbours whether they are there, so that a closed connection is noticed before the key expires.
//!
//! # What it is not
//!
//! It keeps no reading progress (a durable consumer's cumulative acks lose what a dead owner had pulled), gives no
//! ownership (the store fences), and makes no server: accounts, clusters and `sync_interval` are the operator's.
//!
//! # Rejected
//!
//! Direct get (any replica answers, and may lag); durable or work-queue consumers (above); one stream a partition (sixteen
//! Raft groups for one, and no sequence over all of them); a TTL for each key of the leases (an update drops it); the key
//! watch alone (15 s until a dead process is noticed); `retry_on_initial_connect` (a wrong password would look like a
//! server that is away).
//!
//! # Sources
//!
//! NATS documentation, "JetStream", "Streams", "Consumers", "Configuring JetStream: sync_interval"; architecture decision
//! records ADR-8 (key-value), ADR-13 (pull consumers), ADR-15 (acknowledgement subjects), ADR-31 (direct get), ADR-37
//! (simplified clients), ADR-43 (message TTLs and limit markers).

mod api;
mod bus;
mod config;
mod connect;
mod error;
mod feed;
mod handle;
mod leases;
mod log;
mod publish;
mod reader;
mod reconcile;
mod signals;

pub use bus::{Bus, Options};
pub use config::Config;
pub use weir_config::Durability;
