//! Publications: acknowledged when the log has them, refused with words where MQTT has words.

use std::time::Duration;

use mqtt_protocol_core::mqtt::packet::{ContentType, Qos, TopicAlias, UserProperty};
use weir_core::{Position, Value};

use crate::{
    client::{Hello, no_problem_information},
    edge::{Edge, eventually},
    ports::Gate,
};

const READING: &str = r#"{"ts":1424044800000,"values":{"temp":21.5,"on":true}}"#;

#[tokio::test]
async fn an_acknowledged_reading_is_in_the_log_with_its_position() {
    let edge = Edge::start().await;
    let sensor = edge.people.add("acme", "sensor", false);
    let mut client = edge.connect(5, "sensor").await;
    let said = client.publish("v1/telemetry", READING).await;
    assert_eq!(said.codes, [0]);
    let position: Position = said.position.expect("the user property pos").parse().unwrap();
    assert!(position.sequence > 0);
    let messages = edge.messages().await;
    let [message] = messages.as_slice() else { panic!("one message, not {messages:?}") };
    assert_eq!((message.uid, message.readings[0].ts.as_micros()), (sensor.uid, 1_424_044_800_000_000));
    assert_eq!(message.readings[0].values[0], ("temp".into(), Value::Double(21.5)));
}

#[tokio::test]
async fn no_puback_leaves_before_the_log_has_the_reading() {
    for version in [4, 5] {
        let edge = Edge::start().await;
        edge.people.add("acme", "sensor", false);
        let mut client = edge.connect(version, "sensor").await;
        edge.gate.send_replace(Gate::Closed);
        let first = client.start("v1/telemetry", READING.as_bytes(), Qos::AtLeastOnce).await;
        let second = client.start("v1/telemetry", READING.as_bytes(), Qos::AtLeastOnce).await;
        client.ping().await; // an answer to what came later, and no acknowledgement before it
        edge.gate.send_replace(Gate::Open);
        assert_eq!(client.said().await.id, first);
        assert_eq!(client.said().await.id, second);
    }
}

#[tokio::test]
async fn acknowledgements_come_in_the_order_of_the_publications() {
    let edge = Edge::start().await;
    edge.people.add("acme", "gateway", true);
    for child in 0..8 {
        edge.people.add("acme", &format!("child-{child}"), false);
    }
    let mut client = edge.connect(5, "gateway").await;
    let mut expected = Vec::new();
    for n in 0..200 {
        let topic = format!("v1/children/child-{}/telemetry", n % 8);
        let payload = if n % 7 == 3 { "no reading" } else { READING };
        expected.push(client.start(&topic, payload.as_bytes(), Qos::AtLeastOnce).await);
    }
    for id in expected {
        assert_eq!(client.said().await.id, id);
    }
}

#[tokio::test]
async fn a_bad_payload_is_refused_with_words_over_mqtt_5_and_the_connection_stays() {
    let edge = Edge::start_with(|config| config.limits.readings_per_message = 3).await;
    edge.people.add("acme", "sensor", false);
    let mut client = edge.connect(5, "sensor").await;
    let said = client.publish("v1/telemetry", "no reading").await;
    assert_eq!((said.codes, said.position), (vec![0x99], None));
    let said = client.publish("v1/telemetry", r#"[{"a":1},{"a":1},{"a":1},{"a":1}]"#).await;
    assert_eq!(said.codes, [0x99]);
    assert!(said.reason.contains('3'), "the limit's number is in {:?}", said.reason);
    let said = client.publish("v1/telemetry", r#"[{"a":1},{"values":{"b":[1]}}]"#).await;
    assert!(said.reason.starts_with("[1].values.b: a value must not be an array"), "{:?}", said.reason);
    assert_eq!((said.field.as_str(), said.limit.as_str()), ("[1].values.b", ""));
    let said = client.publish("v1/telemetry", r#"{"a":9007199254740993}"#).await;
    assert_eq!((said.field.as_str(), said.limit.as_str()), ("a", "9007199254740992"));
    let said = client.publish("v1/temperature", READING).await;
    assert_eq!(said.codes, [0x90]);
    assert!(said.reason.contains("v1/telemetry"), "{:?}", said.reason);
    let said = client.publish("v1/children/sensor/telemetry", READING).await;
    assert_eq!(said.codes, [0x87]);
    assert_eq!(client.publish("v1/telemetry", READING).await.codes, [0]);
    assert_eq!(edge.messages().await.len(), 1);
}

#[tokio::test]
async fn a_client_that_wants_no_problem_information_gets_bare_codes() {
    let edge = Edge::start().await;
    edge.people.add("acme", "sensor", false);
    let hello = Hello { properties: vec![no_problem_information()], ..Hello::of("sensor") };
    let mut client = edge.connect_as(5, hello).await;
    let said = client.publish("v1/telemetry", "no reading").await;
    assert_eq!((said.codes, said.reason.as_str()), (vec![0x99], ""));
    assert_eq!(client.publish("v1/telemetry", READING).await.position, None);
}

#[tokio::test]
async fn over_3_1_1_what_is_refused_is_counted_acknowledged_and_the_connection_stays() {
    let edge = Edge::start().await;
    edge.people.add("acme", "sensor", false);
    let mut client = edge.connect(4, "sensor").await;
    for (topic, payload) in
        [("v1/telemetry", "no"), ("v1/nothing", READING), ("v1/children/x/telemetry", READING)]
    {
        client.publish(topic, payload).await;
    }
    client.publish("v1/telemetry", READING).await;
    assert_eq!(edge.messages().await.len(), 1);
    assert!((edge.metric("weir_ingest_refused_total") - 3.0).abs() < 0.5);
}

#[tokio::test]
async fn a_full_log_is_never_an_acknowledgement() {
    let edge = Edge::start().await;
    edge.people.add("acme", "sensor", false);
    edge.gate.send_replace(Gate::Full);
    let mut newer = edge.connect(5, "sensor").await;
    let said = newer.publish("v1/telemetry", READING).await;
    assert_eq!(said.codes, [0x97]);
    assert!(said.reason.contains("full"), "{:?}", said.reason);
    let hello = Hello { client_id: "older".to_owned(), ..Hello::of("sensor") };
    let mut older = edge.connect_as(4, hello).await;
    older.start("v1/telemetry", READING.as_bytes(), Qos::AtLeastOnce).await;
    assert_eq!(older.next().await, None, "closed, not acknowledged");
    edge.gate.send_replace(Gate::Open);
    assert_eq!(newer.publish("v1/telemetry", READING).await.codes, [0], "it recovers when there is room");
}

#[tokio::test]
async fn while_the_log_is_away_connections_stay_and_publications_wait_until_it_is_back() {
    let edge = Edge::start().await;
    for version in [4, 5] {
        let name = format!("sensor-{version}");
        edge.people.add("acme", &name, false);
        edge.gate.send_replace(Gate::Away);
        let (before, mut client) =
            (edge.metric("weir_ingest_publish_retries_total"), edge.connect(version, &name).await);
        let waiting = client.start("v1/telemetry", READING.as_bytes(), Qos::AtLeastOnce).await;
        eventually("it was tried again", || async {
            edge.metric("weir_ingest_publish_retries_total") > before + 2.5
        })
        .await;
        client.ping().await; // the connection is there, and nothing was acknowledged
        edge.gate.send_replace(Gate::Open);
        assert_eq!(client.said().await.id, waiting);
    }
    assert_eq!(edge.messages().await.len(), 2, "each is there once");
}

#[tokio::test]
async fn what_a_log_that_stays_away_does_not_take_in_time_is_refused_and_never_acknowledged() {
    let edge = Edge::start_with(|config| config.intake.retry_for = Duration::from_secs(1)).await;
    edge.people.add("acme", "sensor", false);
    edge.gate.send_replace(Gate::Away);
    let mut newer = edge.connect(5, "sensor").await;
    let said = newer.publish("v1/telemetry", READING).await;
    assert!(said.codes[0] >= 0x80, "{said:?}");
    let hello = Hello { client_id: "older".to_owned(), ..Hello::of("sensor") };
    let mut older = edge.connect_as(4, hello).await;
    older.start("v1/telemetry", READING.as_bytes(), Qos::AtLeastOnce).await;
    assert_eq!(older.next().await, None, "closed, not acknowledged");
    edge.gate.send_replace(Gate::Open);
    assert_eq!(newer.publish("v1/telemetry", READING).await.codes, [0]);
    assert_eq!(edge.messages().await.len(), 1);
}

#[tokio::test]
async fn qos_0_and_2_arrive_too() {
    for version in [4, 5] {
        let edge = Edge::start().await;
        edge.people.add("acme", "sensor", false);
        let mut client = edge.connect(version, "sensor").await;
        client.start("v1/telemetry", READING.as_bytes(), Qos::AtMostOnce).await;
        let id = client.start("v1/telemetry", READING.as_bytes(), Qos::ExactlyOnce).await;
        assert_eq!(client.said().await.id, id, "PUBREC");
        assert_eq!(client.pubrel(id).await.id, id, "PUBCOMP");
        assert_eq!(edge.messages().await.len(), 2);
    }
}

#[tokio::test]
async fn cbor_is_told_by_the_content_type_or_its_first_byte() {
    let edge = Edge::start().await;
    edge.people.add("acme", "sensor", false);
    let cbor = b"\xa1dtemp\xf9\x4d\x60"; // {"temp": 21.5}
    let mut older = edge.connect(4, "sensor").await;
    older.start("v1/telemetry", cbor, Qos::AtLeastOnce).await;
    older.said().await;
    let mut newer = edge.connect_as(5, Hello { client_id: "newer".to_owned(), ..Hello::of("sensor") }).await;
    let properties = vec![ContentType::new("application/cbor").unwrap().into()];
    newer.start_with("v1/telemetry", cbor, Qos::AtLeastOnce, properties).await;
    assert_eq!(newer.said().await.codes, [0]);
    for message in edge.messages().await {
        assert_eq!(message.readings[0].values, [("temp".into(), Value::Double(21.5))]);
    }
}

#[tokio::test]
async fn a_topic_alias_stands_for_its_topic_and_a_trace_travels_along() {
    let edge = Edge::start().await;
    edge.people.add("acme", "sensor", false);
    let mut client = edge.connect(5, "sensor").await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let alias = || TopicAlias::new(3).unwrap().into();
    let with_trace = vec![alias(), UserProperty::new("traceparent", trace).unwrap().into()];
    client.start_with("v1/telemetry", READING.as_bytes(), Qos::AtLeastOnce, with_trace).await;
    assert_eq!(client.said().await.codes, [0]);
    client.start_with("", READING.as_bytes(), Qos::AtLeastOnce, vec![alias()]).await;
    assert_eq!(client.said().await.codes, [0]);
    let messages = edge.messages().await;
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0].trace_context.as_deref(), Some(trace));
}

#[tokio::test]
async fn a_topic_alias_beyond_the_announced_maximum_ends_the_connection() {
    let edge = Edge::start().await;
    edge.people.add("acme", "sensor", false);
    for (topic, alias) in [("v1/telemetry", 33_u16), ("", 33), ("", 7), ("v1/telemetry", u16::MAX)] {
        let mut client = edge.connect(5, "sensor").await;
        let mut body =
            [&[0, u8::try_from(topic.len()).unwrap()], topic.as_bytes(), &[0, 1, 3, 0x23]].concat();
        body.extend(alias.to_be_bytes());
        body.extend(b"{\"a\":1}");
        client.raw(&[&[0x32, u8::try_from(body.len()).unwrap()], body.as_slice()].concat()).await;
        assert_eq!(client.told_to_go().await.codes, [0x94], "{topic:?} {alias}");
    }
}

#[tokio::test]
async fn a_gateway_speaks_for_the_children_of_its_tenant_alone() {
    let edge = Edge::start().await;
    edge.people.add("acme", "gateway", true);
    let pump = edge.people.add("acme", "pump", false);
    edge.people.add("other", "stranger", false);
    let mut client = edge.connect(5, "gateway").await;
    assert_eq!(client.publish("v1/children/pump/telemetry", READING).await.codes, [0]);
    assert_eq!(client.publish("v1/children/stranger/telemetry", READING).await.codes, [0x90]);
    let messages = edge.messages().await;
    assert_eq!(messages.iter().map(|message| message.uid).collect::<Vec<_>>(), [pump.uid]);
}

#[tokio::test]
async fn a_will_is_published_when_the_client_is_lost_and_not_when_it_leaves() {
    for version in [4, 5] {
        let edge = Edge::start().await;
        edge.people.add("acme", "sensor", false);
        let hello = || Hello { will: Some(("v1/telemetry", r#"{"lost":true}"#)), ..Hello::of("sensor") };
        edge.connect_as(version, hello()).await.leave().await;
        let mut client = edge.connect_as(version, hello()).await;
        client.publish("v1/telemetry", READING).await;
        assert_eq!(edge.messages().await.len(), 1, "leaving publishes nothing");
        drop(client);
        eventually("the will is in the log", || async { edge.messages().await.len() == 2 }).await;
    }
}

#[tokio::test]
async fn an_orderly_stop_acknowledges_what_it_took_and_says_goodbye() {
    let edge = Edge::start().await;
    edge.people.add("acme", "sensor", false);
    let mut client = edge.connect(5, "sensor").await;
    edge.gate.send_replace(Gate::Closed);
    let id = client.start("v1/telemetry", READING.as_bytes(), Qos::AtLeastOnce).await;
    client.ping().await;
    let stopped = async {
        edge.stop().await;
    };
    let client = async {
        edge.gate.send_replace(Gate::Open);
        assert_eq!(client.said().await.id, id);
        assert_eq!(client.told_to_go().await.codes, [0x8b]);
    };
    tokio::join!(stopped, client);
}
