//! One node of three away, two of three away, a node that is paused, and two processes at one partition.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use weir_core::{
    ErrorKind, Partition, Position, Stream, TenantId, Timestamp, Uid,
    port::{
        BucketId, BucketRow, LatestCell, Records as _, Row, RowScan, ScanOrder, SeriesKey, Table,
        TelemetryBatch, TelemetryStore as _, Width, Write,
    },
};
use weir_store_scylla::{Config, Durability, ScyllaStore};
use weir_test_servers::cql::Cluster;

use super::support::{harm, until};

const TABLE: Table = Table("faults");

/// A series, and how much of it was acknowledged.
struct Telemetry {
    series: SeriesKey,
    acknowledged: Vec<Row>,
}

impl Telemetry {
    fn new() -> Self {
        let series = SeriesKey { tenant: TenantId::new("tenant").unwrap(), uid: Uid::random() };
        Self { series, acknowledged: vec![] }
    }

    /// Writes the next rows, with their bucket and their newest value.
    async fn write(&mut self, store: &ScyllaStore, count: u64) -> weir_core::Result<()> {
        let first = self.acknowledged.len() as u64 + 1;
        let rows: Vec<Row> = (first..first + count).map(|sequence| self.row(sequence)).collect();
        let last = rows.last().unwrap();
        let bucket = BucketRow {
            series: self.series.clone(),
            bucket: last.bucket,
            bytes: first,
            seal_generation: 0,
            sealed_through: None,
        };
        let latest = LatestCell {
            series: self.series.clone(),
            metric: "m".into(),
            ts: last.ts,
            position: last.position,
            body: last.body.clone(),
        };
        let batch = TelemetryBatch { buckets: vec![bucket], rows: rows.clone(), latest: vec![latest] };
        store.write(batch).await?;
        self.acknowledged.extend(rows);
        Ok(())
    }

    fn row(&self, sequence: u64) -> Row {
        let ts = Timestamp::from_micros(1_424_044_800_000_000 + i64::try_from(sequence).unwrap());
        let position =
            Position { stream: Stream::Readings, generation: 1, sequence, index: 0, partition: Partition(0) };
        let bucket = BucketId::containing(ts, Width::Day);
        Row { series: self.series.clone(), bucket, ts, position, body: sequence.to_string().into() }
    }

    /// Asserts that all of it is there.
    async fn check(&self, store: &ScyllaStore) {
        let scan = RowScan {
            from: Timestamp::MIN,
            to: Timestamp::MAX,
            after: None,
            order: ScanOrder::Ascending,
            limit: 100_000,
        };
        let bucket = self.acknowledged[0].bucket;
        let found = store.rows(&self.series, bucket, scan).await.unwrap();
        let missing: Vec<_> = self.acknowledged.iter().filter(|row| !found.contains(row)).collect();
        assert!(missing.is_empty(), "{} of {} rows are lost", missing.len(), self.acknowledged.len());
        let latest = store.latest(&self.series).await.unwrap();
        assert!(latest[0].position >= self.acknowledged.last().unwrap().position);
        assert_eq!(
            store.buckets(&self.series, Timestamp::MIN, Timestamp::MAX, None, 9).await.unwrap().len(),
            1
        );
    }
}

/// Resumes the node when the test ends, however it ends: the next one needs it.
struct Resume(&'static Mutex<Cluster>);

impl Drop for Resume {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).resume(1);
    }
}

/// Replaces the counter of a partition once, from the value that it has.
async fn count(store: &ScyllaStore, place: &[u8]) -> weir_core::Result<u64> {
    let stored = store.get(TABLE, place, b"n").await?;
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().parse::<u64>().unwrap();
    let (next, write) = match stored {
        None => (1, Write::insert("n", "1")),
        Some(stored) => {
            let next = number(&stored.value) + 1;
            (next, Write::replace("n", stored.version, next.to_string()))
        }
    };
    store.commit(TABLE, place, vec![write]).await.map(|_| next)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_that_replace_one_version_exactly_one_wins() {
    let Some(server) = super::server() else { return };
    let _whole = server.whole().await;
    let stores = [server.store().await, server.store().await, server.store().await];
    let place = Uid::random().to_bytes();
    let mut version = stores[0].commit(TABLE, &place, vec![Write::put("k", "start")]).await.unwrap()[0];
    for _ in 0..10 {
        let attempts = stores.iter().map(|store| {
            store.commit(TABLE, &place, vec![Write::replace("k", version, Uid::random().to_string())])
        });
        let outcomes = join_all(attempts).await;
        let won: Vec<u64> = outcomes.iter().filter_map(|outcome| Some(outcome.as_ref().ok()?[0])).collect();
        for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert!(matches!(error.kind(), ErrorKind::Aborted | ErrorKind::Unavailable), "{error:?}");
        }
        let stored = stores[1].get(TABLE, &place, b"k").await.unwrap().unwrap();
        assert!(won.len() <= 1 && won.iter().all(|won| *won == stored.version), "{outcomes:?}");
        assert_ne!(stored.version, version, "nobody won");
        version = stored.version;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_node_of_three_away_all_goes_on() {
    let Some(server) = super::server() else { return };
    let Some((_alone, cluster)) = server.alone().await else { return };
    let store = server.store().await;
    let place = Uid::random().to_bytes();
    let mut telemetry = Telemetry::new();
    let mut counted = count(&store, &place).await.unwrap();
    telemetry.write(&store, 50).await.unwrap();
    store.sync().await.unwrap();
    for node in 0..3 {
        harm(cluster, move |cluster| cluster.kill(node)).await;
        for _ in 0..10 {
            // What was under way at the dead node may be told as not known; nothing else may.
            counted =
                until("a counter goes on", async || count(&store, &place).await.ok()).await.max(counted);
            telemetry.write(&store, 20).await.unwrap();
        }
        let gone = store.sync().await.unwrap_err();
        assert_eq!(gone.reason(), "STORE_NODE_RESTARTED");
        store.sync().await.unwrap();
        telemetry.check(&store).await;
        harm(cluster, move |cluster| cluster.restart(node)).await.unwrap();
        let losses = store.losses();
        until("the node is seen again", async || {
            let _ = store.sync().await;
            (store.losses() > losses).then_some(())
        })
        .await;
        store.sync().await.unwrap();
    }
    let found = store.get(TABLE, &place, b"n").await.unwrap().unwrap();
    assert_eq!(found.value, counted.to_string());
    telemetry.check(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_two_nodes_of_three_away_it_is_told_and_nothing_is_lost() {
    let Some(server) = super::server() else { return };
    let Some((_alone, cluster)) = server.alone().await else { return };
    let store = server.store().await;
    let place = Uid::random().to_bytes();
    let mut telemetry = Telemetry::new();
    telemetry.write(&store, 100).await.unwrap();
    let version = store.commit(TABLE, &place, vec![Write::put("k", "kept")]).await.unwrap()[0];
    for node in [1, 2] {
        harm(cluster, move |cluster| cluster.kill(node)).await;
    }
    let mut refused = async || {
        let commit = store.commit(TABLE, &place, vec![Write::replace("k", version, "away")]).await;
        let write = telemetry.write(&store, 10).await;
        (commit.unwrap_err().kind(), write.unwrap_err().kind())
    };
    assert_eq!(refused().await, (ErrorKind::Unavailable, ErrorKind::Unavailable));
    let read = store.get(TABLE, &place, b"k").await.unwrap_err();
    assert_eq!(read.kind(), ErrorKind::Unavailable);
    for node in [1, 2] {
        harm(cluster, move |cluster| cluster.restart(node)).await.unwrap();
    }
    let stored = until("records are read again", async || store.get(TABLE, &place, b"k").await.ok()).await;
    let stored = stored.unwrap();
    assert!(stored.value == "kept" || stored.value == "away", "{stored:?}");
    until("commits go on", async || store.commit(TABLE, &place, vec![Write::put("k", "after")]).await.ok())
        .await;
    until("rows are written again", async || telemetry.write(&store, 10).await.ok()).await;
    telemetry.check(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_paused_holds_nobody_up_for_good() {
    let Some(server) = super::server() else { return };
    let Some((_alone, cluster)) = server.alone().await else { return };
    let config = Config { request_timeout: Duration::from_secs(3), ..server.config("weir_tests") };
    drop(server.store().await);
    let store: Arc<ScyllaStore> = ScyllaStore::connect(&config, Durability::Process).await.unwrap();
    let place = Uid::random().to_bytes();
    let mut telemetry = Telemetry::new();
    telemetry.write(&store, 10).await.unwrap();
    harm(cluster, |cluster| cluster.pause(1)).await;
    let paused = Resume(cluster);
    let mut counted = 0;
    for _ in 0..5 {
        counted = until("a counter goes on", async || count(&store, &place).await.ok()).await;
        telemetry.write(&store, 10).await.unwrap();
    }
    drop(paused);
    until("the node answers again", async || {
        let _ = store.sync().await;
        store.sync().await.ok()
    })
    .await;
    let found = store.get(TABLE, &place, b"n").await.unwrap().unwrap();
    assert_eq!(found.value, counted.to_string());
    telemetry.check(&store).await;
}
