//! Commands that reach their device wherever it is.

use mqtt_protocol_core::mqtt::packet::Qos;
use weir_core::{
    Uid,
    command::DeviceKey,
    port::{CommandQueue, Session},
};
use weir_proto::commands::v1::CommandState;

use crate::{
    client::Client,
    edge::{Cluster, PATIENCE, Replica, eventually},
};

const ALL: [(&str, Qos); 1] = [("#", Qos::AtLeastOnce)];

/// A client that takes the commands of `sensor`.
async fn taker(replica: &Replica, client_id: &str) -> Client {
    let mut client = replica.connect("sensor", client_id).await;
    client.subscribe(&ALL).await;
    client
}

/// Sends a command, which this client gets and acknowledges.
async fn reaches(cluster: &Cluster, sensor: &DeviceKey, name: &str, client: &mut Client) {
    let id = cluster.send(sensor, name).await;
    let arrived = client.arrived().await;
    assert_eq!(arrived.command(), id, "{name}");
    client.puback(&arrived).await;
    cluster.delivered(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_reaches_its_device_at_each_replica() {
    let cluster = Cluster::start().await;
    let (one, two) = (cluster.replica().await, cluster.replica().await);
    let sensor = cluster.people.add("acme", "sensor", false);
    for replica in [&one, &two, &one] {
        let mut client = taker(replica, "a").await;
        reaches(&cluster, &sensor, "ventilate", &mut client).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_moves_gets_the_oldest_command_that_it_has_not_acknowledged() {
    let cluster = Cluster::start().await;
    let (one, two) = (cluster.replica().await, cluster.replica().await);
    let sensor = cluster.people.add("acme", "sensor", false);
    let mut before = taker(&one, "a").await;
    let (first, second) = (cluster.send(&sensor, "one").await, cluster.send(&sensor, "two").await);
    assert_eq!(before.arrived().await.command(), first);
    let mut after = two.connect("sensor", "a").await; // its session is resumed with what it subscribed to
    let again = after.arrived().await;
    assert_eq!((again.command(), again.dup), (first, true));
    after.puback(&again).await;
    let next = after.arrived().await;
    assert_eq!((next.command(), next.dup), (second, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_counts_though_the_client_leaves_at_once() {
    let cluster = Cluster::start().await;
    let one = cluster.replica().await;
    let sensor = cluster.people.add("acme", "sensor", false);
    for _ in 0..10 {
        let mut client = taker(&one, "a").await;
        let id = cluster.send(&sensor, "ventilate").await;
        let arrived = client.arrived().await;
        assert_eq!(arrived.command(), id);
        client.puback(&arrived).await;
        client.leave().await;
        cluster.delivered(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_go_to_the_newest_session_at_whichever_replica_and_back_when_it_leaves() {
    let cluster = Cluster::start().await;
    let (one, two) = (cluster.replica().await, cluster.replica().await);
    let sensor = cluster.people.add("acme", "sensor", false);
    let mut oldest = taker(&one, "oldest").await;
    let mut older = taker(&two, "older").await;
    let mut newest = taker(&one, "newest").await;
    reaches(&cluster, &sensor, "one", &mut newest).await;
    newest.leave().await;
    reaches(&cluster, &sensor, "two", &mut older).await;
    older.leave().await;
    reaches(&cluster, &sensor, "three", &mut oldest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_newest_session_unsubscribes_the_next_one_at_the_other_replica_has_the_commands() {
    let cluster = Cluster::start().await;
    let (one, two) = (cluster.replica().await, cluster.replica().await);
    let sensor = cluster.people.add("acme", "sensor", false);
    let mut older = taker(&one, "older").await;
    let mut newer = taker(&two, "newer").await;
    reaches(&cluster, &sensor, "one", &mut newer).await;
    assert_eq!(newer.unsubscribe("#").await, [0]);
    reaches(&cluster, &sensor, "two", &mut older).await;
    newer.ping().await; // it heard nothing more
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_session_that_has_no_commands_takes_them_from_nobody() {
    let cluster = Cluster::start().await;
    let (one, two) = (cluster.replica().await, cluster.replica().await);
    let sensor = cluster.people.add("acme", "sensor", false);
    let mut oldest = taker(&one, "oldest").await;
    let older = taker(&one, "older").await;
    let mut newest = taker(&two, "newest").await;
    reaches(&cluster, &sensor, "one", &mut newest).await;
    older.leave().await;
    eventually("it is offline", || async { !two.online("sensor").await.contains(&"older".to_owned()) }).await;
    reaches(&cluster, &sensor, "two", &mut newest).await;
    oldest.ping().await; // it heard nothing
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_replica_dies_with_the_newest_session_the_next_one_takes_the_commands() {
    let cluster = Cluster::start().await;
    let (one, two, three) = (cluster.replica().await, cluster.replica().await, cluster.replica().await);
    let sensor = cluster.people.add("acme", "sensor", false);
    let mut oldest = taker(&one, "oldest").await;
    let mut older = taker(&two, "older").await;
    let mut newest = taker(&three, "newest").await;
    reaches(&cluster, &sensor, "one", &mut newest).await;
    three.kill();
    for replica in [&one, &two] {
        let left = ["older", "oldest"];
        eventually("its death is seen", || async { replica.online("sensor").await == left }).await;
    }
    reaches(&cluster, &sensor, "two", &mut older).await;
    oldest.ping().await; // it heard nothing
    older.leave().await;
    reaches(&cluster, &sensor, "three", &mut oldest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_takes_back_its_place_from_one_that_is_gone_without_a_word() {
    let cluster = Cluster::start().await;
    let one = cluster.replica().await;
    let sensor = cluster.people.add("acme", "sensor", false);
    let (mut older, mut newest) = (taker(&one, "older").await, taker(&one, "newest").await);
    reaches(&cluster, &sensor, "one", &mut newest).await;
    // As an attach that was given up, and came late; or as a session whose end could not be told.
    cluster.commands.attach(&sensor, Session(Uid::random())).await.unwrap();
    let id = cluster.send(&sensor, "two").await;
    cluster.reaches(id, CommandState::Sent, 3 * PATIENCE).await; // it looks at least each 26 s
    assert_eq!(newest.arrived().await.command(), id);
    older.ping().await; // it heard nothing
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_at_one_replica_has_the_commands_while_it_lasts_then_the_session_at_the_other() {
    let cluster = Cluster::start().await;
    let (one, two) = (cluster.replica().await, cluster.replica().await);
    let sensor = cluster.people.add("acme", "sensor", false);
    let mut client = taker(&one, "a").await;
    reaches(&cluster, &sensor, "one", &mut client).await;
    assert!(two.poll("sensor", "").await.is_empty());
    reaches(&cluster, &sensor, "two", &mut client).await;

    // What is polled at one replica may be acknowledged and answered at the other.
    client.leave().await;
    let id = cluster.send(&sensor, "three").await.to_string();
    assert_eq!(two.poll("sensor", "?wait=20s").await, std::slice::from_ref(&id));
    one.post("sensor", &format!("/v1/commands/{id}/ack")).await;
    cluster.delivered(id.parse().unwrap()).await;
    let mut client = taker(&one, "a").await;
    reaches(&cluster, &sensor, "four", &mut client).await;
}
