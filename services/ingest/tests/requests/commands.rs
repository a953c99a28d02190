//! Commands over HTTP.

use mqtt_protocol_core::mqtt::packet::Qos;
use weir_core::{command::State, port::Signals as _};

use crate::{
    client::{Client, Hello},
    edge::{Edge, Request, within},
};

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
async fn a_poll_gives_its_place_back_to_the_mqtt_session_that_is_still_there() {
    let edge = Edge::start().await;
    let key = edge.people.add("t1", "d1", false);
    let mut client = Client::dial(edge.mqtt, 5).await;
    assert_eq!(client.hello(Hello::of("d1")).await.code, 0);
    client.subscribe(&[("#", Qos::AtLeastOnce)]).await;
    assert_eq!(poll(&edge, "").await, serde_json::json!([]));
    let first = edge.command(&key, "one").await;
    let arrived = client.arrived().await;
    assert_eq!(arrived.command(), first);
    client.puback(&arrived).await;
    within("the first one's delivery", async {
        while edge.queue.get(&key, first).state != State::Delivered {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    // While a poll is open it is the newest; what it took holds the rest back until the device has said so.
    let polling = poll(&edge, "?wait=30s");
    let sending = async {
        edge.eventually_attached(&key, 4).await;
        edge.command(&key, "two").await
    };
    let (polled, second) = tokio::join!(polling, sending);
    assert_eq!(polled[0]["id"], second.to_string());
    let third = edge.command(&key, "three").await;
    assert_eq!(edge.post("d1", &format!("/v1/commands/{second}/ack"), "").await.status, 204);
    edge.ring(&key).await;
    assert_eq!(client.arrived().await.command(), third);
}

#[tokio::test]
async fn a_poll_of_a_device_that_lost_its_access_ends_and_takes_nothing() {
    let edge = Edge::start().await;
    let [revoked, deleted, disabled] =
        ["revoked", "deleted", "disabled"].map(|id| edge.people.add("t1", id, false));
    for (key, status) in [(&revoked, 401), (&deleted, 401), (&disabled, 403)] {
        let token = format!("token-of-{}", key.device);
        let path = "/v1/commands?wait=60s";
        let polling = edge.send(Request { method: "GET", path, token: &token, headers: &[], body: b"" });
        let (tenant, device, uid) = (key.tenant.clone(), key.device.clone(), key.uid);
        let changing = async {
            edge.eventually_attached(key, 1).await;
            match device.as_str() {
                "revoked" => edge.people.revoke(&token),
                "deleted" => edge.people.delete(key),
                _ => edge.people.change(key, |device| device.enabled = false),
            }
            // The command comes first: it must not leave, whatever was heard.
            let id = edge.command(key, "open").await;
            edge.signals.publish(weir_core::port::Signal::DeviceChanged { tenant, device, uid }).await;
            id
        };
        let (answer, id) = tokio::join!(polling, changing);
        answer.problem(status);
        assert_eq!(edge.queue.get(key, id).state, State::Queued);
    }
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
