//! The statements of records, prepared once.

use scylla::statement::{Consistency, prepared::PreparedStatement};
use tokio::sync::Mutex;
use weir_core::Result;

use crate::{client::Client, known::Known};

/// Partitions that this process knows to be in the list of partitions: 16 B each and a hash table's room, some 8 MiB.
const PARTITIONS_KNOWN: usize = 200_000;
/// Commits of one partition take turns within this process, so that they do not contend in Paxos, where each attempt that
/// loses costs several round trips. So many turns that two busy partitions rarely share one.
const TURNS: usize = 1_024;

/// Prepared statements and what this process remembers.
pub(crate) struct RecordTables {
    pub(crate) get: PreparedStatement,
    pub(crate) scan: PreparedStatement,
    pub(crate) scan_down: PreparedStatement,
    pub(crate) scan_range: PreparedStatement,
    pub(crate) scan_range_down: PreparedStatement,
    /// Names the commit, and is the condition that makes every commit a conditional one.
    pub(crate) head: PreparedStatement,
    pub(crate) put: ByExpectation,
    pub(crate) delete: ByExpectation,
    pub(crate) check: ByExpectation,
    pub(crate) newest_commit: PreparedStatement,
    pub(crate) newest_version: PreparedStatement,
    pub(crate) register: PreparedStatement,
    pub(crate) list: PreparedStatement,
    pub(crate) any: PreparedStatement,
    pub(crate) registered: Known,
    pub(crate) turns: Vec<Mutex<()>>,
}

/// One statement for each expectation.
pub(crate) struct ByExpectation {
    pub(crate) any: PreparedStatement,
    pub(crate) absent: PreparedStatement,
    pub(crate) version: PreparedStatement,
}

impl RecordTables {
    pub(crate) async fn prepare(client: &Client) -> Result<Self> {
        let keyspace = &client.keyspace;
        let place = "tbl = ? AND part = ?";
        let read = |what: &str| {
            client.prepare(format!(
                "SELECT key, version, value FROM {keyspace}.records WHERE {place} AND {what}"
            ))
        };
        let serial = async |what: &str| {
            let mut statement = client.prepare(format!("SELECT {what}")).await?;
            statement.set_consistency(Consistency::LocalSerial);
            Ok::<_, weir_core::Error>(statement)
        };
        let by_expectation = async |write: &str| {
            let cql = format!("{write} WHERE {place} AND key = ?");
            Ok::<_, weir_core::Error>(ByExpectation {
                any: client.prepare_once(cql.clone()).await?,
                absent: client.prepare_once(format!("{cql} IF version = null")).await?,
                version: client.prepare_once(format!("{cql} IF version = ?")).await?,
            })
        };
        Ok(Self {
            get: read("key = ?").await?,
            scan: read("key >= ? LIMIT ?").await?,
            scan_down: read("key >= ? ORDER BY key DESC LIMIT ?").await?,
            scan_range: read("key >= ? AND key < ? LIMIT ?").await?,
            scan_range_down: read("key >= ? AND key < ? ORDER BY key DESC LIMIT ?").await?,
            head: client
                .prepare_once(format!(
                    "UPDATE {keyspace}.records SET commit_id = ? WHERE {place} IF fence = null"
                ))
                .await?,
            put: by_expectation(&format!("UPDATE {keyspace}.records SET version = ?, value = ?")).await?,
            delete: by_expectation(&format!("DELETE FROM {keyspace}.records")).await?,
            // Adding nothing to a set writes nothing, not even a tombstone.
            check: by_expectation(&format!("UPDATE {keyspace}.records SET noop = noop + {{}}")).await?,
            newest_commit: serial(&format!("commit_id FROM {keyspace}.records WHERE {place} LIMIT 1")).await?,
            newest_version: serial(&format!("version FROM {keyspace}.records WHERE {place} AND key = ?"))
                .await?,
            register: client
                .prepare(format!(
                    "INSERT INTO {keyspace}.record_partitions (tbl, shard, part) VALUES (?, ?, ?) IF NOT EXISTS"
                ))
                .await?,
            list: client
                .prepare(format!(
                    "SELECT part FROM {keyspace}.record_partitions WHERE tbl = ? AND shard = ? AND part >= ? LIMIT ?"
                ))
                .await?,
            any: client
                .prepare(format!("SELECT key FROM {keyspace}.records WHERE {place} AND key >= ? LIMIT 1"))
                .await?,
            registered: Known::new(PARTITIONS_KNOWN),
            turns: std::iter::repeat_with(|| Mutex::new(())).take(TURNS).collect(),
        })
    }
}
