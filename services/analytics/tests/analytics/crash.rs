//! Crashes at arbitrary moments: what fires equals what fires without them.

use std::collections::BTreeMap;

use weir_conformance::board::{Board, Seat};
use weir_core::port::{Records as _, Table, Write};
use weir_proto::analytics::v1 as pb;

use crate::world::{Node, World, admin, rule, second, seconds};

const DEVICES: [&str; 4] = ["a", "b", "c", "d"];

/// xorshift64*: a schedule is its seed (Vigna 2016).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    Frame {
        device: &'static str,
        readings: Vec<(i64, f64, Option<f64>)>,
    },
    /// Everything is evaluated, then: a rule is edited.
    Edit {
        limit: u64,
    },
    /// Everything is evaluated, then: a device's labels change.
    Label {
        device: &'static str,
        on: bool,
    },
    /// Everything is evaluated, then: the newest open alarm is cleared by hand.
    Clear,
}

fn schedule(random: &mut Random) -> Vec<Step> {
    let mut clocks = [0_i64; DEVICES.len()];
    (0..60)
        .map(|_| match random.below(30) {
            0 => Step::Edit { limit: 40 + random.below(30) },
            1 => Step::Label { device: DEVICES[random.below(4) as usize], on: random.below(2) == 0 },
            2 => Step::Clear,
            _ => {
                let which = random.below(4) as usize;
                let readings = (0..=random.below(6))
                    .map(|_| {
                        let late = random.below(8) == 0;
                        if !late {
                            clocks[which] += random.below(20) as i64;
                        }
                        let at = if late { clocks[which] - 30 } else { clocks[which] };
                        let other = (random.below(3) == 0).then(|| random.below(100) as f64);
                        (at, random.below(100) as f64, other)
                    })
                    .collect();
                Step::Frame { device: DEVICES[which], readings }
            }
        })
        .collect()
}

fn rules() -> Vec<(&'static str, pb::Rule)> {
    let command = pb::Action {
        kind: Some(pb::action::Kind::Command(pb::CommandAction {
            command: "go".to_owned(),
            payload: "{\"x\":\"${x}\"}".to_owned(),
            min_interval: Some(seconds(60)),
            ..Default::default()
        })),
        ..Default::default()
    };
    let rung = |severity: pb::Severity, condition: &str| pb::SeverityRung {
        severity: severity.into(),
        condition: condition.to_owned(),
    };
    vec![
        ("plain", pb::Rule { label_selector: "on=yes".to_owned(), actions: vec![command], ..rule("x > 50") }),
        (
            "held",
            pb::Rule {
                for_duration: Some(seconds(25)),
                clear_for_duration: Some(seconds(15)),
                ..rule("x > 30")
            },
        ),
        (
            "window",
            pb::Rule {
                clear_when: "avg(x, \"1m\") < 45".to_owned(),
                ..rule("avg(x, \"1m\") > 52 && max(y, \"2m\") > 10")
            },
        ),
        (
            "ladder",
            pb::Rule {
                severities: vec![rung(pb::Severity::Minor, "x > 60"), rung(pb::Severity::Critical, "x > 85")],
                max_gap: Some(seconds(18)),
                ..Default::default()
            },
        ),
    ]
}

/// An alarm without what differs between two runs by nature: ids, and times of the wall.
type Fired = (String, String, i64, i32, i32, String, Vec<(i32, Option<i64>, String, i32)>, Vec<(i32, i32)>);

fn comparable(alarm: &pb::Alarm) -> Fired {
    // Where a change that is no reading came between two frames depends on when it was heard of.
    let by_reading = |event: &pb::AlarmEvent| event.actor == "rule";
    let history = alarm.history.iter().map(|event| {
        let position = if by_reading(event) { event.position.clone() } else { String::new() };
        (event.r#type, second(event.event_time), position, event.severity)
    });
    let actions = alarm.actions.iter().map(|action| (action.on, action.state));
    (
        alarm.device.clone(),
        alarm.rule.clone(),
        alarm.rule_revision,
        alarm.severity,
        alarm.state,
        alarm.clear_reason.clone(),
        history.collect(),
        actions.collect(),
    )
}

struct Run {
    world: World,
    /// The newest replica, and where it sits.
    node: Node,
    seat: Seat,
    /// Older ones, that share its partitions.
    others: Vec<(Node, Seat)>,
    board: Board,
    /// Of each device.
    published: BTreeMap<&'static str, u64>,
}

/// What happens between steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disturbance {
    /// The service is killed and started again.
    Crashes,
    /// Replicas join, leave, die and stall.
    Replicas,
}

impl Run {
    async fn begin() -> Self {
        let world = World::new();
        for (index, device) in DEVICES.into_iter().enumerate() {
            world.devices.put("acme", device, &[("on", if index % 2 == 0 { "yes" } else { "no" })]);
        }
        let board = Board::default();
        let seat = board.seat("first");
        let node = world.start_with(std::sync::Arc::new(seat.clone())).await;
        for (id, rule) in rules() {
            node.create(id, rule).await;
        }
        Self { world, node, seat, others: vec![], board, published: BTreeMap::new() }
    }

    /// Starts another replica, which is asked from now on.
    async fn join(&mut self) {
        let seat = self.board.seat("another");
        let node = self.world.start_with(std::sync::Arc::new(seat.clone())).await;
        let old = (std::mem::replace(&mut self.node, node), std::mem::replace(&mut self.seat, seat));
        self.others.push(old);
    }

    async fn crash(&mut self) {
        self.seat.cut_off();
        self.join().await;
        self.others.clear();
    }

    /// One replica more, or one of the older ones less.
    async fn move_about(&mut self, random: &mut Random) {
        if self.others.len() < 2 {
            return self.join().await;
        }
        let (node, seat) = self.others.remove(random.below(self.others.len() as u64) as usize);
        match random.below(3) {
            0 => weir_runtime::Service::drain(&*node.service).await,
            1 => {
                node.kill();
                seat.cut_off();
            }
            // Nobody sees it any more; it still believes that its partitions are its own, and goes on.
            _ => {
                seat.cut_off();
                for _ in 0..random.below(300) {
                    tokio::task::yield_now().await;
                }
                node.kill();
            }
        }
    }

    async fn evaluated(&self) {
        for (device, sequence) in &self.published {
            self.world.recorded_through(device, *sequence).await;
        }
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Frame { device, readings } => {
                let values: Vec<(i64, Vec<(&str, f64)>)> = readings
                    .iter()
                    .map(|(at, x, y)| (*at, [("x", *x)].into_iter().chain(y.map(|y| ("y", y))).collect()))
                    .collect();
                let readings: Vec<(i64, &[(&str, f64)])> =
                    values.iter().map(|(at, values)| (*at, values.as_slice())).collect();
                let sequence = self.world.publish(device, &readings).await;
                self.published.insert(device, sequence);
            }
            Step::Edit { limit } => {
                self.evaluated().await;
                let edited = pb::Rule {
                    name: "tenants/acme/rules/plain".to_owned(),
                    condition: format!("x > {limit}"),
                    ..Default::default()
                };
                let mask = prost_types::FieldMask { paths: vec!["condition".to_owned()] };
                let request = pb::UpdateRuleRequest {
                    rule: Some(edited),
                    update_mask: Some(mask),
                    ..Default::default()
                };
                self.node.rules().update_rule(admin(request)).await.unwrap();
            }
            Step::Label { device, on } => {
                self.evaluated().await;
                self.world.devices.put("acme", device, &[("on", if *on { "yes" } else { "no" })]);
                self.world.device_changed(device).await;
                let on = if *on { "yes" } else { "no" };
                self.world
                    .taken_over(device, |changes| {
                        let of_device =
                            |change: &&serde_json::Value| change["device"]["key"]["device"] == *device;
                        let last = changes.iter().rev().find(of_device);
                        last.is_none_or(|last| last["device"]["labels"]["on"] == on)
                    })
                    .await;
            }
            Step::Clear => {
                self.evaluated().await;
                let mut open = self.node.list().await;
                open.retain(|alarm| alarm.clear_time.is_none());
                open.sort_by_key(|alarm| (alarm.history[0].position.clone(), alarm.rule.clone()));
                if let Some(alarm) = open.pop() {
                    let name = alarm.name.clone();
                    let request = pb::ClearAlarmRequest {
                        name: alarm.name,
                        request_id: "by-hand".to_owned(),
                        ..Default::default()
                    };
                    self.node.alarms().clear_alarm(admin(request)).await.unwrap();
                    let device = alarm.device.rsplit('/').next().unwrap();
                    let uid = name.rsplit('/').next().unwrap();
                    self.world
                        .taken_over(device, |changes| {
                            changes.iter().any(|change| change["person"]["alarm"] == uid)
                        })
                        .await;
                }
            }
        }
    }

    async fn fired(&self) -> Vec<Fired> {
        self.evaluated().await;
        let pending: i32 = pb::ActionState::Pending.into();
        let alarms = self
            .node
            .alarms_when("actions that ended", |alarms| {
                alarms.iter().flat_map(|alarm| &alarm.actions).all(|action| action.state != pending)
            })
            .await;
        let mut fired: Vec<Fired> = alarms.iter().map(comparable).collect();
        fired.sort();
        fired
    }
}

/// Runs a schedule, disturbed with the given chance (in percent) after each step.
async fn run(steps: &[Step], disturbed: Option<(&mut Random, u64, Disturbance)>) -> (Vec<Fired>, usize) {
    let mut run = Run::begin().await;
    let mut disturbed = disturbed;
    for step in steps {
        run.step(step).await;
        if let Some((random, percent, disturbance)) = &mut disturbed
            && random.below(100) < *percent
        {
            // Somewhere in the middle of evaluating, recording or delivering.
            for _ in 0..random.below(200) {
                tokio::task::yield_now().await;
            }
            match disturbance {
                Disturbance::Crashes => run.crash().await,
                Disturbance::Replicas => run.move_about(random).await,
            }
        }
    }
    let fired = run.fired().await;
    let calls = run.world.commands.sent.lock().len();
    (fired, calls)
}

async fn equals_the_undisturbed_run(seed: u64, disturbance: Disturbance) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let steps = schedule(&mut random);
    let (calm, calm_commands) = run(&steps, None).await;
    let (crashed, commands) = run(&steps, Some((&mut random, 30, disturbance))).await;
    assert!(calm.len() > 5, "seed {seed} lets too little happen: {}", calm.len());
    for (calm, crashed) in calm.iter().zip(&crashed) {
        assert_eq!(calm, crashed, "seed {seed}");
    }
    assert_eq!((calm.len(), calm_commands), (crashed.len(), commands), "seed {seed}");
}

/// One schedule is replayed by its seed: `WEIR_TEST_SEED=7`.
fn seeds(until: u64) -> Vec<u64> {
    match std::env::var("WEIR_TEST_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=until).collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alarms_and_commands_after_crashes_equal_those_without() {
    for seed in seeds(8) {
        equals_the_undisturbed_run(seed, Disturbance::Crashes).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alarms_and_commands_while_replicas_come_and_go_equal_those_of_one() {
    for seed in seeds(4) {
        equals_the_undisturbed_run(seed, Disturbance::Replicas).await;
    }
}

#[tokio::test]
async fn a_rule_that_was_edited_while_nobody_was_there_judges_no_reading_twice() {
    let mut world = World::new();
    world.config.checkpoint_interval = std::time::Duration::from_secs(3_600);
    world.devices.put("acme", "d", &[]);
    let node = world.start().await;
    node.create("hot", rule("t > 30")).await;
    // A checkpoint comes with the rule or with the first frame. The second is in none, but its alarm can be seen.
    world.publish("d", &[(0, &[("t", 1.0)])]).await;
    node.evaluated("hot", 1).await;
    world.publish("d", &[(10, &[("t", 35.0)])]).await;
    node.alarms_when("alarm", |alarms| alarms.len() == 1).await;
    node.kill();
    edit_behind_the_back(&world, "t > 30", "t > 40").await;

    let node = world.start().await;
    world.publish("d", &[(20, &[("t", 36.0)])]).await;
    let alarms = node.alarms_when("cleared alarm", |alarms| alarms[0].clear_time.is_some()).await;
    assert_eq!((alarms.len(), alarms[0].rule_revision, second(alarms[0].clear_time)), (1, 1, Some(20)));
    world.publish("d", &[(30, &[("t", 41.0)])]).await;
    let alarms = node.alarms_when("second alarm", |alarms| alarms.len() == 2).await;
    assert_eq!(alarms[0].rule_revision, 2);
}

#[tokio::test]
async fn what_changed_after_the_log_was_lost_counts_from_its_first_frame_when_it_is_read_again() {
    let mut world = World::new();
    world.devices.put("acme", "d", &[("on", "no")]);
    let node = world.start().await;
    node.create("hot", pb::Rule { label_selector: "on=yes".to_owned(), ..rule("t > 30") }).await;
    let mut last = 0;
    for at in 0..10 {
        last = world.publish("d", &[(at, &[("t", 1.0)])]).await;
    }
    world.recorded_through("d", last).await;
    node.kill();
    world.lose_log();
    world.config.checkpoint_interval = std::time::Duration::from_secs(3_600);

    let node = world.start().await;
    // A checkpoint comes with the first of these changes; the second is in none when the service is killed.
    for on in ["perhaps", "yes"] {
        world.devices.put("acme", "d", &[("on", on)]);
        world.device_changed("d").await;
        world
            .taken_over("d", |changes| {
                changes.iter().any(|change| change["device"]["labels"]["on"].as_str() == Some(on))
            })
            .await;
    }
    world.publish("d", &[(20, &[("t", 35.0)])]).await;
    node.alarms_when("alarm", |alarms| alarms.len() == 1).await;
    node.kill();

    let node = world.start().await;
    world.publish("d", &[(30, &[("t", 1.0)])]).await;
    node.alarms_when("alarm that is cleared", |alarms| alarms[0].clear_time.is_some()).await;
}

#[tokio::test]
async fn a_deleted_device_without_rules_is_forgotten_whether_its_owner_heard_of_it_or_not() {
    let world = World::new();
    for device in ["stays", "told", "missed"] {
        world.devices.put("acme", device, &[]);
    }
    let node = world.start().await;
    for device in ["stays", "told", "missed"] {
        world.publish(device, &[(0, &[("t", 1.0)])]).await;
        world.state_kept(device, true).await;
    }
    world.devices.remove("acme", "told");
    world.device_changed("told").await;
    world.state_kept("told", false).await;
    node.kill();
    world.devices.remove("acme", "missed");
    let _node = world.start().await;
    world.state_kept("missed", false).await;
    world.state_kept("stays", true).await;
}

/// Edits a stored rule as a replica would of which no owner has heard.
async fn edit_behind_the_back(world: &World, from: &str, to: &str) {
    const RULES: Table = Table("rules");
    let stored = world.store.get(RULES, b"acme", b"r/hot").await.unwrap().unwrap();
    let text = std::str::from_utf8(&stored.value).unwrap();
    let text = text.replace(from, to).replace("\"revision\":1", "\"revision\":2");
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rule = record["rule"].take();
    let uid: weir_core::Uid = rule["uid"].as_str().unwrap().parse().unwrap();
    let revision = [b"v/".as_slice(), &uid.to_bytes(), &2_u64.to_be_bytes()].concat();
    let version = world.store.get(RULES, b"acme", b"version").await.unwrap().unwrap().value;
    let writes = vec![
        Write::put("r/hot", text),
        Write::put(revision, rule.to_string()),
        Write::put("version", version),
    ];
    world.store.commit(RULES, b"acme", writes).await.unwrap();
}
