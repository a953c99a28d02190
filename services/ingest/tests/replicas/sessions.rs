//! One device, several replicas.

use mqtt_protocol_core::mqtt::packet::Qos;

use crate::edge::{Cluster, eventually};

const TAKEN_OVER: u8 = 0x8e;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_connects_elsewhere_takes_its_session_over_wherever_the_old_connection_is() {
    let cluster = Cluster::start().await;
    let (one, two) = (cluster.replica().await, cluster.replica().await);
    cluster.people.add("acme", "sensor", false);
    let mut old = one.connect("sensor", "a").await;
    let mut new = two.connect("sensor", "a").await;
    assert_eq!(old.told_to_go().await.codes, [TAKEN_OVER]);
    old.closed().await;
    new.ping().await;
    for replica in [&one, &two] {
        eventually("it is online once", || async { replica.online("sensor").await == ["a"] }).await;
        assert_eq!(replica.presence("sensor").await.sessions.len(), 1);
    }
    let mut back = one.connect("sensor", "a").await;
    assert_eq!(new.told_to_go().await.codes, [TAKEN_OVER]);
    back.ping().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fifth_session_ends_the_oldest_at_whichever_replica_it_is() {
    let cluster = Cluster::start().await;
    let (one, two) = (cluster.replica().await, cluster.replica().await);
    cluster.people.add("acme", "sensor", false);
    let mut oldest = one.connect("sensor", "a").await;
    let mut others = Vec::new();
    for client in ["b", "c", "d", "e"] {
        others.push(two.connect("sensor", client).await);
    }
    assert_eq!(oldest.told_to_go().await.codes, [TAKEN_OVER]);
    oldest.closed().await;
    for replica in [&one, &two] {
        eventually("four are online", || async { replica.online("sensor").await == ["b", "c", "d", "e"] })
            .await;
    }
    for client in &mut others {
        client.ping().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_held_is_offline_once_it_is_dead_and_online_where_it_came_back_meanwhile() {
    let cluster = Cluster::start().await;
    let (one, two) = (cluster.replica().await, cluster.replica().await);
    cluster.people.add("acme", "stays", false);
    cluster.people.add("acme", "moves", false);
    let _stays = two.connect("stays", "a").await;
    let mut moves = two.connect("moves", "a").await;
    moves.subscribe(&[("#", Qos::AtLeastOnce)]).await;
    for device in ["stays", "moves"] {
        eventually("the other sees it", || async { one.online(device).await == ["a"] }).await;
    }
    let mut moved = one.connect("moves", "a").await;
    two.kill();
    eventually("it is offline", || async { one.online("stays").await.is_empty() }).await;
    let presence = one.presence("moves").await;
    assert!(presence.connected);
    assert_eq!(presence.sessions[0].subscriptions, ["#"], "its session came with it");
    moved.ping().await;
    let three = cluster.replica().await;
    assert_eq!((three.online("stays").await.len(), three.online("moves").await.len()), (0, 1));
}
