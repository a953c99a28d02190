//! What may be subscribed to.

use mqtt_protocol_core::mqtt::packet::Qos;

use crate::edge::Edge;

#[tokio::test]
async fn filters_are_granted_up_to_qos_1_or_refused_one_by_one() {
    let edge = Edge::start().await;
    edge.people.add("acme", "sensor", false);
    let filters = [
        ("#", Qos::ExactlyOnce),
        ("v1/#", Qos::AtLeastOnce),
        ("v1/commands/request/+/+", Qos::AtMostOnce),
        ("v1/telemetry", Qos::AtLeastOnce),
        ("v1/children/+/commands/#", Qos::AtLeastOnce),
        ("$share/group/v1/commands/#", Qos::AtLeastOnce),
    ];
    let mut newer = edge.connect(5, "sensor").await;
    assert_eq!(newer.subscribe(&filters).await, [1, 1, 0, 0x87, 0x87, 0x9e]);
    assert_eq!(newer.unsubscribe("v1/#").await, [0]);
    assert_eq!(newer.unsubscribe("v1/#").await, [0x11]);
    newer.leave().await;
    let mut older = edge.connect(4, "sensor").await;
    assert_eq!(older.subscribe(&filters).await, [1, 1, 0, 0x80, 0x80, 0x80]);
}

#[tokio::test]
async fn nobody_hears_what_anybody_publishes() {
    let edge = Edge::start().await;
    edge.people.add("acme", "sensor", false);
    edge.people.add("acme", "other", false);
    let mut listener = edge.connect(5, "other").await;
    listener.subscribe(&[("#", Qos::AtLeastOnce)]).await;
    let mut client = edge.connect(5, "sensor").await;
    client.subscribe(&[("#", Qos::AtLeastOnce)]).await;
    assert_eq!(client.publish("v1/telemetry", r#"{"a":1}"#).await.codes, [0], "and no echo before it");
    client.ping().await;
    listener.ping().await;
}
