//! Two replicas that share the partitions: each answers everything, whoever owns what.

use std::{collections::BTreeSet, sync::Arc};

use tonic::Streaming;
use weir_conformance::board::Board;
use weir_proto::analytics::v1::{self as pb, AlarmEventType as Type, AlarmState};

use crate::{
    alarms::{fired, tested},
    world::{Node, World, admin, rule},
};

/// Enough that each partition has one, so each replica owns some.
const DEVICES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

struct Pair {
    world: World,
    one: Node,
    two: Node,
}

impl Pair {
    async fn start() -> Self {
        let (world, board) = (World::new(), Board::default());
        for id in DEVICES {
            world.devices.put("acme", id, &[]);
        }
        let one = world.start_with(Arc::new(board.seat("one"))).await;
        let two = world.start_with(Arc::new(board.seat("two"))).await;
        Self { world, one, two }
    }

    /// One reading of every device.
    async fn publish(&self, at: i64, value: f64) {
        for id in DEVICES {
            self.world.publish(id, &[(at, &[("t", value)])]).await;
        }
    }
}

async fn watch(node: &Node) -> Streaming<pb::WatchAlarmsResponse> {
    let request = pb::WatchAlarmsRequest { parent: "tenants/acme".to_owned(), ..Default::default() };
    let mut stream = node.alarms().watch_alarms(admin(request)).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.event(), pb::WatchAlarmsEvent::Synced);
    stream
}

/// The devices of the alarms that come, until there is one of each.
async fn seen(stream: &mut Streaming<pb::WatchAlarmsResponse>, state: AlarmState) {
    let mut missing: BTreeSet<String> =
        DEVICES.iter().map(|id| format!("tenants/acme/devices/{id}")).collect();
    let all = async {
        while !missing.is_empty() {
            let message = stream.message().await.unwrap().unwrap();
            if let Some(alarm) = message.alarm.filter(|alarm| alarm.state() == state) {
                assert!(missing.remove(&alarm.device), "{} is told once", alarm.device);
            }
        }
    };
    let done = tokio::time::timeout(std::time::Duration::from_secs(30), all).await;
    assert!(done.is_ok(), "{state:?} was not seen of {missing:?}");
}

#[tokio::test]
async fn an_alarm_is_seen_by_watchers_and_changed_by_people_at_either_replica() {
    let pair = Pair::start().await;
    let mut streams = [watch(&pair.one).await, watch(&pair.two).await];
    pair.one.create("hot", rule("t > 30")).await;
    pair.publish(0, 40.0).await;
    for stream in &mut streams {
        seen(stream, AlarmState::Raised).await;
    }
    let alarms = pair.two.alarms_when("alarms of all", |alarms| alarms.len() == DEVICES.len()).await;
    // Each at the other replica than the one before: half of them where the partition is not owned.
    for (index, alarm) in alarms.iter().enumerate() {
        let node = if index % 2 == 0 { &pair.one } else { &pair.two };
        let request = pb::AcknowledgeAlarmRequest { name: alarm.name.clone(), ..Default::default() };
        node.alarms().acknowledge_alarm(admin(request)).await.unwrap();
        let device = alarm.device.rsplit('/').next().unwrap();
        let uid = alarm.name.rsplit('/').next().unwrap();
        pair.world
            .taken_over(device, |changes| changes.iter().any(|change| change["person"]["alarm"] == uid))
            .await;
    }
    for stream in &mut streams {
        seen(stream, AlarmState::Acknowledged).await;
    }
    for (index, alarm) in alarms.iter().enumerate() {
        let node = if index % 2 == 0 { &pair.two } else { &pair.one };
        let request = pb::ClearAlarmRequest { name: alarm.name.clone(), ..Default::default() };
        node.alarms().clear_alarm(admin(request)).await.unwrap();
    }
    for stream in &mut streams {
        seen(stream, AlarmState::Cleared).await;
    }
    for (device, alarm) in alarms.iter().map(|alarm| (alarm.device.rsplit('/').next().unwrap(), alarm)) {
        let uid = alarm.name.rsplit('/').next().unwrap();
        let of_alarm = |change: &&serde_json::Value| change["person"]["alarm"] == uid;
        pair.world.taken_over(device, |changes| changes.iter().filter(of_alarm).count() == 2).await;
    }
    // A clear by hand holds until the condition was false once, also where another replica took it.
    pair.publish(1, 41.0).await;
    pair.publish(2, 1.0).await;
    pair.publish(3, 42.0).await;
    let alarms =
        pair.one.alarms_when("a second alarm of each", |alarms| alarms.len() == 2 * DEVICES.len()).await;
    assert!(alarms.iter().take(DEVICES.len()).all(|alarm| alarm.state() == AlarmState::Raised));
}

#[tokio::test]
async fn a_rule_made_at_one_replica_acts_once_wherever_its_devices_are_and_a_test_says_so_at_both() {
    let pair = Pair::start().await;
    let command = pb::Action {
        kind: Some(pb::action::Kind::Command(pb::CommandAction {
            command: "go".to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    };
    pair.two.create("hot", pb::Rule { actions: vec![command], ..rule("t > 30") }).await;
    for (at, value) in [(0, 10.0), (10, 40.0), (20, 20.0), (30, 50.0)] {
        pair.publish(at, value).await;
    }
    let pending: i32 = pb::ActionState::Pending.into();
    for node in [&pair.one, &pair.two] {
        let alarms = node
            .alarms_when("two alarms of each, one of them open, and their actions done", |alarms| {
                alarms.len() == 2 * DEVICES.len()
                    && alarms.iter().filter(|alarm| alarm.clear_time.is_none()).count() == DEVICES.len()
                    && alarms.iter().flat_map(|alarm| &alarm.actions).all(|action| action.state != pending)
            })
            .await;
        assert_eq!(alarms.iter().map(|alarm| alarm.actions.len()).sum::<usize>(), 2 * DEVICES.len());
    }
    let sent = pair.world.commands.sent.lock().len();
    assert_eq!(sent, DEVICES.len(), "the second of each within ten minutes is suppressed");
    let expected = fired(&pair.one, "hot").await;
    assert!(expected.iter().filter(|(_, kind, ..)| *kind == Type::Raised).count() == 2 * DEVICES.len());
    for node in [&pair.one, &pair.two] {
        let (found, summary) = tested(node, "hot").await;
        assert_eq!(found, expected);
        assert!(summary.exact);
    }
}
