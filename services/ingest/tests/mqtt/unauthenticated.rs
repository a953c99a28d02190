//! What strangers can do: nothing that costs anybody else.

use std::time::Duration;

use mqtt_protocol_core::mqtt::packet::Qos;
use proptest::{prelude::*, test_runner::TestRunner};
use weir_config::ByteSize;

use crate::{client::Hello, edge::Edge};

/// A CONNECT of MQTT `level` that announces `remaining` bytes, as far as its flags.
fn announcement(level: u8, remaining: u32) -> Vec<u8> {
    let mut bytes = vec![0x10];
    for shift in [0, 7, 14] {
        bytes.push(0x80 | u8::try_from(remaining >> shift & 0x7f).unwrap());
    }
    bytes.push(u8::try_from(remaining >> 21).unwrap());
    bytes.extend(b"\x00\x04MQTT");
    bytes.push(level);
    bytes
}

#[tokio::test]
async fn an_oversize_announcement_is_refused_at_the_fixed_header() {
    let edge = Edge::start().await;
    let mut newer = edge.dial(5).await;
    newer.raw(&announcement(5, 268_435_455)).await;
    // A CONNACK before any CONNECT of ours: read it raw, the client's state machine has none under way.
    let said = newer.raw_to_end().await;
    assert_eq!((said[0], said[3]), (0x20, 0x95));
    assert!(String::from_utf8_lossy(&said).contains("262144"), "the limit's number is told");
    let mut older = edge.dial(4).await;
    older.raw(&announcement(4, 268_435_455)).await;
    assert!(older.raw_to_end().await.is_empty());
}

#[tokio::test]
async fn an_oversize_packet_of_a_known_client_is_a_disconnect_with_the_limit() {
    let edge = Edge::start().await;
    edge.people.add("acme", "sensor", false);
    let mut newer = edge.connect(5, "sensor").await;
    newer.raw(&[0x32, 0xff, 0xff, 0xff, 0x7f, 1, 2, 3]).await;
    let said = newer.told_to_go().await;
    assert_eq!(said.codes, [0x95]);
    assert!(said.reason.contains("262144"), "{:?}", said.reason);
    let mut older = edge.connect(4, "sensor").await;
    older.raw(&[0x32, 0xff, 0xff, 0xff, 0x7f]).await;
    assert_eq!(older.next().await, None);
}

#[tokio::test]
async fn malformed_packets_are_told_so_and_closed() {
    let edge = Edge::start().await;
    edge.people.add("acme", "sensor", false);
    for (bytes, code) in [
        (&b"\x36\x00"[..], 0x81),                                    // QoS 3
        (b"\x32\x03\x00\x09v", 0x81),                                // a topic longer than its packet
        (b"\x82\x02\x00\x01", 0x82),                                 // no filter
        (b"\x40\x02\x00\x07", 0x82),                                 // a PUBACK for nothing
        (b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00", 0x82), // a second CONNECT
        (b"\x20\x03\x00\x00\x00", 0x82),                             // a server's packet
    ] {
        let mut client = edge.connect(5, "sensor").await;
        client.raw(bytes).await;
        let said = client.told_to_go().await;
        assert!(matches!(said.codes[0], 0x81 | 0x82), "{bytes:02x?}: {said:?}, about {code:#x}");
        let mut client = edge.connect(4, "sensor").await;
        client.raw(bytes).await;
        assert_eq!(client.next().await, None);
    }
}

#[tokio::test]
async fn who_does_not_authenticate_in_time_is_closed() {
    let edge = Edge::start_with(|config| config.limits.auth_timeout = Duration::from_millis(200)).await;
    let mut silent = edge.dial(5).await;
    let mut slow = edge.dial(4).await;
    slow.raw(&announcement(4, 200)).await;
    assert_eq!((silent.next().await, slow.next().await), (None, None));
}

#[tokio::test]
async fn the_oldest_stranger_makes_room_and_a_neighbour_is_unharmed() {
    let edge = Edge::start_with(|config| config.limits.unauthenticated_buffers = ByteSize::kib(256)).await;
    edge.people.add("acme", "sensor", false);
    let mut neighbour = edge.connect(5, "sensor").await;
    let mut oldest = edge.dial(5).await;
    oldest.raw(&announcement(5, 200_000)).await;
    let mut strangers = Vec::new();
    for _ in 0..200 {
        strangers.push(edge.dial(5).await);
    }
    assert_eq!(oldest.next().await, None);
    let mut late = edge.connect_as(5, Hello { client_id: "late".to_owned(), ..Hello::of("sensor") }).await;
    late.ping().await;
    neighbour.start("v1/telemetry", br#"{"a":1}"#, Qos::AtLeastOnce).await;
    assert_eq!(neighbour.said().await.codes, [0]);
}

#[test]
fn no_bytes_stop_the_edge() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let edge = runtime.block_on(Edge::start());
    edge.people.add("acme", "sensor", false);
    let bytes = || proptest::collection::vec(any::<u8>(), 0..300);
    let mut runner = TestRunner::new(ProptestConfig { cases: 64, ..ProptestConfig::default() });
    runner
        .run(&(bytes(), any::<bool>(), any::<bool>()), |(bytes, known, older)| {
            runtime.block_on(async {
                let version = if older { 4 } else { 5 };
                let mut client = match known {
                    true => edge.connect(version, "sensor").await,
                    false => edge.dial(version).await,
                };
                client.raw(&bytes).await;
                client.hang_up().await;
            });
            Ok(())
        })
        .unwrap();
    runtime.block_on(async {
        let mut client = edge.connect(5, "sensor").await;
        assert_eq!(client.publish("v1/telemetry", r#"{"a":1}"#).await.codes, [0]);
    });
}
