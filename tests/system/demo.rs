//! The first thing that anybody runs.

use serde_json::Value;
use weir_core::Timestamp;
use weir_tests::Weir;

#[test]
fn the_demo_holds_every_expectation_and_a_restart_shows_all_of_it() {
    let mut weir = Weir::start();
    weir.terminate();
    let ports = ["--mqtt-port", "0", "--http-port", "0", "--grpc-port", "0", "--admin-port", "0"];
    let told = weir.run(&[&["dev", "--demo", "--once", "--data-dir", "data"], &ports[..]].concat());
    for expected in ["alarm", "ventilate", "engine-1", "read back"] {
        assert!(told.contains(expected), "{told}");
    }
    assert!(!told.contains("NOT AS EXPECTED"), "{told}");
    weir.boot();
    let alarms = weir.rows(&["alarm", "list"]);
    assert!(
        alarms.iter().any(|alarm| alarm["rule"] == "stuffy" && alarm["state"] == "cleared"),
        "{alarms:?}"
    );
    assert_eq!(alarms.iter().filter(|alarm| alarm["rule"] == "worn").count(), 4);
    let commands = weir.rows(&["command", "list"]);
    assert!(
        commands.iter().all(|command| command["command"] == "ventilate" && command["state"] == "succeeded")
    );
    assert!(!commands.is_empty());
    assert!(weir.rows(&["telemetry", "query", "--device", "office", "--metric", "CO2"]).len() == 1_809);
    the_dashboards_have_data_and_the_metrics_units(&weir);
}

/// Every query of the provisioned dashboards, over the time that they open on.
fn the_dashboards_have_data_and_the_metrics_units(weir: &Weir) {
    let client = crate::prometheus::client(weir);
    let (_, metadata) = client.get("/api/v1/metadata", &[("metric", "CO2")]);
    assert_eq!(metadata["data"]["CO2"][0]["unit"], "[ppm]", "{metadata}");
    let dir =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/provisioning/dashboards");
    let mut queries = 0;
    for name in ["demo-room.json", "demo-engines.json"] {
        let board: Value = serde_json::from_str(&std::fs::read_to_string(dir.join(name)).unwrap()).unwrap();
        let time = |end: &str| {
            let text = board["time"][end].as_str().unwrap();
            Timestamp::parse_rfc3339(text).unwrap().as_micros() / 1_000
        };
        for panel in board["panels"].as_array().unwrap() {
            for field in ["title", "description"] {
                assert!(panel[field].as_str().is_some_and(|text| !text.is_empty()), "{name}: {panel}");
            }
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{name}: {panel}");
            for target in panel["targets"].as_array().unwrap() {
                let query = target["expr"].as_str().unwrap().replace("$device", ".+");
                let answer = client.query_range(&query, (time("from"), time("to"), 600_000));
                let series =
                    answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{query}: {answer}"));
                assert!(
                    series.iter().any(|one| one["values"].as_array().unwrap().len() > 10),
                    "{query}: {answer}"
                );
                queries += 1;
            }
        }
    }
    assert!(queries >= 13, "{queries} queries");
}
