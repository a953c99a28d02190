//! What an accepted write survives, as the servers have it, and which of their nodes were restarted.
//!
//! CQL servers acknowledge a write when it is in memory and in the commit log's buffer; by default the log reaches the disk
//! in periods. So a node that restarts after a power cut may lack the last of what it acknowledged. Whoever must not lose
//! it waits until the log was surely written ([`Watch::sync`]), and writes again what it was not sure of where a node was
//! restarted meanwhile. A restart shows in the node's gossip generation, which is the time of its start.

mod node;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use scylla::cluster::Node;
use tokio::{sync::Mutex, time::Instant};
use weir_config::Durability;
use weir_core::{Error, ErrorKind, Result};

use crate::{client::Client, failure, migrate};
use node::CommitLog;

/// A log written in periods is on the disk after two of them: one may have begun just before the write came, and be the
/// last to end.
const PERIODS: u32 = 2;
/// Where every write waits for the disk nothing needs to be asked, but for settings that somebody changes.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// What is known of one node.
#[derive(Debug, Clone)]
struct Known {
    generation: i32,
    log: CommitLog,
    /// Whether it answered when it was asked last.
    here: bool,
}

/// Watches the nodes.
pub(crate) struct Watch {
    wanted: Durability,
    scylla: bool,
    nodes: Mutex<Nodes>,
    losses: AtomicU64,
}

struct Nodes {
    by_id: HashMap<u128, Known>,
    /// When the nodes were last asked, all of them.
    asked: Instant,
}

impl Watch {
    /// Asks every node how it writes its commit log.
    ///
    /// # Errors
    /// `FailedPrecondition` (`STORE_NOT_DURABLE`) where that is less than `wanted`; `Unavailable` where no node answers.
    pub(crate) async fn begin(client: &Client, wanted: Durability) -> Result<Self> {
        let watch = Self {
            wanted,
            scylla: migrate::is_scylla(client).await?,
            nodes: Mutex::new(Nodes { by_id: HashMap::new(), asked: Instant::now() }),
            losses: AtomicU64::new(0),
        };
        watch.ask_all(client, &mut *watch.nodes.lock().await).await?;
        Ok(watch)
    }

    /// How many times so far a node may have lost what it had acknowledged.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    /// Returns when everything that was acknowledged before the call is on the disks.
    ///
    /// # Errors
    /// `Unavailable`: `STORE_NODE_RESTARTED` where a node went away or came back as another process since the call began;
    /// or no node answers.
    pub(crate) async fn sync(&self, client: &Client) -> Result<()> {
        let before = self.losses();
        let wait = self.wait().await;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let waited = Instant::now();
        let mut nodes = self.nodes.lock().await;
        let stale = if wait.is_zero() { nodes.asked + ASK_EVERY < waited } else { nodes.asked < waited };
        if stale {
            self.ask_all(client, &mut nodes).await?;
        }
        drop(nodes);
        if self.losses() == before { Ok(()) } else { Err(restarted()) }
    }

    /// For people: what is in force, and how it is known.
    pub(crate) async fn detail(&self) -> String {
        let server = if self.scylla { "ScyllaDB" } else { "Cassandra" };
        let nodes = self.nodes.lock().await;
        let mut logs: Vec<String> = nodes.by_id.values().map(|known| known.log.to_string()).collect();
        logs.sort_unstable();
        logs.dedup();
        let count = nodes.by_id.len();
        format!("{server}, {count} nodes, commit log {} (read from each node)", logs.join(" and "))
    }

    async fn wait(&self) -> Duration {
        let nodes = self.nodes.lock().await;
        nodes.by_id.values().map(|known| known.log.period()).max().unwrap_or_default() * PERIODS
    }

    async fn ask_all(&self, client: &Client, nodes: &mut Nodes) -> Result<()> {
        let began = Instant::now();
        let members = client.nodes();
        let answers = join_all(members.iter().map(|member| self.ask(client, member, nodes))).await;
        let mut seen = HashMap::new();
        for (member, answer) in members.iter().zip(answers) {
            let id = member.host_id.as_u128();
            let before = nodes.by_id.remove(&id);
            let now = match answer {
                Some(answer) => Some(answer?),
                None => before.clone().map(|known| Known { here: false, ..known }),
            };
            self.compare(member, before.as_ref(), now.as_ref());
            seen.extend(now.map(|known| (id, known)));
        }
        // Whoever is left was taken out of the cluster: as if it had gone away.
        for gone in nodes.by_id.values().filter(|known| known.here) {
            tracing::warn!(log = %gone.log, "a CQL node left the cluster");
            self.count();
        }
        nodes.by_id = seen;
        if !nodes.by_id.values().any(|known| known.here) {
            return Err(failure::away("no CQL node tells how it writes its commit log"));
        }
        nodes.asked = began;
        Ok(())
    }

    /// What a node tells of itself; none where it does not answer.
    async fn ask(&self, client: &Client, member: &Arc<Node>, nodes: &Nodes) -> Option<Result<Known>> {
        if !member.is_connected() {
            return None;
        }
        let generation = match node::generation(client, member).await {
            Ok(generation) => generation,
            Err(error) if error.kind() == ErrorKind::Unavailable => return None,
            Err(error) => return Some(Err(error)),
        };
        if let Some(known) = nodes.by_id.get(&member.host_id.as_u128())
            && known.generation == generation
        {
            return Some(Ok(Known { here: true, ..known.clone() }));
        }
        // A setting changes only with a restart.
        match node::commit_log(client, member, self.scylla).await {
            Ok(log) => Some(self.accept(member, &log).map(|()| Known { generation, log, here: true })),
            Err(error) if error.kind() == ErrorKind::Unavailable => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Refuses a node that writes its log later than is wanted.
    fn accept(&self, member: &Node, log: &CommitLog) -> Result<()> {
        // Registry, command and alarm records are conditional writes that are answered at once. ScyllaDB syncs those
        // whatever its setting; Cassandra does not. Readings wait for `sync` on either.
        if self.wanted == Durability::Process || self.scylla || log.period().is_zero() {
            return Ok(());
        }
        let text = format!(
            "CQL node {} has commitlog_sync = {log}, so a power cut can lose conditional writes that it acknowledged: set \
             commitlog_sync: batch in its cassandra.yaml and restart it, or set durability = \"process\"",
            member.address
        );
        Err(Error::new(ErrorKind::FailedPrecondition, "STORE_NOT_DURABLE", text))
    }

    /// Counts what may have been lost. A node that went away may have lost what it held only in memory, and it may do so
    /// twice before anybody sees it again; so going away counts, and coming back as another process counts.
    fn compare(&self, member: &Node, before: Option<&Known>, now: Option<&Known>) {
        let (Some(before), Some(now)) = (before, now) else { return };
        let volatile = !before.log.period().is_zero() || !now.log.period().is_zero();
        let (went, changed) = (before.here && !now.here, before.generation != now.generation);
        if changed || went {
            let node = member.address;
            tracing::warn!(%node, restarted = changed, volatile, "a CQL node went away or was restarted");
        }
        if volatile && (changed || went) {
            self.count();
        }
    }

    fn count(&self) {
        self.losses.fetch_add(1, Ordering::AcqRel);
    }
}

fn restarted() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "STORE_NODE_RESTARTED",
        "a CQL node went away or was restarted, and may lack the last of what it acknowledged: write it again",
    )
}
