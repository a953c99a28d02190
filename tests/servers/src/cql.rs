//! Apache Cassandra, for CQL: one node or three on loopback, killed, paused and restarted one by one.
//!
//! Cassandra comes from Maven Central (`org.apache.cassandra:cassandra-all`, needs `mvn` and a JDK 17 once), its jars are
//! kept in the cache. There is no release tarball in a package registry, so the command line that its `bin/cassandra`
//! would build stands in `node`. A node takes about 800 MB and 5 to 10 s to start: one cluster is enough for a test binary.

#![allow(clippy::indexing_slicing)] // a node that is not there is a mistake of the test

mod fetch;
mod node;

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use node::Node;

/// The environment variable that names a server to use instead: `host:port`, or several with commas between.
pub const ENDPOINT: &str = "WEIR_TEST_CQL";

const CQL_PORT: u16 = 9042;
/// Clusters that one process may have started: each takes ten addresses of one 127.a.b.0/24.
const CLUSTERS_MAX: u8 = 20;
const ADDRESSES_EACH: u8 = 10;

static CLUSTERS: AtomicU8 = AtomicU8::new(0);

/// When a write is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitLog {
    /// Before it is acknowledged.
    Batch,
    /// At most this long after it was acknowledged.
    Periodic(Duration),
}

/// A cluster that this process started. Dropping it kills its nodes; so does the end of this process, however it ends.
pub struct Cluster {
    nodes: Vec<Node>,
    _dir: Option<tempfile::TempDir>,
}

/// The server named in the environment, if one is.
pub fn given() -> Option<Vec<String>> {
    let hosts = std::env::var(ENDPOINT).ok()?;
    Some(hosts.split(',').map(|host| host.trim().to_owned()).filter(|host| !host.is_empty()).collect())
}

impl Cluster {
    /// Starts `count` nodes, one after the other, with their data in `dir` or in a directory that goes with the cluster.
    ///
    /// # Errors
    /// Why it cannot be had, in words: no Java, nothing fetched, a node that does not start (with the end of its log).
    pub fn start(count: u8, commit_log: CommitLog, dir: Option<&Path>) -> Result<Self, String> {
        let jars = fetch::jars()?;
        let temporary = match dir {
            Some(_) => None,
            None => Some(tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?),
        };
        let base: PathBuf = match (&temporary, dir) {
            (Some(temporary), _) => temporary.path().to_owned(),
            (None, dir) => dir.unwrap_or(Path::new(".")).to_owned(),
        };
        let seed = free_address()?;
        let mut nodes: Vec<Node> = vec![];
        for index in 0..count {
            let [a, b, c, first] = seed.octets();
            let address = Ipv4Addr::new(a, b, c, first + index);
            let mut node =
                Node::new(base.join((index + 1).to_string()), address, seed, commit_log, jars.clone())?;
            node.start()?;
            nodes.push(node);
        }
        Ok(Self { nodes, _dir: temporary })
    }

    /// Starts one node at this address, which is one of the network that this thread is in.
    ///
    /// # Errors
    /// As of [`Cluster::start`].
    pub fn start_at(address: Ipv4Addr, commit_log: CommitLog) -> Result<Self, String> {
        let jars = fetch::jars()?;
        let dir = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
        let mut node = Node::new(dir.path().join("1"), address, address, commit_log, jars)?;
        node.start()?;
        Ok(Self { nodes: vec![node], _dir: Some(dir) })
    }

    /// `host:port` of each node.
    pub fn hosts(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("{}:{CQL_PORT}", node.address)).collect()
    }

    /// The data directory of a node, counted from 0.
    ///
    /// # Panics
    /// Where there is no such node, as all of these.
    pub fn dir(&self, index: usize) -> &Path {
        &self.nodes[index].dir
    }

    /// The process id of a node's Java.
    pub fn pid(&self, index: usize) -> u32 {
        self.nodes[index].pid().unwrap()
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].kill();
    }

    /// SIGSTOP: it holds its connections and answers nothing.
    pub fn pause(&self, index: usize) {
        self.nodes[index].signal(rustix::process::Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self, index: usize) {
        self.nodes[index].signal(rustix::process::Signal::CONT);
    }

    /// Starts a node that was killed, on the same data; returns when it accepts CQL connections.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn restart(&mut self, index: usize) -> Result<(), String> {
        self.nodes[index].start()
    }
}

/// The first of ten addresses that nobody listens on: from the process id, so that test binaries that run at once start
/// far apart.
fn free_address() -> Result<Ipv4Addr, String> {
    let pid = std::process::id();
    let octet = |number: u32, span: u32| u8::try_from(number % span).unwrap_or_default();
    let (a, b) = (20 + octet(pid / 250, 200), octet(pid, 250));
    for _ in 0..CLUSTERS_MAX {
        let index = CLUSTERS.fetch_add(1, Ordering::Relaxed) % CLUSTERS_MAX;
        let address = Ipv4Addr::new(127, a, b, 1 + index * ADDRESSES_EACH);
        if TcpListener::bind((address, CQL_PORT)).is_ok() {
            return Ok(address);
        }
    }
    Err(format!("no free address under 127.{a}.{b}.0"))
}
