//! Commands over HTTP.

use weir_core::{command::State, port::Signals as _};

use crate::edge::{Edge, Request, within};

async fn poll(edge: &Edge, wait: &str) -> serde_json::Value {
    let path = format!("/v1/commands{wait}");
    let request = Request { method: "GET", path: &path, token: "token-of-d1", headers: &[], body: b"" };
    let answer = edge.send(request).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["commands"].clone()
}

#[tokio::test]
async fn a_command_is_polled_acknowledged_and_answered() {
    let edge = Edge::start().await;
    let key = edge.people.add("t1", "d1", false);
    assert_eq!(poll(&edge, "").await, serde_json::json!([]));
    let id = edge.queue.send(&key, "ventilate", r#"{"level":3}"#);
    let next = edge.queue.send(&key, "close", "{}");
    let commands = poll(&edge, "").await;
    assert_eq!(commands[0]["id"], id.to_string());
    assert_eq!(commands[0]["name"], "ventilate");
    assert_eq!(commands[0]["payload"], serde_json::json!({"level": 3}));
    assert_eq!(edge.queue.get(&key, id).state, State::Sent);
    assert_eq!(edge.post("d1", &format!("/v1/commands/{id}/ack"), "").await.status, 204);
    assert_eq!(edge.queue.get(&key, id).state, State::Delivered);
    assert_eq!(edge.post("d1", &format!("/v1/commands/{id}/response"), r#"{"ok":true}"#).await.status, 204);
    assert_eq!(edge.queue.get(&key, id).state, State::Succeeded);
    assert_eq!(poll(&edge, "").await[0]["id"], next.to_string());
}

#[tokio::test]
async fn a_long_poll_returns_when_the_doorbell_rings() {
    let edge = Edge::start().await;
    let key = edge.people.add("t1", "d1", false);
    let polling = poll(&edge, "?wait=30s");
    tokio::pin!(polling);
    tokio::select! {
        answer = &mut polling => panic!("there is none yet: {answer}"),
        () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {}
    }
    let id = edge.queue.send(&key, "ventilate", "{}");
    let (tenant, uid) = (key.tenant.clone(), key.uid);
    edge.signals.publish(weir_core::port::Signal::CommandWaiting { tenant, uid }).await;
    assert_eq!(within("the command", polling).await[0]["id"], id.to_string());
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_fails_the_command_and_says_so() {
    let edge = Edge::start().await;
    let key = edge.people.add("t1", "d1", false);
    let id = edge.queue.send(&key, "ventilate", "{}");
    poll(&edge, "").await;
    let answer = edge.post("d1", &format!("/v1/commands/{id}/response"), "{").await;
    assert_eq!(answer.problem(400).0, "ANSWER_INVALID");
    assert_eq!(edge.queue.get(&key, id).state, State::Failed);
    let unknown = weir_core::Uid::random();
    assert_eq!(
        edge.post("d1", &format!("/v1/commands/{unknown}/response"), "{}").await.problem(404).0,
        "NOT_FOUND"
    );
}

#[tokio::test]
async fn a_long_poll_ends_when_the_edge_stops() {
    let edge = Edge::start().await;
    edge.people.add("t1", "d1", false);
    let polling = poll(&edge, "?wait=60s");
    tokio::pin!(polling);
    tokio::select! {
        answer = &mut polling => panic!("there is none yet: {answer}"),
        () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {}
    }
    weir_runtime::Service::stop_intake(&*edge.service).await;
    assert_eq!(within("the answer", polling).await, serde_json::json!([]));
    within("the drain", weir_runtime::Service::drain(&*edge.service)).await;
}
