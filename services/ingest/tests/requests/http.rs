//! Telemetry over HTTP.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weir_core::{Position, Value};

use crate::{
    edge::{Answer, Edge, Request, within},
    ports::Gate,
};

#[tokio::test]
async fn a_2xx_names_a_position_at_which_the_log_has_the_readings() {
    let edge = Edge::start().await;
    edge.people.add("t1", "d1", false);
    let body = r#"[{"ts":1424044800000,"values":{"temp":21.5}},{"ts":1424044801000,"values":{"temp":22}}]"#;
    let answer = edge.post("d1", "/v1/telemetry", body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let position: Position = answer.header("weir-position").unwrap().parse().unwrap();
    assert_eq!((position.generation, position.sequence, position.index), (1, 1, 1));
    let messages = edge.messages().await;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].readings[1].values, [("temp".into(), Value::Double(22.0))]);
}

#[tokio::test]
async fn cbor_is_told_by_its_content_type_or_its_first_byte() {
    let edge = Edge::start().await;
    edge.people.add("t1", "d1", false);
    for headers in [&[("Content-Type", "application/cbor")][..], &[]] {
        let body = b"\xa1\x64temp\xf9\x3c\x00";
        let request = Request { method: "POST", path: "/v1/telemetry", token: "token-of-d1", headers, body };
        assert_eq!(edge.send(request).await.status, 200);
    }
    assert_eq!(edge.messages().await.len(), 2);
}

#[tokio::test]
async fn one_bad_reading_refuses_the_message_and_is_named() {
    let edge = Edge::start().await;
    edge.people.add("t1", "d1", false);
    let good = r#"{"ts":1424044800000,"values":{"temp":1}}"#;
    let body = format!(r#"[{good},{good},{good},{{"ts":1424044800000,"values":{{"temp":[1]}}}}]"#);
    let answer = edge.post("d1", "/v1/telemetry", &body).await;
    let (reason, field, _) = answer.problem(400);
    assert_eq!((reason.as_str(), field.as_str()), ("ARRAY_REFUSED", "[3].values.temp"));
    assert!(edge.messages().await.is_empty(), "nothing of it is kept");
}

#[tokio::test]
async fn every_refusal_is_a_problem_document() {
    let edge = Edge::start().await;
    edge.people.add("t1", "d1", false);
    let json = &[("Content-Type", "application/json")][..];
    let large = vec![b' '; 300 * 1024];
    let base = Request {
        method: "POST",
        path: "/v1/telemetry",
        token: "token-of-d1",
        headers: json,
        body: b"{\"a\":1}",
    };
    let answer = "/v1/commands/0123456789abcdef0123456789abcdef/response";
    let get = Request { method: "GET", ..base };
    for (request, status, reason, limit) in [
        (Request { path: "/v2/telemetry", ..base }, 404, "NOT_FOUND", ""),
        (get, 405, "METHOD_NOT_ALLOWED", ""),
        (Request { path: "/v1/children/%ff/telemetry", ..base }, 400, "PATH_INVALID", ""),
        (Request { token: "", ..base }, 401, "UNAUTHENTICATED", ""),
        (Request { token: "wd_x_y", ..base }, 401, "UNAUTHENTICATED", ""),
        (Request { token: "wa_t1_write", ..base }, 403, "PERMISSION_DENIED", ""),
        (Request { path: "/v1/children/d2/telemetry", ..base }, 403, "NOT_A_GATEWAY", ""),
        (Request { headers: &[("Content-Type", "text/csv")], ..base }, 415, "CONTENT_TYPE_UNKNOWN", ""),
        (Request { body: &large, ..base }, 413, "PACKET_TOO_LARGE", "262144"),
        (Request { body: b"{", ..base }, 400, "PAYLOAD_INVALID", ""),
        (Request { body: b"", ..base }, 400, "PAYLOAD_INVALID", ""),
        (Request { path: "/v1/commands?wait=1x", ..get }, 400, "DURATION_INVALID", ""),
        (Request { path: "/v1/commands?wait=1h", ..get }, 400, "WAIT_TOO_LONG", "1m"),
        (Request { path: "/v1/commands/7/ack", ..base }, 400, "ID_INVALID", ""),
        (Request { path: "/v1/commands/%ff/ack", ..base }, 400, "PATH_INVALID", ""),
        (Request { path: "/v1/commands/%ff/response", ..base }, 400, "PATH_INVALID", ""),
        (
            Request { path: answer, headers: &[("Content-Type", "text/csv")], ..base },
            415,
            "CONTENT_TYPE_UNKNOWN",
            "",
        ),
        (
            Request { body: b"{\"a\":9007199254740993}", ..base },
            400,
            "INTEGER_OUT_OF_RANGE",
            "9007199254740992",
        ),
        (Request { body: b"[]", ..base }, 400, "MESSAGE_EMPTY", "1"),
    ] {
        let answer = edge.send(request).await;
        let (found, _, at) = answer.problem(status);
        assert_eq!((found.as_str(), at.as_str()), (reason, limit), "{answer:?}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{answer:?}");
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
        if !limit.is_empty() {
            assert!(answer.json()["detail"].as_str().unwrap().contains(limit), "{answer:?}");
        }
    }
    assert!(edge.messages().await.is_empty());
}

#[tokio::test]
async fn a_gateway_speaks_for_the_children_of_its_tenant_alone() {
    let edge = Edge::start().await;
    edge.people.add("t1", "gateway", true);
    let child = edge.people.add("t1", "child", false);
    edge.people.add("t2", "stranger", false);
    let body = r#"{"temp":1}"#;
    assert_eq!(edge.post("gateway", "/v1/children/child/telemetry", body).await.status, 200);
    assert_eq!(edge.messages().await[0].uid, child.uid);
    for other in ["stranger", "nobody"] {
        let answer = edge.post("gateway", &format!("/v1/children/{other}/telemetry"), body).await;
        assert_eq!(answer.problem(404).0, "NOT_FOUND", "another tenant's looks like none");
    }
    assert_eq!(edge.post("gateway", "/v1/children/a%20b/telemetry", body).await.problem(400).0, "ID_INVALID");
}

#[tokio::test]
async fn nothing_is_acknowledged_before_the_log_has_it_and_a_full_log_says_when_to_come_back() {
    let edge = Edge::start().await;
    edge.people.add("t1", "d1", false);
    edge.gate.send_replace(Gate::Full);
    let answer = edge.post("d1", "/v1/telemetry", r#"{"a":1}"#).await;
    assert_eq!(answer.problem(429).0, "LOG_FULL");
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    edge.gate.send_replace(Gate::Closed);
    let waiting = edge.post("d1", "/v1/telemetry", r#"{"a":1}"#);
    tokio::pin!(waiting);
    tokio::select! {
        answer = &mut waiting => panic!("answered before the log did: {answer:?}"),
        () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
    }
    edge.gate.send_replace(Gate::Open);
    assert_eq!(waiting.await.status, 200);
}

#[tokio::test]
async fn a_disabled_device_is_refused_once_the_hint_has_come() {
    let edge = Edge::start().await;
    let key = edge.people.add("t1", "d1", false);
    assert_eq!(edge.post("d1", "/v1/telemetry", r#"{"a":1}"#).await.status, 200);
    edge.people.change(&key, |device| device.enabled = false);
    let (tenant, device, uid) = (key.tenant.clone(), key.device.clone(), key.uid);
    let signal = weir_core::port::Signal::DeviceChanged { tenant, device, uid };
    weir_core::port::Signals::publish(&*edge.signals, signal).await;
    within("the refusal", async {
        while edge.post("d1", "/v1/telemetry", r#"{"a":1}"#).await.status == 200 {}
    })
    .await;
    assert_eq!(edge.post("d1", "/v1/telemetry", r#"{"a":1}"#).await.problem(403).0, "DEVICE_DISABLED");
}

#[tokio::test]
async fn a_slow_header_and_a_slow_body_are_cut_off() {
    let edge = Edge::start_with(|config| {
        config.http.header_timeout = std::time::Duration::from_millis(200);
        config.http.body_timeout = std::time::Duration::from_millis(200);
    })
    .await;
    edge.people.add("t1", "d1", false);
    for half in ["", "POST /v1/telemetry HTTP/1.1\r\nHost"] {
        let mut stream = TcpStream::connect(edge.http).await.unwrap();
        stream.write_all(half.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        within("the close", stream.read_to_end(&mut rest)).await.unwrap();
    }
    let mut stream = TcpStream::connect(edge.http).await.unwrap();
    let head = "POST /v1/telemetry HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token-of-d1\r\n\
                Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within("the answer", stream.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(Answer::parse(&answer).problem(408).0, "REQUEST_TIMEOUT");
}

#[tokio::test]
async fn connections_that_say_nothing_make_room_for_one_that_does() {
    let edge =
        Edge::start_with(|config| config.limits.unauthenticated_buffers = weir_config::ByteSize::kib(256))
            .await;
    edge.people.add("t1", "d1", false);
    let mut silent = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(edge.http).await.unwrap();
        stream.write_all(b"POST").await.unwrap();
        silent.push(stream);
    }
    assert_eq!(edge.post("d1", "/v1/telemetry", r#"{"a":1}"#).await.status, 200);
    let mut rest = Vec::new();
    let closed = silent[0].read_to_end(&mut rest);
    let _either_way = within("the close of the oldest", closed).await; // a reset is a close too
}

#[tokio::test]
async fn a_drain_finishes_what_is_under_way() {
    let edge = Edge::start().await;
    edge.people.add("t1", "d1", false);
    edge.gate.send_replace(Gate::Closed);
    let idle = TcpStream::connect(edge.http).await.unwrap();
    let waiting = edge.post("d1", "/v1/telemetry", r#"{"a":1}"#);
    tokio::pin!(waiting);
    tokio::select! {
        answer = &mut waiting => panic!("answered before the log did: {answer:?}"),
        () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
    }
    weir_runtime::Service::stop_intake(&*edge.service).await;
    edge.gate.send_replace(Gate::Open);
    assert_eq!(waiting.await.status, 200);
    within("the drain", weir_runtime::Service::drain(&*edge.service)).await;
    drop(idle);
    assert!(TcpStream::connect(edge.http).await.is_err(), "the listener is closed");
}
