//! Commands down, answers up.

use mqtt_protocol_core::mqtt::packet::{MaximumPacketSize, Qos};
use weir_core::{
    Uid,
    command::{DeviceKey, State},
};

use crate::{
    client::Hello,
    edge::{Edge, eventually},
};

async fn reaches(edge: &Edge, to: &DeviceKey, id: Uid, state: State) {
    eventually(&format!("the command is {}", state.as_str()), || async {
        edge.queue.get(to, id).state == state
    })
    .await;
}

#[tokio::test]
async fn a_command_is_delivered_by_its_puback_and_ended_by_its_answer() {
    for version in [4, 5] {
        let edge = Edge::start().await;
        let sensor = edge.people.add("acme", "sensor", false);
        let mut client = edge.connect(version, "sensor").await;
        client.subscribe(&[("v1/commands/#", Qos::AtLeastOnce)]).await;
        let id = edge.command(&sensor, "ventilate").await;
        let arrived = client.arrived().await;
        assert_eq!(arrived.topic, format!("v1/commands/request/{id}/ventilate"));
        assert_eq!((arrived.payload.as_str(), arrived.qos, arrived.dup), (r#"{"level":3}"#, 1, false));
        assert_eq!(edge.queue.get(&sensor, id).state, State::Sent);
        client.puback(&arrived).await;
        reaches(&edge, &sensor, id, State::Delivered).await;
        client.publish(&format!("v1/commands/response/{id}"), r#"{"rpm":900}"#).await;
        let command = edge.queue.get(&sensor, id);
        assert_eq!(command.state, State::Succeeded);
        assert_eq!(command.answer.unwrap().payload, r#"{"rpm":900}"#);
    }
}

#[tokio::test]
async fn commands_leave_one_after_the_other_each_when_the_one_before_is_delivered() {
    let edge = Edge::start().await;
    let sensor = edge.people.add("acme", "sensor", false);
    let ids = ["one", "two", "three"].map(|name| edge.queue.send(&sensor, name, "{}"));
    let mut client = edge.connect(5, "sensor").await;
    client.subscribe(&[("#", Qos::AtLeastOnce)]).await;
    for id in ids {
        let arrived = client.arrived().await;
        assert_eq!(arrived.command(), id);
        client.ping().await; // nothing else leaves before its PUBACK
        client.puback(&arrived).await;
    }
    reaches(&edge, &sensor, ids[2], State::Delivered).await;
}

#[tokio::test]
async fn an_unacknowledged_command_is_sent_again_to_the_next_connection() {
    let edge = Edge::start().await;
    let sensor = edge.people.add("acme", "sensor", false);
    let id = edge.queue.send(&sensor, "reboot", "{}");
    let mut client = edge.connect(4, "sensor").await;
    client.subscribe(&[("#", Qos::AtLeastOnce)]).await;
    assert!(!client.arrived().await.dup);
    drop(client);
    let mut client = edge.connect(4, "sensor").await;
    client.subscribe(&[("#", Qos::AtLeastOnce)]).await;
    let arrived = client.arrived().await;
    assert_eq!((arrived.command(), arrived.dup), (id, true));
    client.puback(&arrived).await;
    reaches(&edge, &sensor, id, State::Delivered).await;
}

#[tokio::test]
async fn commands_go_to_the_newest_subscriber_and_back_when_it_is_gone() {
    let edge = Edge::start().await;
    let sensor = edge.people.add("acme", "sensor", false);
    let named = |client_id: &str| Hello { client_id: client_id.to_owned(), ..Hello::of("sensor") };
    let mut older = edge.connect_as(5, named("older")).await;
    older.subscribe(&[("#", Qos::AtLeastOnce)]).await;
    let mut newer = edge.connect_as(5, named("newer")).await;
    newer.subscribe(&[("#", Qos::AtLeastOnce)]).await;
    let first = edge.command(&sensor, "one").await;
    let arrived = newer.arrived().await;
    assert_eq!(arrived.command(), first);
    newer.puback(&arrived).await;
    reaches(&edge, &sensor, first, State::Delivered).await;
    older.ping().await; // it heard nothing
    newer.leave().await;
    let second = edge.command(&sensor, "two").await;
    assert_eq!(older.arrived().await.command(), second);
}

#[tokio::test]
async fn when_the_newest_subscriber_unsubscribes_commands_go_to_the_one_before() {
    let edge = Edge::start().await;
    let sensor = edge.people.add("acme", "sensor", false);
    let named = |client_id: &str| Hello { client_id: client_id.to_owned(), ..Hello::of("sensor") };
    let mut older = edge.connect_as(5, named("older")).await;
    older.subscribe(&[("#", Qos::AtLeastOnce)]).await;
    let mut newer = edge.connect_as(5, named("newer")).await;
    for round in ["one", "two"] {
        newer.subscribe(&[("#", Qos::AtLeastOnce)]).await;
        let id = edge.command(&sensor, round).await;
        let arrived = newer.arrived().await;
        assert_eq!(arrived.command(), id);
        newer.puback(&arrived).await;
        reaches(&edge, &sensor, id, State::Delivered).await;
        assert_eq!(newer.unsubscribe("#").await, [0]);
        let id = edge.command(&sensor, round).await;
        let arrived = older.arrived().await;
        assert_eq!(arrived.command(), id);
        older.puback(&arrived).await;
        reaches(&edge, &sensor, id, State::Delivered).await;
    }
    newer.ping().await; // it heard nothing more
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_fails_its_command_and_blocks_nothing() {
    let edge = Edge::start().await;
    let sensor = edge.people.add("acme", "sensor", false);
    let ids = ["one", "two"].map(|name| edge.queue.send(&sensor, name, "{}"));
    let mut client = edge.connect(5, "sensor").await;
    client.subscribe(&[("#", Qos::AtMostOnce)]).await;
    let arrived = client.arrived().await;
    assert_eq!((arrived.command(), arrived.qos), (ids[0], 0));
    let id = client.start(&format!("v1/commands/response/{}", ids[0]), b"{", Qos::AtLeastOnce).await;
    let said = client.said().await;
    assert_eq!((said.id, said.codes), (id, vec![0x99]));
    assert_eq!(client.arrived().await.command(), ids[1]);
    let failed = edge.queue.get(&sensor, ids[0]);
    assert_eq!(failed.state, State::Failed);
    assert!(failed.answer.unwrap().error.contains("makes no sense"));
    let unknown = client.publish(&format!("v1/commands/response/{}", Uid::random()), "{}").await;
    assert_eq!(unknown.codes, [0x90]);
}

#[tokio::test]
async fn a_command_that_the_client_cannot_take_fails_and_the_next_one_leaves() {
    let edge = Edge::start().await;
    let sensor = edge.people.add("acme", "sensor", false);
    let large = edge.queue.send(&sensor, "large", &format!("{:?}", "x".repeat(500)));
    let small = edge.queue.send(&sensor, "small", "{}");
    let properties = vec![MaximumPacketSize::new(300).unwrap().into()];
    let mut client = edge.connect_as(5, Hello { properties, ..Hello::of("sensor") }).await;
    client.subscribe(&[("#", Qos::AtLeastOnce)]).await;
    assert_eq!(client.arrived().await.command(), small);
    let failed = edge.queue.get(&sensor, large);
    assert_eq!(failed.state, State::Failed);
    assert!(failed.answer.unwrap().error.contains("300"));
}

#[tokio::test]
async fn a_wildcard_means_the_children_that_a_gateway_spoke_for_before_it_too() {
    for filter in ["#", "v1/#", "v1/children/#", "v1/children/+/commands/request/+/+"] {
        let edge = Edge::start().await;
        edge.people.add("acme", "gateway", true);
        let pump = edge.people.add("acme", "pump", false);
        let mut client = edge.connect(5, "gateway").await;
        assert_eq!(client.publish("v1/children/pump/telemetry", r#"{"rpm":900}"#).await.codes, [0]);
        client.subscribe(&[(filter, Qos::AtLeastOnce)]).await;
        let id = edge.command(&pump, "stop").await;
        assert_eq!(client.arrived().await.command(), id);
    }
}

#[tokio::test]
async fn a_gateway_gets_and_answers_its_childrens_commands() {
    let edge = Edge::start().await;
    edge.people.add("acme", "gateway", true);
    let [pump, valve] = ["pump", "valve"].map(|id| edge.people.add("acme", id, false));
    let mut client = edge.connect(5, "gateway").await;
    let named = ("v1/children/valve/commands/#", Qos::AtLeastOnce);
    let nobody = ("v1/children/nobody/commands/#", Qos::AtLeastOnce);
    assert_eq!(client.subscribe(&[("v1/children/#", Qos::AtLeastOnce), named, nobody]).await, [1, 1, 0x87]);
    let valves = edge.command(&valve, "close").await;
    let arrived = client.arrived().await;
    assert_eq!(arrived.topic, format!("v1/children/valve/commands/request/{valves}/close"));
    client.puback(&arrived).await;
    reaches(&edge, &valve, valves, State::Delivered).await;

    let pumps = edge.command(&pump, "stop").await;
    assert_eq!(client.publish("v1/children/pump/telemetry", r#"{"rpm":900}"#).await.codes, [0]);
    let arrived = client.arrived().await;
    assert_eq!(arrived.command(), pumps, "it is heard of once the gateway has spoken for it");
    client.puback(&arrived).await;
    reaches(&edge, &pump, pumps, State::Delivered).await;
    let said = client
        .publish(&format!("v1/children/pump/commands/response/{pumps}"), r#"{"ok":false,"error":"jammed"}"#)
        .await;
    assert_eq!(said.codes, [0]);
    let failed = edge.queue.get(&pump, pumps);
    assert_eq!((failed.state, failed.answer.unwrap().error.as_str()), (State::Failed, "jammed"));
}
