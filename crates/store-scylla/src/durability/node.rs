//! What one node tells of itself.

use std::{fmt, sync::Arc, time::Duration};

use scylla::cluster::Node;
use weir_core::{Error, ErrorKind, Result};

use crate::client::Client;

/// When a node writes its commit log to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CommitLog {
    /// Before it acknowledges (`batch`, `group`).
    EachWrite(String),
    /// In periods.
    Every(Duration),
}

impl CommitLog {
    /// How long what was acknowledged may be in memory only.
    pub(crate) fn period(&self) -> Duration {
        match self {
            Self::EachWrite(_) => Duration::ZERO,
            Self::Every(period) => *period,
        }
    }

    /// From the settings `commitlog_sync` and `commitlog_sync_period`; none where they make no sense.
    fn parse(mode: &str, period: Option<&str>) -> Option<Self> {
        match unquoted(mode) {
            mode @ ("batch" | "group") => Some(Self::EachWrite(mode.to_owned())),
            "periodic" => Some(Self::Every(span(unquoted(period?))?)),
            _ => None,
        }
    }
}

impl fmt::Display for CommitLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EachWrite(mode) => f.write_str(mode),
            Self::Every(period) => write!(f, "periodic ({period:?})"),
        }
    }
}

/// When this process of the node started; another number after each restart.
pub(super) async fn generation(client: &Client, node: &Arc<Node>) -> Result<i32> {
    let found = client.ask::<(Option<i32>,)>(node, "SELECT gossip_generation FROM system.local").await?;
    let generation = found.into_iter().next().and_then(|(generation,)| generation);
    generation.ok_or_else(|| unknown(node, "tells no gossip_generation"))
}

/// When the node writes its log.
pub(super) async fn commit_log(client: &Client, node: &Arc<Node>, scylla: bool) -> Result<CommitLog> {
    // ScyllaDB shows its settings as JSON, in milliseconds; Cassandra (4.0 and later) as in its file.
    let (table, period) = if scylla {
        ("system.config", "commitlog_sync_period_in_ms")
    } else {
        ("system_views.settings", "commitlog_sync_period")
    };
    let setting = async |name: &str| {
        let cql = format!("SELECT value FROM {table} WHERE name = '{name}'");
        let found = client.ask::<(Option<String>,)>(node, &cql).await?;
        Ok::<_, Error>(found.into_iter().next().and_then(|(value,)| value))
    };
    let (mode, period) = (setting("commitlog_sync").await?, setting(period).await?);
    let log = mode.as_deref().and_then(|mode| CommitLog::parse(mode, period.as_deref()));
    log.ok_or_else(|| {
        unknown(
            node,
            &format!("tells commitlog_sync = {mode:?} and a period of {period:?}, which is not known"),
        )
    })
}

fn unknown(node: &Node, what: &str) -> Error {
    let text = format!("CQL node {} {what}: it cannot be known what its acknowledgement means", node.address);
    Error::new(ErrorKind::FailedPrecondition, "STORE_DURABILITY_UNKNOWN", text)
}

fn unquoted(value: &str) -> &str {
    value.trim().trim_matches('"')
}

/// `10000ms`, `10s`, or a number of milliseconds.
fn span(value: &str) -> Option<Duration> {
    match value.parse::<u64>() {
        Ok(millis) => Some(Duration::from_millis(millis)),
        Err(_) => weir_config::duration::parse(value).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_either_server_writes_them() {
        let ten = CommitLog::Every(Duration::from_secs(10));
        assert_eq!(CommitLog::parse("periodic", Some("10000ms")), Some(ten.clone()));
        assert_eq!(CommitLog::parse("periodic", Some("10s")), Some(ten.clone()));
        assert_eq!(CommitLog::parse("\"periodic\"", Some("10000")), Some(ten));
        assert_eq!(CommitLog::parse("batch", Some("null")).unwrap().period(), Duration::ZERO);
        assert_eq!(CommitLog::parse("group", None).unwrap().period(), Duration::ZERO);
        assert_eq!(CommitLog::parse("periodic", None), None);
        assert_eq!(CommitLog::parse("sometimes", Some("10s")), None);
    }
}
