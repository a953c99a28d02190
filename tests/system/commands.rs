//! Promise 6: a command's state is proof.

use serde_json::json;
use weir_drive::{mqtt::Client, simulate::answer_to};
use weir_tests::{Weir, eventually};

#[test]
fn a_command_waits_for_its_device_over_a_kill_and_is_answered() {
    let mut weir = Weir::start();
    let token = weir.device("d");
    weir.run(&["command", "send", "d", "open", "--payload", "{\"angle\": 30}", "--request-id", "r1"]);
    weir.run(&["command", "send", "d", "open", "--payload", "{\"angle\": 30}", "--request-id", "r1"]);
    assert_eq!(weir.rows(&["command", "list"])[0]["state"], "queued");
    weir.kill();
    weir.boot();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = runtime.block_on(async {
        let mut client = Client::connect(&weir.addresses["mqtt"], "d", &token).await.unwrap();
        client.subscribe("v1/commands/request/+/+").await.unwrap();
        let command = client.next().await.unwrap();
        assert!(command.topic.ends_with("/open"), "{}", command.topic);
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&command.payload).unwrap(),
            json!({"angle": 30})
        );
        let (topic, answer) = answer_to(&command).unwrap();
        client.publish(&topic, answer).await.unwrap().await.unwrap().unwrap();
        client
    });
    let command = eventually("the answer is recorded", || {
        weir.rows(&["command", "list"]).pop().filter(|command| command["state"] == "succeeded")
    });
    assert!(command["response"].contains("open"), "{command:?}");
    assert_eq!(weir.rows(&["command", "list"]).len(), 1, "the same request_id is the same command");
    runtime.block_on(client.close());
}

#[test]
fn commands_are_cancelled_expire_and_are_asked_for_over_http() {
    let weir = Weir::start();
    let token = weir.device("d");
    let sent = weir.rows(&["command", "send", "d", "one"]);
    weir.run(&["command", "cancel", &sent[0]["id"]]);
    assert_eq!(weir.rows(&["command", "list"])[0]["state"], "canceled");
    let short = weir.rows(&["command", "send", "d", "two", "--ttl", "1s"]);
    eventually("the command expires", || {
        (weir.rows(&["command", "get", &short[0]["id"]])[0]["state"] == "expired").then_some(())
    });
    let third = weir.rows(&["command", "send", "d", "three"]);
    drop(rustls::crypto::ring::default_provider().install_default());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let http = reqwest::Client::new();
        let bearer = format!("Bearer {token}");
        let commands =
            http.get(weir.http("/v1/commands")).header("authorization", &bearer).send().await.unwrap();
        let commands: serde_json::Value = serde_json::from_slice(&commands.bytes().await.unwrap()).unwrap();
        let text = commands.to_string();
        assert!(
            text.contains("three") && text.contains(&third[0]["id"]) && !text.contains("\"one\""),
            "{text}"
        );
        for (what, body) in [("ack", ""), ("response", "{\"ok\": true}")] {
            let url = weir.http(&format!("/v1/commands/{}/{what}", third[0]["id"]));
            let answer = http
                .post(url)
                .header("authorization", &bearer)
                .header("content-type", "application/json")
                .body(body);
            assert!(answer.send().await.unwrap().status().is_success(), "{what}");
        }
    });
    eventually("the answer is recorded", || {
        (weir.rows(&["command", "get", &third[0]["id"]])[0]["state"] == "succeeded").then_some(())
    });
}
