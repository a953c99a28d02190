//! A log that stands still: who fills the window is told to come back, and nobody else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tonic::Code;
use weir_grpc::from_status;
use weir_proto::ingest::v1::PublishRequest;

use crate::{
    edge::{Edge, PATIENCE, within},
    grpc::text,
    ports::Gate,
};

/// Of one window of 1 MiB a single tenant may fill half: eight of these.
const LARGE: usize = 60 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn the_tenant_that_fills_its_share_is_told_to_come_back_while_others_wait_for_the_log_alone() {
    let configure = |config: &mut weir_ingest::Config| {
        config.partitions = 1;
        config.intake.window = weir_config::ByteSize::mib(1);
    };
    let edge = Arc::new(Edge::start_with(configure).await);
    edge.people.add("greedy", "g", false);
    edge.people.add("modest", "m", false);
    edge.gate.send_replace(Gate::Closed);
    let body = format!(r#"{{"text":"{}"}}"#, "x".repeat(LARGE));
    let refused = Arc::new(AtomicUsize::new(0));
    let posting: Vec<_> = (0..16)
        .map(|_| {
            let (edge, body, refused) = (Arc::clone(&edge), body.clone(), Arc::clone(&refused));
            tokio::spawn(async move {
                let answer = edge.post("g", "/v1/telemetry", &body).await;
                if answer.status != 200 {
                    assert_eq!(answer.problem(429).0, "INTAKE_FULL");
                    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
                    refused.fetch_add(1, Ordering::SeqCst);
                }
                answer.status
            })
        })
        .collect();
    within("a refusal", async {
        while refused.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let mut client = edge.ingest("token-of-g").await;
    let request = PublishRequest {
        device: String::new(),
        readings: vec![text("x".repeat(LARGE))],
        ..Default::default()
    };
    let status = client.publish(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let error = from_status(status);
    assert!(error.reason() == "INTAKE_FULL" && error.retry_after().is_some(), "{error:?}");

    let modest = tokio::spawn({
        let edge = Arc::clone(&edge);
        async move { edge.post("m", "/v1/telemetry", r#"{"a":1}"#).await.status }
    });
    // More than a request is patient for: were there no room for it, it would have been refused by now.
    tokio::pin!(modest);
    let answered = tokio::time::timeout(Duration::from_secs(2), &mut modest).await;
    assert!(answered.is_err(), "it waits for the log: {answered:?}");
    edge.gate.send_replace(Gate::Open);
    assert_eq!(tokio::time::timeout(PATIENCE, modest).await.unwrap().unwrap(), 200);
    let mut accepted = 1;
    for post in posting {
        accepted += usize::from(post.await.unwrap() == 200);
    }
    assert_eq!(edge.messages().await.len(), accepted, "what was refused is not there, what was not is");
    assert_eq!(accepted + refused.load(Ordering::SeqCst), 17);
}
