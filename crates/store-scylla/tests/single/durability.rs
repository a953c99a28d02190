//! What an acknowledgement means, and a node that restarts.

use weir_core::{
    ErrorKind, Uid,
    port::{Records as _, Table, TelemetryStore as _, Write},
};
use weir_store_scylla::{Durability, ScyllaStore, migrate};
use weir_test_servers::cql::{Cluster, CommitLog};

use super::support::{harm, until};

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
