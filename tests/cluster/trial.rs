//! The trial values: one pod, engines of its own, nothing else in the cluster.

use std::time::Instant;

use crate::{
    kube::{Client, Kube, TAGS, install, say, upgrade, without_loss},
    tools::{EXAMPLES, root, skipped},
};

const EXAMPLE: &str = "charts/weir/examples/trial.yaml";

#[test]
fn a_weir_to_try_answers_devices_is_upgraded_under_load_and_leaves_what_it_says() {
    let kube = match Kube::start("trial") {
        Ok(kube) => kube,
        Err(why) => return skipped(&why),
    };
    let begin = Instant::now();
    install(&kube, EXAMPLE, &[]);
    say(&format!("trial: installed and ready in {:?}", begin.elapsed()));
    the_api_server_takes_every_example(&kube);
    let client = client(&kube);
    a_device_over_mqtt_is_read_back(&kube, &client);
    kube.helm(&["test", "weir"]).unwrap_or_else(|why| panic!("{why}"));
    let proof = client.spawn(&["prove", "--minutes", "1", "--keep"]);
    upgrade(&kube, EXAMPLE, TAGS[1], &[]);
    upgrade(&kube, EXAMPLE, TAGS[0], &[]);
    kube.kubectl(&["delete", "pod", "weir-all-0", "--grace-period=0", "--force"]);
    without_loss(proof.wait_with_output().expect("its output"));
    uninstalling_leaves_the_volume_and_the_secrets(&kube);
}

/// Strictly: an unknown field is an error, too. Nothing is kept.
fn the_api_server_takes_every_example(kube: &Kube) {
    for example in EXAMPLES {
        let values = root().join(format!("charts/weir/examples/{example}.yaml")).display().to_string();
        let chart = root().join("charts/weir").display().to_string();
        let rendered = kube
            .helm(&["template", "other", &chart, "--values", &values, "--kube-version", "1.33.0"])
            .unwrap_or_else(|why| panic!("{why}"));
        let file = kube.home.path().join("rendered.yaml");
        std::fs::write(&file, rendered).expect("the rendering");
        kube.kubectl(&[
            "apply",
            "--dry-run=server",
            "--validate=strict",
            "--filename",
            &file.display().to_string(),
        ]);
    }
}

/// The client, from where Services are reached.
fn client(kube: &Kube) -> Client<'_> {
    let token = kube.token();
    let [mqtt, http, grpc] = ["mqtt", "http", "grpc"].map(|name| kube.address(&format!("weir-{name}")));
    let client = kube.client();
    client.run(&[
        "context",
        "set",
        "trial",
        "--addr",
        &grpc,
        "--mqtt-addr",
        &mqtt,
        "--http-addr",
        &http,
        "--token",
        &token,
    ]);
    client
}

/// The tour of the README: a file of measurements, sent by the device that made them.
fn a_device_over_mqtt_is_read_back(kube: &Kube, client: &Client<'_>) {
    let file = root().join("services/weir/data/office.csv").display().to_string();
    let told = client.run(&[
        "replay",
        &file,
        "--device",
        "room-2",
        "--create",
        "--via",
        "mqtt",
        "--label",
        "type=room",
    ]);
    let sent = told.lines().find_map(|line| line.strip_prefix("acknowledged")).map(str::trim);
    let sent: usize = sent.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{told}"));
    assert!(sent > 1_000, "{told}");
    let query = ["telemetry", "query", "--device", "room-2", "--metric", "CO2", "-o", "csv"];
    kube.until("what the device sent is all there", || {
        let rows = client.run(&query).lines().skip(1).count();
        (rows == sent).then_some(())
    });
}

fn uninstalling_leaves_the_volume_and_the_secrets(kube: &Kube) {
    kube.helm(&["uninstall", "weir", "--wait"]).unwrap_or_else(|why| panic!("{why}"));
    let expected = ["persistentvolumeclaim/data-weir-all-0", "secret/weir-secrets"];
    let mut left = vec![];
    kube.until("nothing is left but the volume and the secrets", || {
        left = kube.everything();
        (left == expected).then_some(())
    });
}
