//! Who may connect, and how a connection ends.

use mqtt_protocol_core::mqtt::packet::{Property, Qos, SessionExpiryInterval};
use weir_core::port::{Signal, Signals};

use crate::{
    client::Hello,
    edge::{Edge, eventually},
};

fn expiry(seconds: u32) -> Property {
    SessionExpiryInterval::new(seconds).unwrap().into()
}

#[tokio::test]
async fn the_token_is_the_password_or_the_user_name_alone() {
    let edge = Edge::start().await;
    edge.people.add("acme", "sensor", false);
    for version in [4, 5] {
        edge.connect(version, "sensor").await.leave().await;
        let by_name = Hello { user: Some("token-of-sensor"), password: None, ..Hello::of("sensor") };
        edge.connect_as(version, by_name).await.leave().await;
    }
}

#[tokio::test]
async fn a_bad_token_gets_a_code_and_never_a_silent_close() {
    let edge = Edge::start().await;
    edge.people.add("acme", "sensor", false);
    for (password, codes) in [
        (Some("wrong".to_owned()), [4, 0x86]),
        (Some("an-api-token".to_owned()), [5, 0x87]),
        (None, [4, 0x86]),
    ] {
        for (version, code) in [4, 5].into_iter().zip(codes) {
            let mut client = edge.dial(version).await;
            let hello = Hello { user: None, password: password.clone(), ..Hello::of("sensor") };
            let hello = Hello { user: password.is_some().then_some("anybody"), ..hello };
            let welcome = client.hello(hello).await;
            assert_eq!(welcome.code, code, "{password:?} over version {version}");
            if version == 5 {
                let explained = |property: &Property| matches!(property, Property::ReasonString(_));
                assert!(welcome.properties.iter().any(explained));
            }
            assert_eq!(client.next().await, None);
        }
    }
}

#[tokio::test]
async fn a_connect_that_can_never_be_what_it_says_is_refused() {
    let edge = Edge::start().await;
    edge.people.add("acme", "sensor", false);
    for (topic, codes) in [("v1/nothing", [5, 0x90]), ("v1/children/x/telemetry", [5, 0x87])] {
        for (version, code) in [4, 5].into_iter().zip(codes) {
            let hello = Hello { will: Some((topic, "{}")), ..Hello::of("sensor") };
            assert_eq!(edge.dial(version).await.hello(hello).await.code, code, "{topic} over {version}");
        }
    }
    let mut reserved = edge.dial(5).await;
    reserved.raw(b"\x10\x0d\x00\x04MQTT\x05\x03\x00\x3c\x00\x00\x00").await;
    assert_eq!(reserved.welcome().await.code, 0x81);
}

#[tokio::test]
async fn a_client_id_is_assigned_for_a_clean_start_and_limited() {
    let edge = Edge::start().await;
    edge.people.add("acme", "sensor", false);
    let nameless = |clean| Hello { client_id: String::new(), clean, ..Hello::of("sensor") };
    let mut client = edge.dial(5).await;
    let welcome = client.hello(nameless(true)).await;
    let assigned = |property: &Property| matches!(property, Property::AssignedClientIdentifier(_));
    assert!(welcome.code == 0 && welcome.properties.iter().any(assigned));
    assert_eq!(edge.dial(5).await.hello(nameless(false)).await.code, 0x85);
    let long = |len| Hello { client_id: "x".repeat(len), ..Hello::of("sensor") };
    assert_eq!(edge.dial(5).await.hello(long(128)).await.code, 0);
    assert_eq!(edge.dial(5).await.hello(long(129)).await.code, 0x85);
    assert_eq!(edge.dial(4).await.hello(long(129)).await.code, 2);
}

#[tokio::test]
async fn the_connack_tells_the_limits() {
    let edge = Edge::start().await;
    edge.people.add("acme", "sensor", false);
    let hello = Hello { keep_alive: 0, properties: vec![expiry(u32::MAX)], ..Hello::of("sensor") };
    let welcome = edge.dial(5).await.hello(hello).await;
    let numbers: Vec<(&str, u32)> = welcome
        .properties
        .iter()
        .filter_map(|property| match property {
            Property::SessionExpiryInterval(value) => Some(("expiry", value.val())),
            Property::ServerKeepAlive(value) => Some(("keep alive", value.val().into())),
            Property::MaximumPacketSize(value) => Some(("packet", value.val())),
            Property::ReceiveMaximum(value) => Some(("receive", value.val().into())),
            _ => None,
        })
        .collect();
    for expected in [("expiry", 604_800), ("keep alive", 1_200), ("packet", 262_144), ("receive", 1_024)] {
        assert!(numbers.contains(&expected), "{expected:?} is not in {numbers:?}");
    }
}

#[tokio::test]
async fn the_same_client_takes_over_and_another_devices_does_not() {
    let edge = Edge::start().await;
    edge.people.add("acme", "sensor", false);
    edge.people.add("acme", "other", false);
    let same = |id| Hello { client_id: "same".to_owned(), ..Hello::of(id) };
    let mut first = edge.connect_as(5, same("sensor")).await;
    let mut stranger = edge.connect_as(5, same("other")).await;
    first.ping().await;
    let mut second = edge.connect_as(4, same("sensor")).await;
    assert_eq!(first.told_to_go().await.codes, [0x8e]);
    let mut third = edge.connect_as(5, same("sensor")).await;
    assert_eq!(second.next().await, None, "3.1.1 has no words for it");
    third.ping().await;
    stranger.ping().await;
}

#[tokio::test]
async fn a_fifth_session_ends_the_oldest() {
    let edge = Edge::start().await;
    edge.people.add("acme", "sensor", false);
    let mut clients = Vec::new();
    for n in 0..5 {
        clients.push(edge.connect_as(5, Hello { client_id: format!("c{n}"), ..Hello::of("sensor") }).await);
    }
    assert_eq!(clients.remove(0).told_to_go().await.codes, [0x8e]);
    for client in &mut clients {
        client.ping().await;
    }
}

#[tokio::test]
async fn a_session_with_its_subscriptions_outlives_its_connection() {
    for version in [4, 5] {
        let edge = Edge::start().await;
        let sensor = edge.people.add("acme", "sensor", false);
        let hello = |clean| Hello { clean, properties: vec![expiry(3_600)], ..Hello::of("sensor") };
        let mut client = edge.dial(version).await;
        assert!(!client.hello(hello(false)).await.session_present);
        client.subscribe(&[("v1/commands/#", Qos::AtLeastOnce)]).await;
        client.leave().await;
        let command = edge.command(&sensor, "ventilate").await;
        let mut client = edge.dial(version).await;
        assert!(client.hello(hello(false)).await.session_present);
        assert_eq!(client.arrived().await.command(), command);
        client.leave().await;
        let mut client = edge.dial(version).await;
        assert!(!client.hello(hello(true)).await.session_present, "a clean start");
        client.ping().await;
    }
}

#[tokio::test]
async fn silence_beyond_the_keep_alive_ends_the_connection() {
    let edge = Edge::start().await;
    edge.people.add("acme", "sensor", false);
    let quick = |client_id: &str| Hello {
        keep_alive: 1,
        client_id: client_id.to_owned(),
        will: Some(("v1/telemetry", r#"{"lost":true}"#)),
        ..Hello::of("sensor")
    };
    let mut newer = edge.connect_as(5, quick("newer")).await;
    let mut older = edge.connect_as(4, quick("older")).await;
    let said = newer.told_to_go().await;
    assert_eq!(said.codes, [0x8d]);
    assert_eq!(older.next().await, None);
    eventually("both wills are in the log", || async { edge.messages().await.len() == 2 }).await;
}

#[tokio::test]
async fn a_revoked_token_and_a_deleted_device_end_their_connections() {
    let edge = Edge::start().await;
    let [revoked, deleted, disabled] =
        ["revoked", "deleted", "disabled"].map(|id| edge.people.add("acme", id, false));
    edge.people.add("acme", "good", false);
    let mut clients = Vec::new();
    for id in ["revoked", "deleted", "disabled", "good"] {
        clients.push(edge.connect(5, id).await);
    }
    edge.people.revoke("token-of-revoked");
    let signal = Signal::CredentialRevoked {
        tenant: revoked.tenant.clone(),
        uid: revoked.uid,
        credential: "token-of-revoked".to_owned(),
    };
    edge.signals.publish(signal).await;
    assert_eq!(clients[0].told_to_go().await.codes, [0x87]);
    edge.people.delete(&deleted);
    edge.tell_changed(&deleted).await;
    assert_eq!(clients[1].told_to_go().await.codes, [0x98]);
    edge.people.change(&disabled, |device| device.enabled = false);
    edge.tell_changed(&disabled).await;
    assert_eq!(clients[2].told_to_go().await.codes, [0x87]);
    clients[3].ping().await;
}

#[tokio::test]
async fn a_revocation_that_is_heard_ends_the_connections_of_that_token_also_while_the_registry_is_away() {
    let edge = Edge::start().await;
    let sensor = edge.people.add("acme", "sensor", false);
    edge.people.add("acme", "good", false);
    let mut revoked = edge.connect(5, "sensor").await;
    let mut good = edge.connect(5, "good").await;
    edge.people.leave();
    let signal = |credential: &str| Signal::CredentialRevoked {
        tenant: sensor.tenant.clone(),
        uid: sensor.uid,
        credential: credential.to_owned(),
    };
    edge.signals.publish(signal("another-of-sensor")).await;
    revoked.ping().await;
    edge.signals.publish(signal("token-of-sensor")).await;
    assert_eq!(revoked.told_to_go().await.codes, [0x87]);
    good.ping().await;
}

#[tokio::test]
async fn a_device_that_becomes_a_gateway_needs_no_new_connection() {
    let edge = Edge::start().await;
    let gateway = edge.people.add("acme", "gateway", false);
    edge.people.add("acme", "pump", false);
    let mut client = edge.connect(5, "gateway").await;
    let topic = "v1/children/pump/telemetry";
    assert_eq!(client.publish(topic, r#"{"a":1}"#).await.codes, [0x87]);
    edge.people.change(&gateway, |device| device.gateway = true);
    edge.tell_changed(&gateway).await;
    let mut said = client.publish(topic, r#"{"a":1}"#).await;
    let until = tokio::time::Instant::now() + crate::edge::PATIENCE;
    while said.codes != [0] {
        assert!(tokio::time::Instant::now() < until, "the connection never heard that it is a gateway's");
        said = client.publish(topic, r#"{"a":1}"#).await;
    }
}

#[tokio::test]
async fn a_connection_over_the_limit_is_told_the_limit() {
    let edge = Edge::start_with(|config| config.limits.connections = 2).await;
    for id in ["a", "b", "c"] {
        edge.people.add("acme", id, false);
    }
    let _first = edge.connect(5, "a").await;
    let second = edge.connect(4, "b").await;
    let mut third = edge.dial(5).await;
    let welcome = third.hello(Hello::of("c")).await;
    assert_eq!(welcome.code, 0x97);
    let reason = welcome.properties.iter().find_map(|property| match property {
        Property::ReasonString(reason) => Some(reason.val().to_owned()),
        _ => None,
    });
    assert!(reason.unwrap().contains('2'));
    second.leave().await;
    eventually("there is room again", || async { edge.dial(5).await.hello(Hello::of("c")).await.code == 0 })
        .await;
}
