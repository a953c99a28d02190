//! What alarms set off.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use parking_lot::Mutex;
use weir_proto::analytics::v1::{self as pb, ActionState, AlarmState};

use crate::world::{World, admin, by, eventually, rule, seconds};

/// Requests that a receiver got: (headers, body).
type Got = Arc<Mutex<Vec<(HeaderMap, String)>>>;

/// A receiver that fails so many times first.
async fn receiver(failures: u32) -> (String, Got) {
    let got = Got::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let left = Arc::new(AtomicU32::new(failures));
    let take = |State((got, left)): State<(Got, Arc<AtomicU32>)>, headers: HeaderMap, body: String| async move {
        got.lock().push((headers, body));
        let fails = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if fails { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT }
    };
    let router = Router::new().route("/hook", post(take)).with_state((Arc::clone(&got), left));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, got)
}

fn webhook(url: &str) -> pb::Action {
    pb::Action {
        kind: Some(pb::action::Kind::Webhook(pb::WebhookAction {
            url: url.to_owned(),
            headers: [("x-team".to_owned(), "air".to_owned())].into(),
        })),
        ..Default::default()
    }
}

fn command(on: &[pb::ActionTrigger], min_interval: Option<i64>) -> pb::Action {
    pb::Action {
        id: "ventilate".to_owned(),
        on: on.iter().map(|on| (*on).into()).collect(),
        kind: Some(pb::action::Kind::Command(pb::CommandAction {
            command: "ventilate".to_owned(),
            payload: "{\"speed\": \"${CO2 / 100}\", \"text\": \"CO2 is ${CO2}\"}".to_owned(),
            min_interval: min_interval.map(seconds),
            ..Default::default()
        })),
    }
}

fn states(alarm: &pb::Alarm) -> Vec<ActionState> {
    alarm.actions.iter().map(|action| action.state()).collect()
}

#[tokio::test]
async fn a_webhook_is_retried_until_it_is_taken_with_one_id() {
    let world = World::new();
    world.devices.put("acme", "d", &[]);
    let node = world.start().await;
    let (url, got) = receiver(2).await;
    node.create("co2", pb::Rule { actions: vec![webhook(&url)], ..rule("CO2 > 1000") }).await;
    world.publish("d", &[(0, &[("CO2", 1_100.0)])]).await;
    let alarms = node
        .alarms_when("webhook that is done", |alarms| {
            alarms.first().is_some_and(|alarm| states(alarm) == [ActionState::Done])
        })
        .await;
    assert_eq!(alarms[0].actions[0].attempts, 3);
    let got = got.lock().clone();
    assert_eq!(got.len(), 3);
    let header = |at: usize, name: &str| got[at].0.get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!((header(0, "webhook-id"), header(0, "x-team")), (header(2, "webhook-id"), "air".to_owned()));
    assert!(header(0, "webhook-timestamp").parse::<u64>().is_ok());
    let body: serde_json::Value = serde_json::from_str(&got[2].1).unwrap();
    assert_eq!(body["type"], "alarm.raised");
    assert_eq!(body["data"]["name"], alarms[0].name);
    assert_eq!(body["data"]["values"]["CO2"], "1100");
}

#[tokio::test]
async fn a_dead_endpoint_is_given_up_and_delays_nobody_elses() {
    let mut world = World::new();
    world.config.actions.webhook_attempts = 3;
    world.devices.put("acme", "d", &[]);
    let node = world.start().await;
    // Nobody listens on the port of a listener that is gone.
    let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = dead.local_addr().unwrap();
    drop(dead);
    let (url, _got) = receiver(0).await;
    node.create("dead", pb::Rule { actions: vec![webhook(&format!("http://{address}/"))], ..rule("x > 0") })
        .await;
    node.create("live", pb::Rule { actions: vec![webhook(&url)], ..rule("x > 0") }).await;
    world.publish("d", &[(0, &[("x", 1.0)])]).await;
    let of = |alarms: &[pb::Alarm], rule: &str| {
        alarms.iter().find(|alarm| alarm.rule.ends_with(rule)).map(states).unwrap_or_default()
    };
    let alarms = node
        .alarms_when("one done, one failed", |alarms| {
            of(alarms, "live") == [ActionState::Done] && of(alarms, "dead") == [ActionState::Failed]
        })
        .await;
    let dead = alarms.iter().find(|alarm| alarm.rule.ends_with("dead")).unwrap();
    assert_eq!(dead.actions[0].attempts, 3);
    assert!(!dead.actions[0].error.is_empty());
}

/// A receiver that takes connections and never answers.
async fn silent() -> (String, Arc<AtomicU32>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let taken = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&taken);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (url, taken)
}

#[tokio::test]
async fn one_tenants_silent_endpoints_hold_up_neither_its_commands_nor_anothers_webhooks() {
    let mut world = World::new();
    world.config.actions.concurrency = 4;
    world.config.actions.webhook_timeout = std::time::Duration::from_secs(3_600);
    world.devices.put("acme", "d", &[]);
    world.devices.put("beta", "d", &[]);
    let node = world.start().await;
    let (dead, taken) = silent().await;
    for at in 0..8 {
        node.create(&format!("dead-{at}"), pb::Rule { actions: vec![webhook(&dead)], ..rule("x > 0") }).await;
    }
    world.publish("d", &[(0, &[("x", 1.0)])]).await;
    eventually("call of the silent endpoint", || {
        let taken = Arc::clone(&taken);
        Box::pin(async move { if taken.load(Ordering::SeqCst) > 0 { Ok(()) } else { Err("none") } })
    })
    .await;

    node.create("co2", pb::Rule { actions: vec![command(&[], None)], ..rule("CO2 > 1000") }).await;
    let (url, got) = receiver(0).await;
    let live = pb::CreateRuleRequest {
        parent: "tenants/beta".to_owned(),
        rule_id: "live".to_owned(),
        rule: Some(pb::Rule { actions: vec![webhook(&url)], ..rule("x > 0") }),
        ..Default::default()
    };
    node.rules().create_rule(by("admin@beta", live)).await.unwrap();
    world.publish("d", &[(10, &[("CO2", 1_100.0)])]).await;
    world.publish_as("beta", "d", &[(0, &[("x", 1.0)])]).await;
    eventually("command of the same tenant and webhook of another", || {
        let (commands, webhooks) = (world.commands.sent.lock().len(), got.lock().len());
        Box::pin(
            async move { if (commands, webhooks) == (1, 1) { Ok(()) } else { Err((commands, webhooks)) } },
        )
    })
    .await;
    assert_eq!(taken.load(Ordering::SeqCst), 1, "a quarter of four");
}

#[tokio::test]
async fn a_rule_whose_webhooks_wait_in_vain_still_commands() {
    let mut world = World::new();
    world.config.actions.waiting_per_rule = 1;
    world.config.actions.webhook_timeout = std::time::Duration::from_secs(3_600);
    world.devices.put("acme", "d", &[]);
    let node = world.start().await;
    let (dead, _) = silent().await;
    let actions = vec![webhook(&dead), command(&[], Some(0))];
    node.create("co2", pb::Rule { actions, ..rule("CO2 > 1000") }).await;
    for (at, value) in [(0, 1_100.0), (10, 900.0), (20, 1_100.0)] {
        world.publish("d", &[(at, &[("CO2", value)])]).await;
    }
    let alarms = node
        .alarms_when("two alarms whose commands were sent", |alarms| {
            alarms.len() == 2 && alarms.iter().all(|alarm| states(alarm).contains(&ActionState::Done))
        })
        .await;
    let states: Vec<_> = alarms.iter().rev().map(states).collect();
    assert_eq!(
        states,
        [[ActionState::Pending, ActionState::Done], [ActionState::Failed, ActionState::Done]],
        "the second webhook finds no room, the second command needs none"
    );
}

#[tokio::test]
async fn a_webhook_that_waits_survives_a_crash() {
    let mut world = World::new();
    world.config.actions.retry_base = std::time::Duration::from_millis(300);
    world.devices.put("acme", "d", &[]);
    let node = world.start().await;
    let (url, got) = receiver(1).await;
    node.create("co2", pb::Rule { actions: vec![webhook(&url)], ..rule("CO2 > 1000") }).await;
    world.publish("d", &[(0, &[("CO2", 1_100.0)])]).await;
    eventually("first try", || {
        let got = Arc::clone(&got);
        Box::pin(async move { if got.lock().is_empty() { Err("none") } else { Ok(()) } })
    })
    .await;
    node.kill();
    let node = world.start().await;
    let alarms =
        node.alarms_when("webhook that is done", |alarms| states(&alarms[0]) == [ActionState::Done]).await;
    assert_eq!(alarms.len(), 1);
    let ids: std::collections::HashSet<_> =
        got.lock().iter().map(|(headers, _)| headers.get("webhook-id").unwrap().clone()).collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn a_command_is_filled_in_at_firing_and_not_repeated_within_its_interval() {
    let world = World::new();
    world.devices.put("acme", "d", &[]);
    let node = world.start().await;
    node.create("co2", pb::Rule { actions: vec![command(&[], None)], ..rule("CO2 > 1000") }).await;
    let up_and_down = |at: i64| [(at, 1_100.0), (at + 10, 900.0)];
    for (at, value) in [up_and_down(0), up_and_down(300), up_and_down(700)].concat() {
        world.publish("d", &[(at, &[("CO2", value)])]).await;
    }
    let alarms = node
        .alarms_when("three alarms whose actions ended", |alarms| {
            alarms.len() == 3
                && alarms.iter().all(|alarm| {
                    alarm.state() == AlarmState::Cleared && !states(alarm).contains(&ActionState::Pending)
                })
        })
        .await;
    let states: Vec<_> = alarms.iter().rev().flat_map(states).collect();
    assert_eq!(states, [ActionState::Done, ActionState::Suppressed, ActionState::Done]);
    let sent = world.commands.sent.lock().clone();
    assert_eq!(sent.len(), 2);
    let first = sent.values().next().unwrap();
    assert_eq!((first.name.as_str(), first.actor.as_str()), ("ventilate", "rule:co2"));
    let payload: serde_json::Value = serde_json::from_slice(&first.payload).unwrap();
    assert_eq!(payload["speed"], 11.0);
    assert!(alarms[2].actions[0].command.starts_with("tenants/acme/commands/"));
}

#[tokio::test]
async fn what_a_person_does_sets_off_actions_once() {
    use pb::ActionTrigger::{Acknowledged, Cleared};
    let world = World::new();
    world.devices.put("acme", "d", &[]);
    let node = world.start().await;
    let actions = vec![command(&[Acknowledged, Cleared], Some(0))];
    node.create("co2", pb::Rule { actions, ..rule("CO2 > 1000") }).await;
    world.publish("d", &[(0, &[("CO2", 1_100.0)])]).await;
    let alarm = node.alarms_when("alarm", |alarms| alarms.len() == 1).await.remove(0);
    let acknowledge = pb::AcknowledgeAlarmRequest { name: alarm.name.clone(), ..Default::default() };
    node.alarms().acknowledge_alarm(admin(acknowledge)).await.unwrap();
    node.alarms_when("one action", |alarms| states(&alarms[0]) == [ActionState::Done]).await;
    let clear = pb::ClearAlarmRequest { name: alarm.name, ..Default::default() };
    node.alarms().clear_alarm(admin(clear)).await.unwrap();
    node.alarms_when("two actions", |alarms| states(&alarms[0]) == [ActionState::Done; 2]).await;
    assert_eq!(world.commands.sent.lock().len(), 2);
}
