//! What is not the language: lists, parameters, callers, limits.

use serde_json::json;
use weir_tests::{Weir, eventually};

use super::{client, series};

const NOON: &str = "2015-02-04T12:00:00Z";

/// Two devices of a profile, with a few readings.
fn start() -> Weir {
    let weir = Weir::start();
    let profile = weir.home().join("profile.yaml");
    std::fs::write(&profile, "metrics:\n").unwrap();
    weir.run(&["device", "create", "room-1", "--label", "type=room", "--label", "weir.io/floor=1"]);
    weir.run(&["device", "create", "room-2", "--label", "type=room"]);
    for (device, values) in
        [("room-1", ["temp=20.5", "room.temp-1=7", "note=\"text\""].as_slice()), ("room-2", &["temp=21"])]
    {
        weir.run(&[&["telemetry", "publish", device], values, &["--ts", NOON]].concat());
    }
    eventually("the readings can be queried", || {
        let found = client(&weir).query("count({device=~\".+\"})", series::START);
        (found["data"]["result"][0]["value"][1] == "3").then_some(())
    });
    weir
}

#[test]
fn names_labels_and_values_are_listed() {
    let weir = start();
    let client = client(&weir);
    let list = |path: &str, params: &[(&str, &str)]| {
        let (status, answer) = client.get(path, params);
        assert_eq!((status, &answer["status"]), (200, &json!("success")), "{path}: {answer}");
        answer["data"].clone()
    };
    assert_eq!(list("/api/v1/labels", &[]), json!(["__name__", "device", "type", "weir_io_floor"]));
    assert_eq!(
        list("/api/v1/labels", &[("match[]", "temp{device=\"room-2\"}")]),
        json!(["__name__", "device", "type"])
    );
    assert_eq!(
        list("/api/v1/label/__name__/values", &[]),
        json!(["room.temp-1", "temp"]),
        "text is no series"
    );
    assert_eq!(list("/api/v1/label/device/values", &[("match[]", "temp")]), json!(["room-1", "room-2"]));
    assert_eq!(list("/api/v1/label/device/values", &[("start", "1"), ("end", "2")]), json!([]));
    assert_eq!(
        list("/api/v1/label/device/values", &[("start", NOON), ("end", NOON)]),
        json!(["room-1", "room-2"])
    );
    let room = json!({"__name__": "temp", "device": "room-1", "type": "room", "weir_io_floor": "1"});
    let selector = ("match[]", "{weir_io_floor=\"1\",__name__=~\"t.*\"}");
    assert_eq!(list("/api/v1/series", &[selector]), json!([room]));
    let (status, answer) = client.post("/api/v1/series", &[selector, ("match[]", "temp{device=\"room-1\"}")]);
    assert_eq!((status, answer["data"].clone()), (200, json!([room])), "once, for whatever selectors");
    assert_eq!(list("/api/v1/status/buildinfo", &[])["application"], json!("Weir"));
    assert_eq!(list("/api/v1/query_exemplars", &[("query", "temp")]), json!([]));
    // A name that is none of Prometheus' is matched as it is.
    let found = client.query("{__name__=\"room.temp-1\"}", series::START);
    assert_eq!(found["data"]["result"][0]["value"], json!([series::START / 1_000, "7"]));
}

#[test]
fn callers_show_a_token_and_see_their_tenant_alone() {
    let weir = start();
    let client = client(&weir);
    let write = weir.run(&["token", "create", "--scope", "write"]);
    let read = weir.run(&["token", "create", "--scope", "read"]);
    weir.run(&["tenant", "create", "acme"]);
    let other = weir.run(&["token", "create", "--tenant", "acme", "--scope", "read"]);
    let device = weir.device("room-1");
    let ask = |authorization: Option<String>| {
        let params = [("query", "count(temp)"), ("time", NOON)];
        let (status, answer) = client.ask(reqwest::Method::GET, "/api/v1/query", &params, authorization);
        (status, answer["errorType"].as_str().map(str::to_owned), answer["data"]["result"].clone())
    };
    let bearer = |token: &str| Some(format!("Bearer {}", token.trim()));
    let basic = |token: &str| Some(format!("Basic {}", base64(&format!("grafana:{}", token.trim()))));
    let two = json!([{"metric": {}, "value": [series::START / 1_000, "2"]}]);
    for authorization in [bearer(&read), basic(&read)] {
        assert_eq!(ask(authorization), (200, None, two.clone()));
    }
    assert_eq!(ask(bearer(&other)), (200, None, json!([])), "nothing of another tenant");
    for (authorization, status, kind) in [
        (None, 401, "unauthorized"),
        (bearer("wa_0123456789abcdef_wrong"), 401, "unauthorized"),
        (Some("Basic !".to_owned()), 401, "unauthorized"),
        (bearer(&write), 403, "forbidden"),
        (bearer(&device), 403, "forbidden"),
    ] {
        let (found, error, _) = ask(authorization.clone());
        assert_eq!((found, error.as_deref()), (status, Some(kind)), "{authorization:?}");
    }
}

#[test]
fn what_is_wrong_or_too_much_is_said_in_prometheus_own_form() {
    let weir = start();
    let client = client(&weir);
    let deep = format!("{}1{}", "(".repeat(900), ")".repeat(900));
    let unary = format!("{}temp", "-".repeat(1_500));
    let regex = "temp{device=~\"(\\\\w{100}){100}\"}";
    let long = "x".repeat(70_000);
    for (query, status, kind, part) in [
        ("holt_winters(temp[5m], 0.1, 0.1)", 400, "bad_data", "is not supported by Weir"),
        ("temp +", 400, "bad_data", "invalid"),
        ("temp{", 400, "bad_data", ""),
        ("", 400, "bad_data", ""),
        ("temp[1e400]", 400, "bad_data", ""),
        (&unary, 400, "bad_data", "100"),
        (regex, 422, "execution", "1048576"),
        (&long, 422, "execution", "65536"),
        ("count_over_time(vector(1)[100y:1ms])", 422, "execution", "5000000"),
        ("{device=~\".+\"} + on () {device=~\".+\"}", 422, "execution", "many-to-many"),
    ] {
        let (found, answer) = client.post("/api/v1/query", &[("query", query), ("time", NOON)]);
        let shown: String = query.chars().take(60).collect();
        assert_eq!((found, answer["errorType"].as_str()), (status, Some(kind)), "{shown}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(part), "{shown}: {answer}");
    }
    let (status, _) = client.post("/api/v1/query", &[("query", deep.as_str())]);
    assert_eq!(status, 200, "parentheses alone cost nothing");
    for (params, part) in [
        ([("start", "0"), ("end", "11001"), ("step", "1")], "11,000"),
        ([("start", "10"), ("end", "0"), ("step", "1")], "end"),
        ([("start", "0"), ("end", "1"), ("step", "0")], "step"),
        ([("start", "x"), ("end", "1"), ("step", "1")], "start"),
    ] {
        let (status, answer) =
            client.get("/api/v1/query_range", &[&[("query", "temp")], &params[..]].concat());
        assert_eq!((status, answer["errorType"].as_str()), (400, Some("bad_data")), "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(part), "{answer}");
    }
    let (status, answer) = client.get("/api/v1/targets", &[]);
    assert_eq!((status, answer["errorType"].as_str()), (404, Some("not_found")), "{answer}");
}

/// RFC 4648, section 4.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let sign =
                if digit > chunk.len() { '=' } else { char::from(DIGITS[bits >> (18 - 6 * digit) & 63]) };
            encoded.push(sign);
        }
    }
    encoded
}
