//! However many devices speak, and whatever strangers say, the series stay as they are.

use std::collections::BTreeSet;

use weir_core::{Timestamp, Value};
use weir_drive::{Reading, edge, mqtt::Client, provision};
use weir_proto::ingest::v1::PublishStreamRequest;
use weir_tests::{Weir, eventually};

use super::scrape;

/// Distinct devices that speak.
const DEVICES: usize = 10_000;
/// Topics, paths and methods that nobody serves.
const HOSTILE: usize = 1_000;
/// Series of one process; what a Prometheus of a large site can hold of hundreds of them.
const SERIES_MAX: usize = 2_000;

/// Each series by its name and labels.
fn series(page: &str) -> BTreeSet<String> {
    // What blocks trimming is told once a minute, by reader and partition, whoever speaks.
    let samples = page.lines().filter(|line| !line.starts_with('#') && !line.contains("_trim_blocker{"));
    samples.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

/// One reading of each device, over one stream.
async fn speak(weir: &Weir, devices: &[String]) {
    let place = weir.place().await;
    let reading = Reading {
        ts: Some(Timestamp::from_micros(1_424_044_800_000_000)),
        values: vec![("temp".to_owned(), Value::Double(1.0))],
    };
    let requests: Vec<PublishStreamRequest> = (1..)
        .zip(devices)
        .map(|(item, device)| PublishStreamRequest {
            item,
            device: format!("tenants/default/devices/{device}"),
            readings: vec![edge::as_proto(&reading)],
            traceparent: String::new(),
        })
        .collect();
    let count = requests.len();
    let stream = tokio_stream::iter(requests);
    let mut answers = place.connection.ingest().publish_stream(stream).await.unwrap().into_inner();
    let mut answered = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        assert_eq!(answer.status.unwrap_or_default().code, 0, "item {}", answer.item);
        answered += 1;
    }
    assert_eq!(answered, count);
}

/// Publishes on topics and posts to paths that look like series of their own, or like an attack on them.
async fn attack(weir: &Weir, token: &str, count: usize) {
    let client = Client::connect(&weir.addresses["mqtt"], "stranger", token).await.unwrap();
    let http = reqwest::Client::new();
    for n in 0..count {
        let topic = format!("v1/telemetry{{device=\"{n}\"}}\n# HELP {n}/\u{1F980}");
        drop(client.publish(&topic.replace('\n', "_"), vec![0xff; 3]).await.unwrap().await);
        if n % 10 == 0 {
            let url = weir.http(&format!("/v1/{n}/telemetry?label={n}"));
            assert!(
                http.post(url)
                    .bearer_auth(format!("wd_{n}_x"))
                    .send()
                    .await
                    .unwrap()
                    .status()
                    .is_client_error()
            );
            let url = weir.http("/v1/telemetry");
            assert!(
                http.post(url)
                    .bearer_auth(token)
                    .body(format!("{{\"m{n}\": "))
                    .send()
                    .await
                    .unwrap()
                    .status()
                    == 400
            );
        }
    }
    client.close().await;
}

#[test]
fn ten_thousand_devices_and_a_thousand_hostile_topics_add_no_series() {
    let weir = Weir::start();
    let token = weir.device("stranger");
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let devices: Vec<String> = (0..DEVICES).map(|n| format!("device-{n}")).collect();
    let before = runtime.block_on(async {
        provision::create(&weir.place().await, &devices, &Default::default()).await.unwrap();
        // So many that every partition has some, and one of everything that a stranger can do.
        speak(&weir, devices.get(..1_000).unwrap()).await;
        attack(&weir, &token, 11).await;
        scrape(&weir).await
    });
    let before = eventually("storage and analytics have told of every partition", || {
        let page = runtime.block_on(scrape(&weir));
        (page.matches("weir_storage_event_time_seconds{").count() == 16
            && page.matches("weir_analytics_devices{").count() == 16)
            .then(|| series(&page).union(&series(&before)).cloned().collect::<BTreeSet<_>>())
    });
    runtime.block_on(async {
        speak(&weir, &devices).await;
        attack(&weir, &token, HOSTILE).await;
        let after = series(&scrape(&weir).await);
        let new: Vec<_> = after.difference(&before).collect();
        assert!(new.is_empty(), "{} new series: {new:#?}", new.len());
        assert!(after.len() < SERIES_MAX, "{} series", after.len());
        for device in ["device-", "stranger", "HELP {", "\u{1F980}"] {
            assert!(!after.iter().any(|series| series.contains(device)), "{device} is a label");
        }
    });
}
