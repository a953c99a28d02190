//! Every panel of every dashboard, and every recorded series, against a real Prometheus that scrapes a node under traffic.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value as Json;
use weir_core::Value;
use weir_drive::{Edge, Reading, Via, edge, mqtt::Client, simulate::answer_to};
use weir_test_servers::{
    or_skip,
    prometheus::{Options, Prometheus},
};
use weir_tests::{Weir, eventually};

use super::{read, repository};

/// Every dashboard.
const DASHBOARDS: [&str; 8] = [
    "weir-overview",
    "weir-ingest",
    "weir-log",
    "weir-storage",
    "weir-rules",
    "weir-commands",
    "weir-tenants",
    "weir-kubernetes",
];
/// Rates are over this much; the server scrapes every second.
const RATE: &str = "20s";

/// A query of a panel.
struct Asked {
    dashboard: String,
    panel: String,
    expression: String,
}

/// What every panel asks, as Grafana would send it with all namespaces.
fn asked() -> Vec<Asked> {
    let mut asked = Vec::new();
    for dashboard in DASHBOARDS {
        let json: Json =
            serde_json::from_str(&read(&format!("deploy/grafana/dashboards/{dashboard}.json"))).unwrap();
        assert_eq!(json["uid"], dashboard);
        for panel in json["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
            let title = panel["title"].as_str().unwrap();
            assert!(!panel["description"].as_str().unwrap().is_empty(), "{dashboard}: {title}");
            assert!(
                !panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap().is_empty(),
                "{dashboard}: {title}"
            );
            for target in panel["targets"].as_array().unwrap() {
                let expression = target["expr"].as_str().unwrap();
                asked.push(Asked {
                    dashboard: dashboard.to_owned(),
                    panel: title.to_owned(),
                    expression: expression.replace("$namespace", ".*").replace("$__rate_interval", RATE),
                });
            }
        }
    }
    asked
}

/// The panels that have no data on a sound system.
fn only_on_failure() -> BTreeSet<(String, String)> {
    let listed: Json = serde_json::from_str(&read("deploy/grafana/only-on-failure.json")).unwrap();
    let text = |entry: &Json, key: &str| entry[key].as_str().unwrap().to_owned();
    let entries = listed.as_array().unwrap().iter();
    entries.map(|entry| (text(entry, "dashboard"), text(entry, "panel"))).collect()
}

fn hot(value: f64) -> Vec<Reading> {
    vec![Reading { ts: None, values: vec![("temp".to_owned(), Value::Double(value))] }]
}

/// A little of everything: each protocol, good and bad, alarms with their commands, and questions.
async fn traffic(weir: &Weir, token: &str, client: &mut Client) {
    let place = weir.place().await;
    for via in [Via::Http, Via::Grpc] {
        let edge = Edge::open(&place, via, "busy", token).await.unwrap();
        for value in [20.0, 40.0] {
            let mut pending = edge.send(&hot(value)).await.unwrap();
            edge::answer(&mut pending).await.unwrap();
        }
    }
    drop(client.publish("v1/telemetry", b"{\"temp\": 20}".to_vec()).await.unwrap().await);
    drop(client.publish("v1/telemetry", b"{\"temp\": ".to_vec()).await.unwrap().await);
    let http = reqwest::Client::new();
    drop(http.post(weir.http("/v1/telemetry")).bearer_auth(token).body("{").send().await.unwrap());
    drop(http.get(weir.http("/nowhere")).send().await.unwrap());
    weir.run(&["telemetry", "latest", "--device", "busy"]);
    weir.run(&["telemetry", "query", "--device", "busy", "--from", "1h", "-o", "csv"]);
    weir.run(&["command", "send", "busy", "blink"]);
    while let Ok(Some(command)) = tokio::time::timeout(Duration::from_millis(300), client.next()).await {
        if let Some((topic, answer)) = answer_to(&command) {
            drop(client.publish(&topic, answer).await.unwrap().await);
        }
    }
}

/// The queries that give nothing.
fn silent(server: &Prometheus, asked: &[Asked]) -> Vec<String> {
    let only = only_on_failure();
    let mut silent = Vec::new();
    for Asked { dashboard, panel, expression } in asked {
        let found = server.query(expression).unwrap_or_else(|error| panic!("{dashboard}: {panel}: {error}"));
        if found.is_empty() && !only.contains(&(dashboard.clone(), panel.clone())) {
            silent.push(format!("{dashboard}: {panel}: {expression}"));
        }
    }
    silent
}

#[test]
fn every_panel_and_every_recorded_series_has_data_under_traffic() {
    let weir = Weir::start();
    let rules = ["weir-recording.rules.yaml", "weir-alerts.rules.yaml"];
    let options = Options {
        targets: vec![weir.addresses["admin"].clone()],
        rules: rules.iter().map(|file| repository(&format!("deploy/prometheus/{file}"))).collect(),
        ..Options::default()
    };
    let Some(server) = or_skip("prometheus", Prometheus::start(&options)) else { return };
    let token = weir.device("busy");
    weir.run(&["rule", "create", "hot", "--when", "temp > 30", "--command", "cool"]);
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut client = runtime.block_on(async {
        let client = Client::connect(&weir.addresses["mqtt"], "busy", &token).await.unwrap();
        client.subscribe("v1/commands/request/+/+").await.unwrap();
        client
    });
    let asked = asked();
    // What trims looks once a minute, so this takes a little longer than one.
    let began = std::time::Instant::now();
    let mut last = Vec::new();
    while began.elapsed() < Duration::from_secs(150) {
        runtime.block_on(traffic(&weir, &token, &mut client));
        last = silent(&server, &asked);
        if last.is_empty() {
            break;
        }
    }
    assert!(last.is_empty(), "{} panels have no data: {last:#?}", last.len());
    let recorded: Vec<String> = read("deploy/prometheus/weir-recording.rules.yaml")
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- record: ").map(str::to_owned))
        .collect();
    assert_eq!(recorded.len(), 30);
    for series in recorded {
        eventually(&format!("{series} has data"), || {
            server.query(&series).ok().filter(|found| !found.is_empty())
        });
    }
    // A sound system is quiet, whatever it may be asked: no page is sent for the faults of clients.
    let firing = server.query("ALERTS{alertstate=\"firing\",severity=\"critical\"}").unwrap();
    assert!(firing.is_empty(), "{firing:#?}");
    runtime.block_on(client.close());
}

#[test]
fn a_full_log_is_seen_where_only_failures_are_shown_and_wakes_somebody() {
    let weir = Weir::start_with(&[("WEIR__LOG__MAX_BYTES", "4MiB")]);
    let alerts = repository("deploy/prometheus/weir-alerts.rules.yaml");
    let options =
        Options { targets: vec![weir.addresses["admin"].clone()], rules: vec![alerts], ..Options::default() };
    let Some(server) = or_skip("prometheus", Prometheus::start(&options)) else { return };
    let token = weir.device("busy");
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let body = format!("{{\"note\": \"{}\"}}", "x".repeat(100_000));
    let refusals: Vec<Asked> = asked()
        .into_iter()
        .filter(|asked| asked.panel == "Refused for faults of Weir" && asked.dashboard == "weir-ingest")
        .collect();
    assert_eq!(refusals.len(), 1);
    let found = eventually("the panel has data", || {
        runtime.block_on(async {
            let post = reqwest::Client::new().post(weir.http("/v1/telemetry")).bearer_auth(&token);
            drop(post.header("content-type", "application/json").body(body.clone()).send().await.unwrap());
        });
        server.query(&refusals[0].expression).ok().filter(|found| !found.is_empty())
    });
    assert_eq!(found[0]["metric"]["reason"], "LOG_FULL", "{found:#?}");
    eventually("the alert waits for its time", || {
        let pending = server.query("ALERTS{alertname=\"WeirLogFilling\",severity=\"critical\"}").ok()?;
        (!pending.is_empty()).then_some(())
    });
}
