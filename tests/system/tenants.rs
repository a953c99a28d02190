//! Promise 5: a tenant never sees or touches another's anything.

use weir_tests::{Weir, eventually};

#[test]
fn another_tenants_names_are_refused_before_existence_is_checked() {
    let weir = Weir::start();
    weir.run(&["device", "create", "ours"]);
    weir.run(&["telemetry", "publish", "ours", "temp=1"]);
    weir.run(&["tenant", "create", "acme"]);
    let token = weir.run(&["token", "create", "--tenant", "acme", "--scope", "admin"]);
    let token = token.trim();
    let address = weir.addresses["grpc"].as_str();
    let as_acme = |args: &[&str]| weir.try_run(&[&["--addr", address, "--token", token], args].concat());
    for device in ["ours", "never-made"] {
        let name = format!("tenants/default/devices/{device}");
        let attempts: [&[&str]; 7] = [
            &["device", "get", &name],
            &["device", "delete", &name],
            &["device", "credential", "issue", &name],
            &["telemetry", "publish", &name, "temp=2"],
            &["command", "send", &name, "open"],
            &["alarm", "list", "--device", &name],
            &["--tenant", "default", "telemetry", "query", "--device", device],
        ];
        for attempt in attempts {
            let refused = as_acme(attempt);
            let complaint = String::from_utf8(refused.stderr).unwrap();
            assert_eq!(refused.status.code(), Some(1), "{attempt:?}: {complaint}");
            assert!(complaint.contains("PERMISSION_DENIED"), "{attempt:?}: {complaint}");
        }
    }
    for list in ["device", "rule", "alarm", "command", "session", "profile", "dead-letter"] {
        let refused = as_acme(&["--tenant", "default", list, "list"]);
        assert!(String::from_utf8(refused.stderr).unwrap().contains("PERMISSION_DENIED"), "{list}");
        let own = as_acme(&[list, "list", "-o", "csv"]);
        assert!(own.status.success() && !String::from_utf8(own.stdout).unwrap().contains("ours"), "{list}");
    }
    // The same id in two tenants is two devices.
    assert!(as_acme(&["device", "create", "ours"]).status.success());
    let theirs = as_acme(&["telemetry", "query", "--device", "ours", "-o", "csv"]);
    assert_eq!(String::from_utf8(theirs.stdout).unwrap().lines().count(), 1, "only the header");
}

#[test]
fn scopes_and_device_tokens_are_held_to_what_they_may() {
    let weir = Weir::start();
    let device = weir.device("d");
    let read = weir.run(&["token", "create", "--scope", "read"]);
    let write = weir.run(&["token", "create", "--scope", "write"]);
    assert!(read.starts_with("wa_") && device.starts_with("wd_"));
    let address = weir.addresses["grpc"].as_str();
    let cases: [(&str, &[&str], &str); 6] = [
        (read.trim(), &["device", "list"], ""),
        (read.trim(), &["device", "create", "x"], "PERMISSION_DENIED"),
        (write.trim(), &["telemetry", "publish", "d", "temp=1"], ""),
        (write.trim(), &["token", "list"], "PERMISSION_DENIED"),
        (device.as_str(), &["device", "list"], "PERMISSION_DENIED"),
        ("wa_0123456789abcdef_wrong", &["device", "list"], "UNAUTHENTICATED"),
    ];
    for (token, args, expected) in cases {
        let answer = weir.try_run(&[&["--addr", address, "--token", token], args].concat());
        let complaint = String::from_utf8(answer.stderr).unwrap();
        assert_eq!(answer.status.success(), expected.is_empty(), "{args:?}: {complaint}");
        assert!(complaint.contains(expected), "{args:?}: {complaint}");
    }
}

#[test]
fn a_stream_ends_when_its_token_is_revoked() {
    let weir = Weir::start();
    weir.run(&["device", "create", "d"]);
    weir.run(&["telemetry", "publish", "d", "temp=1"]);
    let token = weir.run(&["token", "create", "--scope", "read"]);
    let id = token.split('_').nth(1).unwrap().to_owned();
    let address = weir.addresses["grpc"].as_str();
    let told = weir.home().join("tail.csv");
    let mut tail = weir
        .command(&[
            "--addr",
            address,
            "--token",
            token.trim(),
            "telemetry",
            "tail",
            "--device",
            "d",
            "-o",
            "csv",
        ])
        .stdout(std::fs::File::create(&told).unwrap())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the tail shows the snapshot", || {
        std::fs::read_to_string(&told).unwrap().contains("temp").then_some(())
    });
    weir.run(&["token", "revoke", &id]);
    let ended = eventually("the tail ends", || tail.try_wait().unwrap());
    assert!(!ended.success(), "it says that it was put out");
}
