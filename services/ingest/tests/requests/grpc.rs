//! Unary calls of the edge's gRPC services.

use tokio::{io::AsyncWriteExt, net::TcpStream};
use tonic::Code;
use weir_core::Position;
use weir_proto::{
    common::v1::{Reading, Value, value::Kind},
    ingest::v1::{
        GetDeadLetterRequest, GetPresenceRequest, ListDeadLettersRequest, ListSessionsRequest, PublishRequest,
    },
};

use crate::edge::{Edge, within};

pub(crate) fn reading(millis: i64, kind: Kind) -> Reading {
    let ts = prost_types::Timestamp { seconds: millis / 1_000, nanos: (millis % 1_000) as i32 * 1_000_000 };
    let values = [("temp".to_owned(), Value { kind: Some(kind) })].into();
    Reading { ts: Some(ts), values }
}

pub(crate) fn text(text: String) -> Reading {
    reading(1_424_044_800_000, Kind::StringValue(text))
}

fn good(n: i64) -> Reading {
    reading(1_424_044_800_000 + n, Kind::DoubleValue(n as f64))
}

fn publish(device: &str, readings: Vec<Reading>) -> PublishRequest {
    PublishRequest { device: device.to_owned(), readings, traceparent: String::new() }
}

#[tokio::test]
async fn each_reading_has_its_status_and_the_good_ones_are_kept() {
    let edge = Edge::start().await;
    edge.people.add("t1", "d1", false);
    let mut client = edge.ingest("token-of-d1").await;
    let readings = vec![
        good(0),
        reading(1_424_044_800, Kind::DoubleValue(1.0)),
        reading(1_424_044_800_001, Kind::DoubleValue(f64::NAN)),
        Reading::default(),
        reading(1_424_044_800_002, Kind::Int64Value(i64::MAX)),
    ];
    let answer = client.publish(publish("", readings)).await.unwrap().into_inner();
    let told: Vec<_> = answer.statuses.iter().map(|s| (s.reason.as_str(), s.field.as_str())).collect();
    assert_eq!(
        told,
        [
            ("", ""),
            ("TIMESTAMP_OUT_OF_RANGE", "ts"),
            ("NUMBER_NOT_FINITE", "values.temp"),
            ("READING_EMPTY", "values"),
            ("", "")
        ]
    );
    assert_eq!(answer.position.parse::<Position>().unwrap().index, 1);
    let kept = edge.messages().await.remove(0).readings;
    assert_eq!(kept.len(), 2);
    assert_eq!(kept[1].values[0].1, weir_core::Value::Int64(i64::MAX), "a typed wire's integer stays one");
}

#[tokio::test]
async fn who_may_publish_for_whom() {
    let edge = Edge::start().await;
    edge.people.add("t1", "d1", false);
    edge.people.add("t1", "gateway", true);
    let name = "tenants/t1/devices/d1";
    for (token, device, code) in [
        ("token-of-d1", "", Code::Ok),
        ("token-of-d1", name, Code::Ok),
        ("token-of-gateway", name, Code::Ok),
        ("token-of-gateway", "tenants/t1/devices/nobody", Code::NotFound),
        ("token-of-d1", "tenants/t1/devices/gateway", Code::PermissionDenied),
        ("token-of-d1", "tenants/t2/devices/nobody", Code::PermissionDenied),
        ("wa_t1_write", name, Code::Ok),
        ("wa_t1_write", "", Code::InvalidArgument),
        ("wa_t1_write", "tenants/t1/devices/nobody", Code::NotFound),
        ("wa_t1_read", name, Code::PermissionDenied),
        ("wa_t2_write", name, Code::PermissionDenied),
        ("wa_t2_write", "tenants/t1/devices/nobody", Code::PermissionDenied),
        ("wa_t2_admin", name, Code::PermissionDenied),
        ("nonsense", name, Code::Unauthenticated),
    ] {
        let mut client = edge.ingest(token).await;
        let done = client.publish(publish(device, vec![good(0)])).await;
        let found = done.as_ref().map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!(found, code, "{token} for {device:?}: {done:?}");
    }
}

#[tokio::test]
async fn limits_are_named() {
    let edge = Edge::start().await;
    edge.people.add("t1", "d1", false);
    let mut client = edge.ingest("token-of-d1").await;
    let too_many = client.publish(publish("", (0..1_001).map(good).collect())).await.unwrap_err();
    assert_eq!(too_many.code(), Code::InvalidArgument);
    assert!(too_many.message().contains("1000"), "{too_many}");
    let long = "x".repeat(300 * 1024);
    let large = client
        .publish(publish("", vec![reading(1_424_044_800_000, Kind::StringValue(long))]))
        .await
        .unwrap_err();
    assert!(large.message().contains("262144"), "{large}");
    let none = client.publish(publish("", Vec::new())).await.unwrap_err();
    assert_eq!(none.code(), Code::InvalidArgument);
    let mut request = publish("", vec![good(0)]);
    request.traceparent = "0".repeat(56);
    assert!(client.publish(request).await.unwrap_err().message().contains("55"));
}

#[tokio::test]
async fn presence_is_told_to_the_tenant_alone() {
    let edge = Edge::start().await;
    edge.people.add("t1", "d1", false);
    let device = "tenants/t1/devices/d1".to_owned();
    let mut stream = TcpStream::connect(edge.mqtt).await.unwrap();
    // MQTT 3.1.1 CONNECT of client "a b" with the token as its password.
    let mut connect = b"\x00\x04MQTT\x04\xc2\x00\x3c\x00\x03a b\x00\x01u\x00\x0b".to_vec();
    connect.extend_from_slice(b"token-of-d1");
    stream.write_all(&[0x10, connect.len() as u8]).await.unwrap();
    stream.write_all(&connect).await.unwrap();
    let mut client = edge.sessions("wa_t1_read").await;
    let presence = within("the device's presence", async {
        loop {
            let request = GetPresenceRequest { device: device.clone() };
            let presence = client.get_presence(request).await.unwrap().into_inner();
            if presence.connected {
                return presence;
            }
        }
    })
    .await;
    assert_eq!(presence.sessions[0].name, "tenants/t1/devices/d1/sessions/a%20b");
    assert_eq!(presence.sessions[0].protocol, "mqtt/3.1.1");
    for parent in ["tenants/t1", "tenants/t1/devices/d1"] {
        let request = ListSessionsRequest { parent: parent.to_owned(), ..Default::default() };
        assert_eq!(client.list_sessions(request).await.unwrap().into_inner().sessions, presence.sessions);
    }
    for token in ["wa_t2_read", "wa_t1_write", "token-of-d1"] {
        let mut client = edge.sessions(token).await;
        let request = GetPresenceRequest { device: device.clone() };
        assert_eq!(client.get_presence(request).await.unwrap_err().code(), Code::PermissionDenied);
        let request = ListSessionsRequest { parent: "tenants/t1".to_owned(), ..Default::default() };
        assert_eq!(client.list_sessions(request).await.unwrap_err().code(), Code::PermissionDenied);
    }
}

#[tokio::test]
async fn dead_letters_are_read_by_the_tenant_alone() {
    let edge = Edge::start().await;
    edge.people.add("t1", "d1", false);
    let mut stream = TcpStream::connect(edge.mqtt).await.unwrap();
    let mut connect = b"\x00\x04MQTT\x04\xc2\x00\x3c\x00\x01a\x00\x01u\x00\x0b".to_vec();
    connect.extend_from_slice(b"token-of-d1");
    stream.write_all(&[0x10, connect.len() as u8]).await.unwrap();
    stream.write_all(&connect).await.unwrap();
    stream.write_all(b"\x32\x12\x00\x0cv1/telemetry\x00\x01[]").await.unwrap();
    let mut client = edge.dead_letters("wa_t1_read").await;
    let request = ListDeadLettersRequest { parent: "tenants/t1".to_owned(), ..Default::default() };
    let letter = within("the dead letter", async {
        loop {
            let page = client.list_dead_letters(request.clone()).await.unwrap().into_inner();
            if let Some(letter) = page.dead_letters.into_iter().next() {
                return letter;
            }
        }
    })
    .await;
    assert_eq!((letter.reason.as_str(), letter.topic.as_str()), ("MESSAGE_EMPTY", "v1/telemetry"));
    assert_eq!((letter.payload_bytes, letter.payload.len()), (2, 0));
    let get = GetDeadLetterRequest { name: letter.name.clone() };
    let whole = client.get_dead_letter(get.clone()).await.unwrap().into_inner().dead_letter.unwrap();
    assert_eq!(whole.payload, b"[]");
    for token in ["wa_t2_read", "wa_t1_write"] {
        let mut client = edge.dead_letters(token).await;
        assert_eq!(client.get_dead_letter(get.clone()).await.unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(
            client.list_dead_letters(request.clone()).await.unwrap_err().code(),
            Code::PermissionDenied
        );
    }
}
