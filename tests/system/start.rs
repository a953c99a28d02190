//! Starting, stopping, and everything that can be wrong with it: one clear line, and the right exit code.

use std::time::Duration;

use weir_tests::{PATIENCE, Weir, eventually};

#[test]
fn a_drained_process_ends_within_its_deadline_and_keeps_everything() {
    let mut weir = Weir::start();
    weir.run(&["device", "create", "d"]);
    weir.run(&["telemetry", "publish", "d", "temp=21.5", "--ts", "2015-02-04T17:51:00Z"]);
    assert!(weir.terminate() < Duration::from_secs(20));
    weir.boot();
    let rows = weir.rows(&["telemetry", "query", "--device", "d"]);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["ts"], "2015-02-04T17:51:00Z");
    assert_eq!((rows[0]["type"].as_str(), rows[0]["value"].as_str()), ("double", "21.5"));
}

#[test]
fn a_port_in_use_is_named_with_the_flag_that_moves_it() {
    let weir = Weir::start();
    let port = weir.addresses["mqtt"].rsplit(':').next().unwrap().to_owned();
    let other = weir.try_run(&["dev", "--data-dir", "other", "--mqtt-port", &port]);
    let complaint = String::from_utf8(other.stderr).unwrap();
    assert_eq!(other.status.code(), Some(1));
    assert!(complaint.contains(&port) && complaint.contains("--mqtt-port"), "{complaint}");
    assert_eq!(complaint.trim().lines().count(), 1, "{complaint}");
}

#[test]
fn a_directory_in_use_or_of_another_kind_is_refused_in_one_line() {
    let weir = Weir::start();
    let ports = ["--mqtt-port", "0", "--http-port", "0", "--grpc-port", "0", "--admin-port", "0"];
    let used = weir.try_run(&[&["dev", "--data-dir", "data"], &ports[..]].concat());
    let complaint = String::from_utf8(used.stderr).unwrap();
    assert!(!used.status.success() && complaint.contains("data"), "{complaint}");
    assert_eq!(complaint.trim().lines().count(), 1, "{complaint}");
    for (name, content) in [("VERSION", "weir data 99\n"), ("letters.txt", "dear")] {
        let dir = weir.home().join(format!("foreign-{name}"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join(name), content).unwrap();
        let refused = weir.try_run(&[&["dev", "--data-dir", dir.to_str().unwrap()], &ports[..]].concat());
        let complaint = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && complaint.contains("--data-dir"), "{complaint}");
        assert_eq!(complaint.trim().lines().count(), 1, "{complaint}");
    }
}

#[test]
fn an_unknown_configuration_key_is_named_and_exits_64() {
    let weir = Weir::start();
    let file = weir.home().join("weir.toml");
    std::fs::write(&file, "[listen]\nmqtt_prot = 1\n").unwrap();
    let refused = weir.try_run(&["serve", "--config", file.to_str().unwrap()]);
    let complaint = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(64), "{complaint}");
    assert!(complaint.contains("mqtt_prot"), "{complaint}");
    assert_eq!(weir.try_run(&["device", "frobnicate"]).status.code(), Some(64));
    assert_eq!(weir.try_run(&["device", "get", "nobody"]).status.code(), Some(2));
    let away = weir.try_run(&["--addr", "127.0.0.1:1", "--token", "wa_a_b", "device", "list"]);
    assert_eq!(away.status.code(), Some(3));
}

#[test]
fn init_makes_what_serve_needs_and_serve_refuses_without_it() {
    let weir = Weir::start();
    let ports = ["--mqtt-port", "0", "--http-port", "0", "--grpc-port", "0", "--admin-port", "0"];
    let refused = weir.try_run(&[&["serve", "--data-dir", "real"], &ports[..]].concat());
    assert!(String::from_utf8(refused.stderr).unwrap().contains("weir init"));
    let token = weir.run(&["init", "--dir", "etc", "--data-dir", "real"]);
    assert!(token.trim().starts_with("wa_") && token.trim().lines().count() == 1, "{token}");
    let again = weir.try_run(&["init", "--dir", "etc", "--data-dir", "real"]);
    assert!(String::from_utf8(again.stderr).unwrap().contains("ALREADY_INITIALIZED"));
    let log = weir.home().join("serve.log");
    let mut serving = weir
        .command(&[&["serve", "--target", "all", "--config", "etc/weir.toml"], &ports[..]].concat())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let ready = eventually("serve says that it is ready", || {
        let text = std::fs::read_to_string(&log).unwrap();
        let line = text.lines().find(|line| line.contains("\"ready\""))?;
        serde_json::from_str::<serde_json::Value>(line).ok()
    });
    let address = ready["grpc"].as_str().unwrap();
    let own = weir.run(&["--addr", address, "--token", token.trim(), "tenant", "self", "-o", "json"]);
    serving.kill().unwrap();
    serving.wait().unwrap();
    let own: serde_json::Value = serde_json::from_str(&own).unwrap();
    assert_eq!(own["tenant"], "default");
}

#[test]
fn health_and_metrics_are_served() {
    let weir = Weir::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        for (path, expected) in [("/livez", "ok"), ("/readyz", "ready"), ("/metrics", "weir_")] {
            let answer =
                client.get(format!("http://{}{path}", weir.addresses["admin"])).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{path}");
            assert!(answer.text().await.unwrap().contains(expected), "{path}");
        }
    });
}
