//! A replica that starts while what it needs is away.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use weir_core::{
    Error, Partition, Result, Stream, Timestamp, Uid,
    port::{Bounds, Leases, Log, LogIdentity, LogReader, Membership},
};

use crate::edge::{Cluster, Group};

/// Away for so many more calls.
struct Away<T> {
    inner: T,
    calls: AtomicUsize,
}

impl<T> Away<T> {
    fn pass(&self) -> Result<()> {
        let less = |left: usize| left.checked_sub(1);
        match self.calls.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
            Ok(_) => Err(Error::unavailable("the bus is away")),
            Err(_) => Ok(()),
        }
    }
}

#[async_trait]
impl Leases for Away<Group> {
    async fn join(&self, group: &str) -> Result<Box<dyn Membership>> {
        self.pass()?;
        self.inner.join(group).await
    }
}

#[async_trait]
impl Log for Away<Arc<dyn Log>> {
    async fn publish(&self, stream: Stream, partition: Partition, id: Uid, bytes: Bytes) -> Result<u64> {
        self.inner.publish(stream, partition, id, bytes).await
    }
    async fn read_from(&self, stream: Stream, partition: Partition, from: u64) -> Result<Box<dyn LogReader>> {
        self.inner.read_from(stream, partition, from).await
    }
    async fn trim(&self, stream: Stream, through: u64) -> Result<()> {
        self.inner.trim(stream, through).await
    }
    async fn sequence_before(&self, stream: Stream, instant: Timestamp) -> Result<u64> {
        self.inner.sequence_before(stream, instant).await
    }
    async fn identity(&self, stream: Stream) -> Result<LogIdentity> {
        self.pass()?;
        self.inner.identity(stream).await
    }
    async fn bounds(&self, stream: Stream) -> Result<Bounds> {
        self.inner.bounds(stream).await
    }
    async fn ids(&self, stream: Stream, sequences: &[u64]) -> Result<Vec<Option<Uid>>> {
        self.inner.ids(stream, sequences).await
    }
    async fn writable(&self) -> Result<()> {
        self.inner.writable().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_waits_for_a_log_and_a_bus_that_are_away_when_it_starts() {
    let cluster = Cluster::start().await;
    let log = Arc::new(Away { inner: Arc::clone(&cluster.log), calls: AtomicUsize::new(3) });
    let leases = Arc::new(Away { inner: cluster.group.clone(), calls: AtomicUsize::new(2) });
    let replica = cluster.replica_over(Arc::clone(&log) as _, Arc::clone(&leases) as _).await;
    assert_eq!((log.calls.load(Ordering::SeqCst), leases.calls.load(Ordering::SeqCst)), (0, 0));
    cluster.people.add("acme", "sensor", false);
    let mut client = replica.connect("sensor", "a").await;
    assert_eq!(client.publish("v1/telemetry", r#"{"temp":21.5}"#).await.codes, [0]);
}
