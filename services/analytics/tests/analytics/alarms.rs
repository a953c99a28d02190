//! The life of alarms.

use weir_proto::analytics::v1::{self as pb, AlarmEventType as Type, AlarmState};

use crate::world::{Node, SetClock, World, admin, rule, second, seconds};

fn types(alarm: &pb::Alarm) -> Vec<Type> {
    alarm.history.iter().map(|event| event.r#type()).collect()
}

/// What a test of a stored rule, from its start, says.
pub(crate) async fn tested(
    node: &Node,
    rule: &str,
) -> (Vec<(String, Type, Option<i64>, String)>, pb::TestSummary) {
    let request = pb::TestRuleRequest {
        parent: "tenants/acme".to_owned(),
        subject: Some(pb::test_rule_request::Subject::Name(format!("tenants/acme/rules/{rule}"))),
        ..Default::default()
    };
    let mut answers = node.rules().test_rule(admin(request)).await.unwrap().into_inner();
    let (mut found, mut summary) = (vec![], None);
    while let Some(answer) = answers.message().await.unwrap() {
        found.extend(answer.transitions.into_iter().map(|transition| {
            (
                transition.device.clone(),
                transition.r#type(),
                second(transition.event_time),
                transition.position,
            )
        }));
        summary = answer.summary.or(summary);
    }
    (found, summary.unwrap())
}

/// What fired, in the order of a test.
pub(crate) async fn fired(node: &Node, rule: &str) -> Vec<(String, Type, Option<i64>, String)> {
    let mut alarms = node.list().await;
    alarms.retain(|alarm| alarm.rule == format!("tenants/acme/rules/{rule}"));
    let mut found: Vec<_> = alarms
        .iter()
        .flat_map(|alarm| {
            alarm.history.iter().map(|event| {
                (alarm.device.clone(), event.r#type(), second(event.event_time), event.position.clone())
            })
        })
        .collect();
    found.sort_by(|a, b| (&a.0, &a.3).cmp(&(&b.0, &b.3)));
    found
}

#[tokio::test]
async fn an_alarm_lives_in_event_time_with_late_data_and_a_gap() {
    let world = World::new();
    world.devices.put("acme", "room", &[("type", "room")]);
    world.devices.put("acme", "hall", &[("type", "hall")]);
    let node = world.start().await;
    let wanted = pb::Rule {
        label_selector: "type=room".to_owned(),
        for_duration: Some(seconds(60)),
        clear_for_duration: Some(seconds(30)),
        max_gap: Some(seconds(120)),
        ..rule("CO2 > 1000")
    };
    node.create("co2", wanted).await;
    world.publish("hall", &[(0, &[("CO2", 5_000.0)]), (100, &[("CO2", 5_000.0)])]).await;
    world.publish("room", &[(0, &[("CO2", 1_100.0)]), (30, &[("CO2", 1_200.0)])]).await;
    // A silence of more than 120 s: `for` begins again. Late values are never seen.
    world.publish("room", &[(200, &[("CO2", 1_300.0)]), (190, &[("CO2", 1.0)])]).await;
    world
        .publish("room", &[(230, &[("CO2", 1_350.0)]), (100, &[("CO2", 1.0)]), (260, &[("CO2", 1_400.0)])])
        .await;
    let alarms = node.alarms_when("alarm of room", |alarms| alarms.len() == 1).await;
    let alarm = &alarms[0];
    assert_eq!((alarm.device.as_str(), alarm.state()), ("tenants/acme/devices/room", AlarmState::Raised));
    assert_eq!(second(alarm.raise_time), Some(260));
    assert_eq!(alarm.values.get("CO2").map(String::as_str), Some("1400"));

    world
        .publish("room", &[(300, &[("CO2", 900.0)]), (329, &[("CO2", 900.0)]), (330, &[("CO2", 900.0)])])
        .await;
    let alarms = node.alarms_when("cleared alarm", |alarms| alarms[0].state() == AlarmState::Cleared).await;
    assert_eq!((second(alarms[0].clear_time), alarms[0].clear_reason.as_str()), (Some(330), "CONDITION"));
    assert_eq!(types(&alarms[0]), [Type::Raised, Type::Cleared]);

    let (told, summary) = tested(&node, "co2").await;
    assert!(summary.exact, "{summary:?}");
    assert_eq!((summary.devices, summary.readings), (1, 8), "{summary:?}");
    assert_eq!(told, fired(&node, "co2").await);
}

#[tokio::test]
async fn a_reading_that_follows_a_created_rule_is_seen_by_it() {
    let world = World::new();
    world.devices.put("acme", "d", &[]);
    let node = world.start().await;
    for round in 0..20_i64 {
        let id = format!("rule-{round}");
        node.create(&id, rule(&format!("x == {round}"))).await;
        world.publish("d", &[(round, &[("x", round as f64)])]).await;
    }
    let alarms = node.alarms_when("alarm of each rule", |alarms| alarms.len() == 20).await;
    let mut raised: Vec<_> = alarms.iter().map(|alarm| second(alarm.raise_time).unwrap()).collect();
    raised.sort_unstable();
    assert_eq!(raised, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_manual_clear_holds_until_the_condition_was_false_once() {
    let world = World::new();
    world.devices.put("acme", "d", &[]);
    let node = world.start().await;
    node.create("hot", rule("t > 30")).await;
    world.publish("d", &[(0, &[("t", 31.0)])]).await;
    let alarm = node.alarms_when("alarm", |alarms| alarms.len() == 1).await.remove(0);

    let acknowledge = pb::AcknowledgeAlarmRequest {
        name: alarm.name.clone(),
        comment: "on my way".to_owned(),
        request_id: "a".to_owned(),
    };
    for _ in 0..2 {
        let answer = node.alarms().acknowledge_alarm(admin(acknowledge.clone())).await.unwrap().into_inner();
        assert_eq!(types(answer.alarm.as_ref().unwrap()), [Type::Raised, Type::Acknowledged]);
    }
    let clear =
        pb::ClearAlarmRequest { name: alarm.name, comment: String::new(), request_id: "c".to_owned() };
    let cleared = node.alarms().clear_alarm(admin(clear.clone())).await.unwrap().into_inner().alarm.unwrap();
    assert_eq!((cleared.state(), cleared.clear_reason.as_str()), (AlarmState::Cleared, "MANUAL"));
    assert_eq!(cleared.history.last().unwrap().actor, "token:admin@acme");
    assert_eq!(node.alarms().clear_alarm(admin(clear)).await.unwrap().into_inner().alarm.unwrap(), cleared);

    // The owner learns of it by a signal; it may come before or after the readings that follow, and means the same.
    world.publish("d", &[(10, &[("t", 32.0)]), (20, &[("t", 33.0)])]).await;
    world.publish("d", &[(30, &[("t", 20.0)]), (40, &[("t", 34.0)])]).await;
    let alarms = node.alarms_when("second alarm", |alarms| alarms.len() >= 2).await;
    assert_eq!(alarms.len(), 2);
    assert_eq!(second(alarms[0].raise_time), Some(40));
    assert_eq!(alarms[1].clear_reason, "MANUAL");
    let acknowledge = pb::AcknowledgeAlarmRequest { name: alarms[1].name.clone(), ..Default::default() };
    let late = node.alarms().acknowledge_alarm(admin(acknowledge)).await.unwrap_err();
    assert_eq!(late.code(), tonic::Code::FailedPrecondition);
}

#[tokio::test]
async fn an_open_alarm_keeps_its_revision_and_is_closed_with_its_rule_or_device() {
    let world = World::new();
    for device in ["a", "b"] {
        world.devices.put("acme", device, &[("on", "yes")]);
    }
    let node = world.start().await;
    let made = node.create("hot", pb::Rule { label_selector: "on=yes".to_owned(), ..rule("t > 30") }).await;
    for device in ["a", "b"] {
        world.publish(device, &[(0, &[("t", 31.0)])]).await;
    }
    node.alarms_when("two alarms", |alarms| alarms.len() == 2).await;
    let edited = pb::Rule { condition: "t > 40".to_owned(), etag: String::new(), ..made };
    node.rules()
        .update_rule(admin(pb::UpdateRuleRequest { rule: Some(edited), ..Default::default() }))
        .await
        .unwrap();
    // The condition of the new revision is false: the old alarm clears by it, and keeps its old revision.
    world.publish("a", &[(10, &[("t", 35.0)])]).await;
    let of = |alarms: &[pb::Alarm], device: &str| {
        alarms.iter().find(|alarm| alarm.device.ends_with(device)).unwrap().clone()
    };
    let alarms = node
        .alarms_when("cleared alarm of a", |alarms| of(alarms, "/a").state() == AlarmState::Cleared)
        .await;
    assert_eq!((of(&alarms, "/a").rule_revision, of(&alarms, "/a").clear_reason.as_str()), (1, "CONDITION"));

    world.devices.remove("acme", "b");
    world.device_changed("b").await;
    let alarms =
        node.alarms_when("closed alarm of b", |alarms| of(alarms, "/b").state() == AlarmState::Cleared).await;
    assert_eq!(of(&alarms, "/b").clear_reason, "DEVICE_REMOVED");

    world.publish("a", &[(20, &[("t", 50.0)])]).await;
    node.alarms_when("second alarm of a", |alarms| alarms.len() == 3).await;
    let delete = pb::DeleteRuleRequest { name: "tenants/acme/rules/hot".to_owned(), ..Default::default() };
    node.rules().delete_rule(admin(delete)).await.unwrap();
    let alarms = node.alarms_when("no open alarm", |alarms| alarms[0].state() == AlarmState::Cleared).await;
    assert_eq!((alarms[0].rule_revision, alarms[0].clear_reason.as_str()), (2, "RULE_REMOVED"));
}

#[tokio::test]
async fn lists_page_newest_first_and_filter() {
    let world = World::new();
    let node = world.start().await;
    node.create("hot", rule("t > 30")).await;
    node.create("cold", rule("t < 0")).await;
    for (number, device) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        world.devices.put("acme", device, &[]);
        world.publish(device, &[(0, &[("t", 31.0)]), (1, &[("t", -1.0)])]).await;
        node.alarms_when("two more alarms", |alarms| alarms.len() == 2 * (number + 1)).await;
    }
    let list = |request: pb::ListAlarmsRequest| {
        let mut client = node.alarms();
        async move { client.list_alarms(admin(request)).await.unwrap().into_inner() }
    };
    let base =
        pb::ListAlarmsRequest { parent: "tenants/acme".to_owned(), page_size: 3, ..Default::default() };
    let (mut token, mut seen) = (String::new(), vec![]);
    loop {
        let page = list(pb::ListAlarmsRequest { page_token: token, ..base.clone() }).await;
        assert!(page.alarms.len() <= 3);
        seen.extend(page.alarms.into_iter().map(|alarm| alarm.device));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let newest_first: Vec<String> = ["e", "e", "d", "d", "c", "c", "b", "b", "a", "a"]
        .map(|id| format!("tenants/acme/devices/{id}"))
        .into();
    assert_eq!(seen, newest_first);
    let count = |request: pb::ListAlarmsRequest| {
        let found = list(pb::ListAlarmsRequest { page_size: 0, ..request });
        async move { found.await.alarms.len() }
    };
    let raised: i32 = AlarmState::Raised.into();
    let cleared: i32 = AlarmState::Cleared.into();
    assert_eq!(
        count(pb::ListAlarmsRequest { device: "tenants/acme/devices/c".to_owned(), ..base.clone() }).await,
        2
    );
    assert_eq!(
        count(pb::ListAlarmsRequest { rule: "tenants/acme/rules/hot".to_owned(), ..base.clone() }).await,
        5
    );
    assert_eq!(count(pb::ListAlarmsRequest { state: cleared, ..base.clone() }).await, 5);
    let open_hot =
        pb::ListAlarmsRequest { rule: "tenants/acme/rules/hot".to_owned(), state: raised, ..base.clone() };
    assert_eq!(count(open_hot).await, 0);
    let get = pb::GetRuleRequest { name: "tenants/acme/rules/cold".to_owned() };
    let status = node.rules().get_rule(admin(get)).await.unwrap().into_inner().status.unwrap();
    assert_eq!((status.open_alarms, status.evaluations), (5, 10));
}

#[tokio::test]
async fn a_watcher_sees_what_is_open_then_every_change_and_can_go_on() {
    let world = World::new();
    world.devices.put("acme", "d", &[]);
    let node = world.start().await;
    node.create("hot", rule("t > 30")).await;
    world.publish("d", &[(0, &[("t", 31.0)])]).await;
    node.alarms_when("alarm", |alarms| alarms.len() == 1).await;
    let watch = |cursor: String| {
        let mut client = node.alarms();
        let request = pb::WatchAlarmsRequest {
            parent: "tenants/acme".to_owned(),
            resume_cursor: cursor,
            ..Default::default()
        };
        async move { client.watch_alarms(admin(request)).await.unwrap().into_inner() }
    };
    use pb::WatchAlarmsEvent::{Alarm, Synced};
    let mut stream = watch(String::new()).await;
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!((first.event(), first.alarm.unwrap().state()), (Alarm, AlarmState::Raised));
    let synced = stream.message().await.unwrap().unwrap();
    assert_eq!(synced.event(), Synced);
    world.publish("d", &[(1, &[("t", 3.0)])]).await;
    let change = stream.message().await.unwrap().unwrap();
    assert_eq!((change.event(), change.alarm.as_ref().unwrap().state()), (Alarm, AlarmState::Cleared));

    let mut resumed = watch(synced.cursor).await;
    assert_eq!(resumed.message().await.unwrap().unwrap().event(), Synced);
    let again = resumed.message().await.unwrap().unwrap();
    assert_eq!((again.event(), &again.alarm), (Alarm, &change.alarm));
    weir_runtime::Service::stop_intake(&*node.service).await;
    let ended = resumed.message().await.unwrap_err();
    assert_eq!(ended.code(), tonic::Code::Unavailable);
}

#[tokio::test]
async fn a_test_from_another_start_is_a_simulation_and_says_so() {
    let world = World::new();
    world.devices.put("acme", "d", &[]);
    let node = world.start().await;
    world.publish("d", &[(0, &[("t", 31.0)]), (50, &[("t", 32.0)]), (100, &[("t", 33.0)])]).await;
    let given = pb::Rule { for_duration: Some(seconds(50)), ..rule("t > 30") };
    let request = |start: Option<i64>| pb::TestRuleRequest {
        parent: "tenants/acme".to_owned(),
        subject: Some(pb::test_rule_request::Subject::Rule(given.clone())),
        start_time: start
            .map(|start| prost_types::Timestamp { seconds: crate::world::START + start, nanos: 0 }),
        ..Default::default()
    };
    for (start, raised) in [(None, Some(50)), (Some(100), Some(100))] {
        let mut answers = node.rules().test_rule(admin(request(start))).await.unwrap().into_inner();
        let (mut found, mut summary) = (vec![], None);
        while let Some(answer) = answers.message().await.unwrap() {
            found.extend(answer.transitions);
            summary = answer.summary.or(summary);
        }
        let summary = summary.unwrap();
        assert!(!summary.exact && summary.note.contains("not stored"), "{summary:?}");
        assert_eq!(found.first().and_then(|transition| second(transition.event_time)), raised, "{start:?}");
    }
    assert_eq!(node.list().await, []);
}

#[tokio::test]
async fn a_device_that_speaks_before_and_after_an_outage_was_not_silent() {
    let clock = SetClock::at(0);
    let mut world = World::new();
    world.clock = clock.clone();
    world.devices.put("acme", "d", &[]);
    let node = world.start().await;
    node.create("silent", rule("absent(t, \"10m\")")).await;
    let sequence = world.publish("d", &[(0, &[("t", 31.0)])]).await;
    world.recorded_through("d", sequence).await;
    node.kill();

    // Another reading is still in the log that nobody has evaluated.
    world.publish("d", &[(1, &[("t", 31.0)])]).await;
    clock.set(3_600);
    let node = world.start().await;
    node.evaluated("silent", 3).await;
    let sequence = world.publish("d", &[(3_601, &[("t", 31.0)])]).await;
    world.recorded_through("d", sequence).await;
    assert_eq!(node.list().await, []);
    node.kill();

    // What was read after an outage is read again after the next one.
    clock.set(7_200);
    let node = world.start().await;
    let sequence = world.publish("d", &[(7_201, &[("t", 31.0)])]).await;
    world.recorded_through("d", sequence).await;
    assert_eq!(node.list().await, []);
    let (told, _) = tested(&node, "silent").await;
    assert_eq!(told, []);
}

#[tokio::test]
async fn silence_counts_only_while_somebody_listens_and_raises_once() {
    let clock = SetClock::at(0);
    let mut world = World::new();
    world.clock = clock.clone();
    world.devices.put("acme", "d", &[]);
    let node = world.start().await;
    node.create("silent", rule("absent(t, \"10m\")")).await;
    let sequence = world.publish("d", &[(0, &[("t", 31.0)])]).await;
    world.recorded_through("d", sequence).await;
    node.kill();

    // An hour in which nobody listened is no silence of the device.
    clock.set(3_600);
    let node = world.start().await;
    node.evaluated("silent", 2).await;
    assert_eq!(node.list().await, []);
    clock.set(3_600 + 605);
    let alarms = node.alarms_when("alarm of silence", |alarms| alarms.len() == 1).await;
    assert_eq!(second(alarms[0].raise_time), Some(605));
    node.kill();

    let node = world.start().await;
    node.evaluated("silent", 2).await;
    assert_eq!(node.list().await, alarms);
    clock.set(4_300);
    world.publish("d", &[(4_300, &[("t", 31.0)])]).await;
    let alarms = node.alarms_when("cleared alarm", |alarms| alarms[0].state() == AlarmState::Cleared).await;
    assert_eq!(alarms.len(), 1);
    let (told, summary) = tested(&node, "silent").await;
    assert!(summary.exact && summary.note.contains("approximate"), "{summary:?}");
    assert_eq!(told.iter().map(|told| told.1).collect::<Vec<_>>(), [Type::Raised, Type::Cleared]);
}
