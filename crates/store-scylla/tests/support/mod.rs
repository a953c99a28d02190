//! One Cassandra for a test binary, and one keyspace in it.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};
use weir_conformance::progress::Engines;
use weir_core::{
    Result, Uid,
    port::{KeyRange, Log, Records, Stored, Table, Write},
};
use weir_log_embedded::EmbeddedLog;
use weir_store_scylla::{Config, Durability, ScyllaStore, migrate};
use weir_test_servers::cql::{self, Cluster, CommitLog};

/// How often the nodes of the tests write their commit log: `sync` waits for two of these.
pub(crate) const PERIOD: Duration = Duration::from_millis(100);

/// The servers of this test binary.
pub(crate) struct Server {
    pub(crate) hosts: Vec<String>,
    replication_factor: u8,
    cluster: Option<Mutex<Cluster>>,
    /// Held for reading by tests that need the servers whole, for writing by those that harm them.
    gate: RwLock<()>,
    migrated: OnceCell<()>,
}

static SERVER: OnceLock<Option<Server>> = OnceLock::new();

/// As many nodes as this test binary is about; none where they cannot be had.
pub(crate) fn server(nodes: u8) -> Option<&'static Server> {
    let made = SERVER.get_or_init(|| {
        let made = match cql::given() {
            Some(hosts) => Ok((hosts, None)),
            None => Cluster::start(nodes, CommitLog::Periodic(PERIOD), None)
                .map(|cluster| (cluster.hosts(), Some(Mutex::new(cluster)))),
        };
        let (hosts, cluster) = weir_test_servers::or_skip("Cassandra", made)?;
        let gate = RwLock::new(());
        Some(Server { hosts, replication_factor: nodes, cluster, gate, migrated: OnceCell::new() })
    });
    if made.is_none() {
        weir_test_servers::or_skip::<()>("Cassandra", Err("see above".to_owned()));
    }
    made.as_ref()
}

impl Server {
    /// A configuration for these servers.
    pub(crate) fn config(&self, keyspace: &str) -> Config {
        Config {
            hosts: self.hosts.clone(),
            keyspace: keyspace.to_owned(),
            replication_factor: self.replication_factor,
            ..Config::default()
        }
    }

    /// A store in the keyspace that the tests share.
    pub(crate) async fn store(&self) -> Arc<ScyllaStore> {
        let config = self.config("weir_tests");
        let migrate = async || {
            migrate::run(&config, |_| {}).await.unwrap();
        };
        self.migrated.get_or_init(migrate).await;
        ScyllaStore::connect(&config, Durability::Process).await.unwrap()
    }

    /// While this is held nobody harms the servers.
    pub(crate) async fn whole(&'static self) -> RwLockReadGuard<'static, ()> {
        self.gate.read().await
    }

    /// Runs `harm` with the nodes, one such test at a time; says SKIPPED where they are not ours to harm.
    pub(crate) async fn alone(
        &'static self,
    ) -> Option<(RwLockWriteGuard<'static, ()>, &'static Mutex<Cluster>)> {
        let Some(cluster) = &self.cluster else {
            eprintln!("SKIPPED: the servers of {} are not this test's to stop", cql::ENDPOINT);
            return None;
        };
        Some((self.gate.write().await, cluster))
    }
}

/// Runs something with the cluster that blocks.
pub(crate) async fn harm<T: Send + 'static>(
    cluster: &'static Mutex<Cluster>,
    act: impl FnOnce(&mut Cluster) -> T + Send + 'static,
) -> T {
    tokio::task::spawn_blocking(move || act(&mut cluster.lock().unwrap_or_else(PoisonError::into_inner)))
        .await
        .unwrap()
}

/// Waits until `condition` holds, for as long as a node may take to start.
pub(crate) async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let began = std::time::Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(90), "it did not happen that {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Engines for the suite of progress: records that are empty, as their partitions have names of their own, and embedded
/// logs.
pub(crate) fn engines(records: Arc<dyn Records>) -> (Engines, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().to_owned();
    let made = std::sync::atomic::AtomicU32::new(0);
    let log = move || {
        let number = made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let log: Arc<dyn Log> = Arc::new(
            EmbeddedLog::open(&logs.join(number.to_string()), weir_log_embedded::Options::default()).unwrap(),
        );
        Box::pin(std::future::ready(log)) as _
    };
    (Engines { records: Arc::new(Apart::new(records)), log: Box::new(log) }, dir)
}

/// The records of a store under partitions of their own.
struct Apart {
    inner: Arc<dyn Records>,
    prefix: String,
}

impl Apart {
    fn new(inner: Arc<dyn Records>) -> Self {
        Self { inner, prefix: format!("{}/", Uid::random()) }
    }

    fn place(&self, partition: &[u8]) -> Vec<u8> {
        [self.prefix.as_bytes(), partition].concat()
    }
}

#[async_trait]
impl Records for Apart {
    async fn get(&self, table: Table, partition: &[u8], key: &[u8]) -> Result<Option<Stored>> {
        self.inner.get(table, &self.place(partition), key).await
    }
    async fn scan(
        &self,
        table: Table,
        partition: &[u8],
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<Stored>> {
        self.inner.scan(table, &self.place(partition), range, limit).await
    }
    async fn commit(&self, table: Table, partition: &[u8], writes: Vec<Write>) -> Result<Vec<u64>> {
        self.inner.commit(table, &self.place(partition), writes).await
    }
    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        let after = self.place(after.unwrap_or_default());
        let found = self.inner.partitions(table, Some(&after), limit).await?;
        let own = |name: &Bytes| name.strip_prefix(self.prefix.as_bytes()).map(Bytes::copy_from_slice);
        Ok(found.iter().map_while(own).collect())
    }
}
