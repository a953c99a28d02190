//! Promise 4: bad input gets an error that names field and limit; a good neighbour is unharmed; memory stays flat.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use weir_drive::mqtt::Client;
use weir_tests::{Weir, eventually};

/// Payloads that are refused, and what the refusal names: field and limit, where there are any.
fn wrong_payloads() -> Vec<(String, &'static str, &'static str)> {
    let many: Vec<String> = (0..300).map(|n| format!("\"m{n}\": 1")).collect();
    let third = r#"[{"temp": 1}, {"temp": 2}, {"temp": 3}, {"ts": 1424044800000, "values": {"temp": [1]}}]"#;
    vec![
        (r#"{"ts": 1424044800, "values": {"temp": 1}}"#.to_owned(), "ts", ""),
        (third.to_owned(), "[3].values.temp", ""),
        (r#"{"n": 9007199254740993}"#.to_owned(), "n", "9007199254740992"),
        (r#"{"a.b": 1, "a": {"b": 2}}"#.to_owned(), "a.b", ""),
        (format!("{{\"{}\": 1}}", "m".repeat(200)), "", "128"),
        (format!("{{{}}}", many.join(",")), "", "256"),
        (format!("{}1{}", "{\"a\":".repeat(20), "}".repeat(20)), "", "16"),
        (format!("[{}]", vec![r#"{"temp": 1}"#; 1_001].join(",")), "", "1000"),
        (r#"{"temp": "#.to_owned(), "", ""),
        ("{}".to_owned(), "", ""),
    ]
}

/// Posts telemetry as the holder of `token`.
async fn post(
    weir: &Weir,
    token: &str,
    content_type: &str,
    body: impl Into<reqwest::Body>,
) -> reqwest::Response {
    let request = reqwest::Client::new().post(weir.http("/v1/telemetry")).bearer_auth(token);
    request.header("content-type", content_type).body(body).send().await.unwrap()
}

#[test]
fn http_refusals_are_problem_documents_that_name_field_and_limit() {
    let weir = Weir::start();
    let token = weir.device("d");
    drop(rustls::crypto::ring::default_provider().install_default());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        for (body, field, limit) in wrong_payloads() {
            let shown: String = body.chars().take(60).collect();
            let answer = post(&weir, &token, "application/json", body).await;
            assert_eq!(answer.status(), 400, "{shown}");
            assert_eq!(answer.headers()["content-type"], "application/problem+json", "{shown}");
            let problem: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
            for key in ["type", "title", "status", "detail"] {
                assert!(!problem[key].is_null(), "{shown}: {problem}");
            }
            assert!(field.is_empty() || problem["field"] == field, "{shown}: {problem}");
            let detail = problem["detail"].as_str().unwrap().replace(['_', ','], "");
            assert!(detail.contains(limit), "{shown}: {problem}");
        }
        let good = post(&weir, &token, "application/json", r#"{"temp": 1}"#).await;
        assert!(good.status().is_success() && good.headers().contains_key("weir-position"));
    });
    eventually("only the good one was kept", || {
        let rows = weir.rows(&["telemetry", "query", "--device", "d"]);
        assert!(rows.len() <= 1, "{rows:?}");
        (rows.len() == 1).then_some(())
    });
}

#[test]
fn wrong_requests_are_problem_documents_too() {
    let weir = Weir::start();
    let token = weir.device("d");
    drop(rustls::crypto::ring::default_provider().install_default());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let http = reqwest::Client::new();
        for (method, path, status) in
            [(reqwest::Method::GET, "/nowhere", 404), (reqwest::Method::DELETE, "/v1/telemetry", 405)]
        {
            let answer = http.request(method, weir.http(path)).bearer_auth(&token).send().await.unwrap();
            assert_eq!(answer.status(), status, "{path}");
            assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
        }
        assert_eq!(post(&weir, &token, "text/csv", "temp,1").await.status(), 415);
        assert_eq!(post(&weir, "wd_0_wrong", "application/json", "{}").await.status(), 401);
        let large = post(&weir, &token, "application/json", vec![b' '; 300 << 10]).await;
        assert_eq!(large.status(), 413);
        assert!(large.text().await.unwrap().contains("262144"));
    });
}

#[test]
fn half_open_connections_and_oversize_announcements_cost_no_memory_and_no_neighbour() {
    let weir = Weir::start();
    let token = weir.device("good");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let neighbour = runtime.block_on(Client::connect(&weir.addresses["mqtt"], "good", &token)).unwrap();
    let before = weir.resident_bytes();
    // As many as the limit of open files of a usual shell allows, each with the beginning of a CONNECT.
    let mut half_open = Vec::new();
    for _ in 0..400 {
        let mut stream = TcpStream::connect(&weir.addresses["mqtt"]).unwrap();
        stream.write_all(&[0x10, 0xff, 0x7f, 0x00, 0x04, b'M', b'Q']).unwrap();
        half_open.push(stream);
    }
    for _ in 0..200 {
        // A PUBLISH-sized CONNECT that announces 256 MiB: refused at the fixed header.
        let mut stream = TcpStream::connect(&weir.addresses["mqtt"]).unwrap();
        stream.write_all(&[0x10, 0xff, 0xff, 0xff, 0x7f]).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut rest = Vec::new();
        assert!(stream.read_to_end(&mut rest).is_ok(), "it is closed at once, not left to wait");
    }
    let acknowledged = runtime.block_on(async {
        neighbour.publish("v1/telemetry", b"{\"temp\": 1}".to_vec()).await.unwrap().await.unwrap()
    });
    assert!(acknowledged.is_ok());
    let grown = weir.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "600 bad connections cost {grown} bytes");
    runtime.block_on(neighbour.close());
}

#[test]
fn a_refused_message_over_mqtt_5_tells_why_and_keeps_nothing_of_it() {
    let weir = Weir::start();
    let token = weir.device("d");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&weir.addresses["mqtt"], "d", &token).await.unwrap();
        let batch = b"[{\"temp\": 1}, {\"temp\": null}, {\"temp\": {\"x\": [1]}}]".to_vec();
        let refused = client.publish("v1/telemetry", batch).await.unwrap().await.unwrap().unwrap_err();
        assert!(!refused.message().is_empty());
        let unknown = client.publish("somewhere/else", b"1".to_vec()).await.unwrap().await.unwrap();
        assert!(unknown.is_err());
        let child = client
            .publish("v1/children/x/telemetry", b"{\"temp\": 1}".to_vec())
            .await
            .unwrap()
            .await
            .unwrap();
        assert!(child.is_err(), "only a gateway speaks for children");
        let good = client.publish("v1/telemetry", b"{\"temp\": 5}".to_vec()).await.unwrap().await.unwrap();
        assert!(good.unwrap().is_some(), "an ack carries its position");
        client.close().await;
    });
    let rows = eventually("the good one can be queried", || {
        let rows = weir.rows(&["telemetry", "query", "--device", "d"]);
        (!rows.is_empty()).then_some(rows)
    });
    assert_eq!((rows.len(), rows[0]["value"].as_str()), (1, "5.0"));
    assert!(runtime.block_on(Client::connect(&weir.addresses["mqtt"], "d", "wd_0_wrong")).is_err());
}
