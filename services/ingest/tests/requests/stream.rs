//! `PublishStream`.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Streaming};
use weir_proto::{
    common::v1::{Reading, value::Kind},
    ingest::v1::{PublishStreamRequest, PublishStreamResponse},
};

use crate::{
    edge::{Edge, within},
    grpc::reading,
    ports::Gate,
};

fn item(item: u64, device: &str, readings: Vec<Reading>) -> PublishStreamRequest {
    PublishStreamRequest { item, device: device.to_owned(), readings, traceparent: String::new() }
}

fn good(n: u64) -> Vec<Reading> {
    vec![reading(1_424_044_800_000 + n as i64, Kind::DoubleValue(n as f64))]
}

async fn open(
    edge: &Edge,
    token: &str,
) -> (mpsc::Sender<PublishStreamRequest>, Streaming<PublishStreamResponse>) {
    let (requests, receiver) = mpsc::channel(16);
    let answers = edge.ingest(token).await.publish_stream(ReceiverStream::new(receiver)).await.unwrap();
    (requests, answers.into_inner())
}

#[tokio::test]
async fn every_item_is_answered_and_a_half_close_drains() {
    let edge = Edge::start().await;
    edge.people.add("t1", "d1", false);
    let (requests, mut answers) = open(&edge, "token-of-d1").await;
    tokio::spawn(async move {
        for n in 0..3_000 {
            requests.send(item(n, "", good(n))).await.unwrap();
        }
    });
    let mut seen = BTreeMap::new();
    while let Some(answer) = within("an answer", answers.next()).await {
        let answer = answer.unwrap();
        assert_eq!(answer.status.unwrap().code, 0);
        assert!(answer.statuses.is_empty());
        assert!(seen.insert(answer.item, answer.position).is_none(), "each is answered once");
    }
    assert_eq!(seen.len(), 3_000);
    let positions: Vec<_> = seen.values().collect();
    assert!(positions.is_sorted(), "a device's readings keep their order");
    let readings: usize = edge.messages().await.iter().map(|message| message.readings.len()).sum();
    assert_eq!(readings, 3_000);
}

#[tokio::test]
async fn a_bad_item_has_its_status_and_ends_nothing() {
    let edge = Edge::start().await;
    edge.people.add("t1", "d1", false);
    let (requests, mut answers) = open(&edge, "wa_t1_write").await;
    let device = "tenants/t1/devices/d1";
    let mut half = good(0);
    half.push(Reading::default());
    let huge = vec![reading(1_424_044_800_000, Kind::StringValue("x".repeat(300 * 1024)))];
    for (n, (device, readings)) in [
        (device, good(0)),
        ("tenants/t1/devices/nobody", good(1)),
        ("tenants/t2/devices/d1", good(1)),
        ("nonsense", good(1)),
        (device, Vec::new()),
        (device, huge),
        (device, half),
        (device, good(2)),
    ]
    .into_iter()
    .enumerate()
    {
        requests.send(item(n as u64, device, readings)).await.unwrap();
    }
    drop(requests);
    let mut told = BTreeMap::new();
    while let Some(answer) = within("an answer", answers.next()).await {
        let answer = answer.unwrap();
        let parts: Vec<_> = answer.statuses.iter().map(|status| status.reason.clone()).collect();
        told.insert(answer.item, (answer.status.unwrap().reason, parts));
    }
    let reasons: Vec<_> = told.values().map(|(reason, _)| reason.as_str()).collect();
    let expected =
        ["", "NOT_FOUND", "PERMISSION_DENIED", "NAME_INVALID", "MESSAGE_EMPTY", "PACKET_TOO_LARGE", "", ""];
    assert_eq!(reasons, expected);
    assert_eq!(told[&6].1, ["", "READING_EMPTY"]);
    assert_eq!(edge.messages().await.len(), 3);
}

#[tokio::test]
async fn a_log_that_stands_still_stops_the_client_and_memory() {
    let edge = Edge::start_with(|config| config.intake.window = weir_config::ByteSize::mib(1)).await;
    edge.people.add("t1", "d1", false);
    edge.gate.send_replace(Gate::Closed);
    let (requests, mut answers) = open(&edge, "token-of-d1").await;
    let large =
        |n: u64| vec![reading(1_424_044_800_000 + n as i64, Kind::StringValue("x".repeat(100 * 1024)))];
    let mut sent = 0;
    let stuck = std::time::Duration::from_millis(300);
    while tokio::time::timeout(stuck, requests.send(item(sent, "", large(sent)))).await.is_ok() {
        sent += 1;
        assert!(sent < 1_000, "the client was never stopped");
    }
    edge.gate.send_replace(Gate::Open);
    drop(requests);
    let mut acknowledged = 0;
    while let Some(answer) = within("an answer", answers.next()).await {
        assert_eq!(answer.unwrap().status.unwrap().code, 0);
        acknowledged += 1;
    }
    assert_eq!(acknowledged, sent);
}

#[tokio::test]
async fn a_revoked_credential_ends_the_stream() {
    let edge = Edge::start().await;
    let key = edge.people.add("t1", "d1", false);
    let (requests, mut answers) = open(&edge, "token-of-d1").await;
    requests.send(item(0, "", good(0))).await.unwrap();
    assert_eq!(within("an answer", answers.next()).await.unwrap().unwrap().status.unwrap().code, 0);
    edge.people.leave(); // what was heard counts also while the registry cannot be asked
    let (tenant, uid, credential) = (key.tenant.clone(), key.uid, "token-of-d1".to_owned());
    let signal = weir_core::port::Signal::CredentialRevoked { tenant, uid, credential };
    weir_core::port::Signals::publish(&*edge.signals, signal).await;
    let end = within("the end", answers.next()).await.unwrap().unwrap_err();
    assert_eq!(end.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_stop_answers_what_is_under_way_and_says_so() {
    let edge = Edge::start().await;
    edge.people.add("t1", "d1", false);
    edge.gate.send_replace(Gate::Closed);
    let (requests, mut answers) = open(&edge, "token-of-d1").await;
    requests.send(item(0, "", good(0))).await.unwrap();
    within("the publish", async {
        while edge.gate.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    weir_runtime::Service::stop_intake(&*edge.service).await;
    edge.gate.send_replace(Gate::Open);
    assert_eq!(within("the answer", answers.next()).await.unwrap().unwrap().item, 0);
    let end = within("the end", answers.next()).await.unwrap().unwrap_err();
    assert_eq!(end.code(), Code::Unavailable);
    within("the drain", weir_runtime::Service::drain(&*edge.service)).await;
}
