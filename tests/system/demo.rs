//! The first thing that anybody runs.

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
}
