//! The embedded stores: [`weir_core::port::Records`] and [`weir_core::port::TelemetryStore`] on one `fjall` database (a
//! log-structured merge tree), for a process that has nothing beside it.
//!
//! One database holds everything, so that its journal orders rows before the progress that says they are written. One
//! thread writes: it takes what waits, checks expectations in order, applies, syncs once for all and answers (group
//! commit, as in PostgreSQL's `commit_delay`, but without the delay: the sync of the last group is the wait of the next).
//! Readers never wait for it, and see a commit only once it is durable, so nobody trims a log up to a progress that a
//! power cut takes back.
//!
//! It is not a query engine and knows nothing of what it stores: bodies and values are opaque bytes. It is not shared: one
//! process opens a directory, and a lock says so.
//!
//! What happens when the disk fails is in `writer`: a full disk is refused before the database is touched, and a database
//! that has failed is opened anew in place.
//!
//! Rejected: fjall's transactions (optimistic ones fail where another key of the same block was read; expectations by
//! version need neither), `SQLite` (a C toolchain, and one B-tree page write a row), `RocksDB` (ten minutes of C++ build).

mod database;
mod directory;
mod failure;
mod journal;
mod options;
mod records;
mod shared;
mod store;
mod telemetry;
mod writer;

pub use options::Options;
pub use store::EmbeddedStore;
pub use weir_config::Durability;
