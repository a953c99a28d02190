//! What an acknowledgement means, and a node that restarts.

use scylla::client::{session::Session, session_builder::SessionBuilder};
use weir_core::{
    ErrorKind, TenantId, Timestamp, Uid,
    port::{
        BucketId, BucketRow, Records as _, SeriesKey, Table, TelemetryBatch, TelemetryStore as _, Width,
        Write,
    },
};
use weir_store_scylla::{Durability, ScyllaStore, migrate};
use weir_test_servers::cql::{Cluster, CommitLog};

use super::support::{harm, until};

/// What a power cut may take from the list of a node's partitions, where its commit log is written in periods.
async fn lose_names(store: &ScyllaStore, session: &Session, place: &[u8], series: &SeriesKey) {
    let rows = session.query_unpaged("SELECT tbl, shard, part FROM weir_tests.record_partitions", ()).await;
    let rows = rows.unwrap().into_rows_result().unwrap();
    let (table, shard, part) = rows
        .rows::<(String, i8, Vec<u8>)>()
        .unwrap()
        .map(Result::unwrap)
        .find(|(table, _, part)| table == TABLE.0 && part == place)
        .expect("the partition is listed");
    let lose = "DELETE FROM weir_tests.record_partitions WHERE tbl = ? AND shard = ? AND part = ?";
    session.query_unpaged(lose, (table, shard, part)).await.unwrap();
    let lose = "DELETE FROM weir_tests.bucket_periods WHERE tenant = ? AND uid = ?";
    session.query_unpaged(lose, (series.tenant.as_str(), &series.uid.to_bytes()[..])).await.unwrap();
    assert!(!is_listed(store, place).await && buckets(store, series).await == 0, "nothing was lost");
}

async fn is_listed(store: &ScyllaStore, place: &[u8]) -> bool {
    store.partitions(TABLE, None, 10_000).await.unwrap().iter().any(|name| name == place)
}

async fn buckets(store: &ScyllaStore, series: &SeriesKey) -> usize {
    store.buckets(series, Timestamp::MIN, Timestamp::MAX, None, 9).await.unwrap().len()
}

const TABLE: Table = Table("durability");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_is_refused_where_the_commit_log_is_written_in_periods() {
    let Some(server) = super::server() else { return };
    let _whole = server.whole().await;
    let store = server.store().await;
    if !store.detail().contains("periodic") {
        eprintln!("SKIPPED: the given server does not write its commit log in periods");
        return;
    }
    let outcome = ScyllaStore::connect(&server.config("weir_tests"), Durability::PowerLoss).await;
    let error = outcome.err().unwrap();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::FailedPrecondition, "STORE_NOT_DURABLE"));
    for part in [&server.hosts[0], "commitlog_sync = periodic", "batch", "durability = \"process\""] {
        assert!(error.message().contains(part), "{part} is missing: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_is_accepted_where_each_write_waits_for_the_disk() {
    let Some(server) = super::server() else { return };
    let start = || Cluster::start(1, CommitLog::Batch, None);
    let batch = tokio::task::spawn_blocking(start).await.unwrap();
    let Some(batch) = weir_test_servers::or_skip("Cassandra", batch) else { return };
    let config = weir_store_scylla::Config { hosts: batch.hosts(), ..server.config("weir_tests") };
    migrate::run(&config, |_| {}).await.unwrap();
    let store = ScyllaStore::connect(&config, Durability::PowerLoss).await.unwrap();
    store.commit(TABLE, b"p", vec![Write::put("k", "v")]).await.unwrap();
    store.sync().await.unwrap();
    assert!(store.detail().contains("commit log batch"), "{}", store.detail());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_a_node_fails_the_next_sync_once_and_loses_nothing_recorded() {
    let Some(server) = super::server() else { return };
    let Some((_alone, cluster)) = server.alone().await else { return };
    let store = server.store().await;
    let place = Uid::random().to_bytes();
    store.commit(TABLE, &place, vec![Write::put("k", "before")]).await.unwrap();
    store.sync().await.unwrap();
    assert_eq!(store.losses(), 0);

    harm(cluster, |cluster| cluster.kill(0)).await;
    for outcome in [
        store.get(TABLE, &place, b"k").await.map(drop),
        store.commit(TABLE, &place, vec![Write::put("k", "lost")]).await.map(drop),
        store.write(Default::default()).await.map(drop).and(store.partitions(TABLE, None, 1).await.map(drop)),
    ] {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    harm(cluster, |cluster| cluster.restart(0)).await.unwrap();
    let back = async || store.get(TABLE, &place, b"k").await.ok().flatten();
    assert_eq!(until("the node answers again", back).await.value, "before");

    let error = store.sync().await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Unavailable, "STORE_NODE_RESTARTED"));
    assert_eq!(store.losses(), 1);
    store.sync().await.unwrap();
    store.sync().await.unwrap();
    store.commit(TABLE, &place, vec![Write::put("k", "after")]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_a_restarted_node_may_have_lost_are_written_again() {
    let Some(server) = super::server() else { return };
    let Some((_alone, cluster)) = server.alone().await else { return };
    let store = server.store().await;
    let place = Uid::random().to_bytes();
    let series = SeriesKey { tenant: TenantId::new("tenant").unwrap(), uid: Uid::random() };
    let bucket = BucketRow {
        series: series.clone(),
        bucket: BucketId::containing(Timestamp::from_micros(1_424_044_800_000_000), Width::Day),
        bytes: 1,
        seal_generation: 0,
        sealed_through: None,
    };
    let write = async || {
        let batch = TelemetryBatch { buckets: vec![bucket.clone()], ..TelemetryBatch::default() };
        store.write(batch).await?;
        store.commit(TABLE, &place, vec![Write::put("k", "v")]).await.map(drop)
    };
    write().await.unwrap();
    store.sync().await.unwrap();
    assert!(is_listed(&store, &place).await && buckets(&store, &series).await == 1);

    let session = SessionBuilder::new().known_nodes(&server.hosts).build().await.unwrap();
    lose_names(&store, &session, &place, &series).await;
    harm(cluster, |cluster| cluster.kill(0)).await;
    harm(cluster, |cluster| cluster.restart(0)).await.unwrap();
    // Whoever had written tells by a sync whether it must be written again.
    let told = async || store.sync().await.err().filter(|error| error.reason() == "STORE_NODE_RESTARTED");
    until("a sync tells of the restart", told).await;
    until("it is written again", async || write().await.ok()).await;
    assert!(is_listed(&store, &place).await, "a partition that holds records is listed");
    assert_eq!(buckets(&store, &series).await, 1, "a bucket is found");
}
