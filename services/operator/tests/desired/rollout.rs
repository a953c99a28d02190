//! Rollouts: whatever happens in between, they converge, in their order.

use proptest::prelude::*;
use weir_operator::desired::Answers;

use crate::world::{COMPONENTS, World, embedded, shared};

#[derive(Debug, Clone)]
enum Happening {
    /// The operator reconciles, and ends after so many writes.
    Reconcile(usize),
    Ready(usize),
    LosePods(usize),
    JobsEnd,
    Time(i64),
    /// Somebody removes an object.
    Remove(usize),
    Version(u8),
    Scale(i32),
    /// The readers of the log fall behind, catch up, or cannot be asked.
    Lag(Option<i64>),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (0..40_usize).prop_map(Happening::Reconcile),
        6 => (0..COMPONENTS.len()).prop_map(Happening::Ready),
        1 => (0..COMPONENTS.len()).prop_map(Happening::LosePods),
        2 => Just(Happening::JobsEnd),
        2 => (1..400_i64).prop_map(Happening::Time),
        1 => (0..40_usize).prop_map(Happening::Remove),
        1 => (0..3_u8).prop_map(Happening::Version),
        1 => (0..3_i32).prop_map(Happening::Scale),
        1 => prop_oneof![Just(None), Just(Some(0)), Just(Some(50_000))].prop_map(Happening::Lag),
    ]
}

fn happen(world: &mut World, happening: Happening) {
    match happening {
        Happening::Reconcile(writes) => world.reconcile(writes),
        Happening::Ready(index) => world.become_ready(COMPONENTS[index]),
        Happening::LosePods(index) => world.lose_pods(COMPONENTS[index]),
        Happening::JobsEnd => world.jobs_end(),
        Happening::Time(seconds) => world.now_s += seconds,
        Happening::Remove(index) => {
            let found = world.objects.keys().filter(|key| key.0 != "ConfigMap").nth(index).cloned();
            found.into_iter().for_each(|key| drop(world.objects.remove(&key)));
        }
        Happening::Version(minor) => world.set_version(&format!("1.{minor}.0")),
        Happening::Lag(lag) => world.lag = lag,
        Happening::Scale(replicas) => {
            if world.cluster.spec.engines.shared.is_some() {
                world.edit(|spec| spec["services"]["ingest"] = serde_json::json!({ "replicas": replicas }));
            }
        }
    }
}

/// All of it runs what the spec says, or what was good before where that was taken back.
fn assert_converged(world: &World) {
    let status = world.status();
    let good = status.last_good.clone().unwrap();
    for component in COMPONENTS {
        assert!(world.image(component).is_none_or(|image| image == good.image), "{component}: {status:?}");
    }
    assert!(status.rollout.is_none());
    match &status.failed {
        None => {
            assert_eq!(good.version, world.cluster.spec.version);
            assert_eq!(world.condition("Ready"), (true, "Available".to_owned()));
        }
        Some(failed) => {
            assert_eq!(failed.release.version, world.cluster.spec.version);
            assert_eq!(world.condition("Ready"), (false, "RolledBack".to_owned()));
            assert_eq!(world.condition("Stalled"), (true, "RolledBack".to_owned()));
        }
    }
    let plan = world.plan();
    assert!(plan.events.is_empty() && plan.status == status, "nothing more is to do");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_shared_cluster_converges(happenings in prop::collection::vec(happening(), 0..60)) {
        let mut world = World::new(shared());
        for one in happenings {
            happen(&mut world, one);
        }
        world.settle();
        assert_converged(&world);
    }

    #[test]
    fn whatever_happens_an_embedded_cluster_converges(happenings in prop::collection::vec(happening(), 0..60)) {
        let mut world = World::new(embedded());
        for one in happenings {
            happen(&mut world, one);
        }
        world.settle();
        assert_converged(&world);
    }

    #[test]
    fn a_release_that_never_becomes_ready_is_taken_back_whatever_happens(
        happenings in prop::collection::vec(happening(), 0..60),
    ) {
        let mut world = World::new(shared());
        world.settle();
        world.broken.insert("weir:2.0.0".to_owned());
        for one in happenings {
            happen(&mut world, one);
        }
        // What was rolled out meanwhile is done, or was taken back.
        world.settle();
        world.set_version("2.0.0");
        world.settle();
        assert_converged(&world);
        prop_assert!(world.status().failed.is_some());
        prop_assert!(world.events.iter().any(|event| event.warning && event.reason == "RolledBack"));
    }
}

#[test]
fn an_operator_that_ends_after_each_single_write_of_an_upgrade_still_completes_it() {
    let mut world = World::new(shared());
    world.settle();
    world.set_version("1.1.0");
    for _ in 0..400 {
        world.reconcile(1);
        world.jobs_end();
        COMPONENTS.iter().for_each(|component| world.become_ready(component));
    }
    world.settle();
    assert_converged(&world);
    assert_eq!(world.image("ingest").unwrap(), "weir:1.1.0");
}

#[test]
fn an_upgrade_goes_stage_by_stage_and_waits_for_each() {
    let mut world = World::new(shared());
    world.settle();
    world.set_version("1.1.0");
    let images = |world: &World| {
        let with = |component: &&&str| world.image(component).as_deref() == Some("weir:1.1.0");
        COMPONENTS.iter().filter(with).map(|component| (*component).to_owned()).collect::<Vec<_>>()
    };
    world.reconcile(usize::MAX);
    assert!(images(&world).is_empty());
    assert_eq!(world.condition("Ready"), (false, "RollingOut".to_owned()));
    world.jobs_end();
    world.reconcile(usize::MAX);
    assert_eq!(images(&world), ["registry"]);
    world.reconcile(usize::MAX);
    assert_eq!(images(&world), ["registry"], "it is not ready yet");
    world.become_ready("registry");
    world.reconcile(usize::MAX);
    assert_eq!(images(&world), ["registry", "storage", "analytics", "commands"]);
    world.become_ready("storage");
    world.become_ready("analytics");
    world.reconcile(usize::MAX);
    assert_eq!(images(&world).len(), 4, "commands is not ready yet");
    world.become_ready("commands");
    world.reconcile(usize::MAX);
    assert_eq!(images(&world).len(), 5);
    world.become_ready("ingest");
    world.reconcile(usize::MAX);
    world.reconcile(usize::MAX);
    assert_converged(&world);
}

#[test]
fn readers_that_fall_behind_hold_an_upgrade_and_have_it_taken_back_but_an_old_lag_does_not() {
    let mut world = World::new(shared());
    world.settle();
    world.set_version("1.1.0");
    world.reconcile(usize::MAX);
    world.lag = Some(50_000);
    world.jobs_end();
    for _ in 0..4 {
        world.reconcile(usize::MAX);
        COMPONENTS.iter().for_each(|component| world.become_ready(component));
    }
    assert_eq!(world.image("storage").unwrap(), "weir:1.1.0");
    assert_eq!(world.image("ingest").unwrap(), "weir:1.0.0", "not as long as they are behind");
    world.now_s += 100_000;
    world.settle_as_it_is();
    let failed = world.status().failed.unwrap();
    assert!(failed.message.contains("storage is 50000 frames behind, above 2000"), "{}", failed.message);
    assert_eq!(world.image("storage").unwrap(), "weir:1.0.0");
    // Who was behind before is not worse than that.
    world.set_version("1.2.0");
    world.settle_as_it_is();
    assert_converged(&world);
    assert_eq!(world.image("ingest").unwrap(), "weir:1.2.0");
}

#[test]
fn new_pods_that_fail_at_calls_are_taken_back() {
    let mut world = World::new(shared());
    world.settle();
    world.set_version("1.1.0");
    world.reconcile(usize::MAX);
    world.jobs_end();
    world.reconcile(usize::MAX);
    world.become_ready("registry");
    world.answers = Answers { calls: 1_000, faults: 11 };
    world.reconcile(usize::MAX);
    assert_eq!(world.image("storage").unwrap(), "weir:1.0.0", "the registry fails");
    world.now_s += 100_000;
    world.reconcile(usize::MAX);
    let failed = world.status().failed.unwrap();
    assert!(failed.message.contains("registry failed at 11 of 1000 calls"), "{}", failed.message);
    world.answers = Answers { calls: 99, faults: 99 };
    world.set_version("1.2.0");
    world.settle();
    assert_converged(&world);
}

#[test]
fn logins_that_change_are_rolled_out_as_a_release() {
    let mut world = World::new(shared());
    world.logins = Some("old".to_owned());
    world.settle();
    let before = world.release("registry");
    world.logins = Some("new".to_owned());
    world.reconcile(usize::MAX);
    world.jobs_end();
    world.reconcile(usize::MAX);
    assert_ne!(world.release("registry"), before);
    assert_eq!(world.release("ingest"), before, "one after the other");
    world.settle();
    assert_converged(&world);
}

#[test]
fn what_was_taken_back_is_tried_again_when_the_spec_changes_and_not_before() {
    let mut world = World::new(shared());
    world.settle();
    world.broken.insert("weir:2.0.0".to_owned());
    world.set_version("2.0.0");
    world.settle();
    let events = world.events.len();
    world.now_s += 100_000;
    world.settle();
    assert_eq!(world.events.len(), events, "nothing more is tried");
    world.broken.clear();
    world.edit(|spec| spec["rollout"]["stageTimeoutSeconds"] = serde_json::json!(301));
    world.settle();
    assert_eq!(world.image("ingest").unwrap(), "weir:2.0.0");
    assert_converged(&world);
}

#[test]
fn the_first_installation_goes_stage_by_stage_too() {
    let mut world = World::new(shared());
    let there =
        |world: &World| COMPONENTS.iter().filter(|component| world.image(component).is_some()).count();
    world.reconcile(usize::MAX);
    world.reconcile(usize::MAX);
    assert_eq!(there(&world), 0, "the schema comes first");
    for (expected, ready) in
        [(1, vec!["registry"]), (4, vec!["storage", "analytics", "commands"]), (5, vec![])]
    {
        world.jobs_end();
        world.reconcile(usize::MAX);
        assert_eq!(there(&world), expected);
        ready.into_iter().for_each(|component| world.become_ready(component));
    }
    world.settle();
    assert_converged(&world);
}

#[test]
fn the_first_installation_is_never_taken_back_however_long_it_takes() {
    let mut world = World::new(shared());
    for _ in 0..5 {
        world.reconcile(usize::MAX);
        world.now_s += 10_000;
    }
    assert_eq!(world.condition("Ready"), (false, "Installing".to_owned()));
    world.settle();
    assert_converged(&world);
}

#[test]
fn a_configuration_is_rolled_out_as_a_release_and_the_old_one_stays_until_it_is_good() {
    let mut world = World::new(shared());
    world.settle();
    let configs = |world: &World| world.objects.keys().filter(|key| key.0 == "ConfigMap").count();
    assert_eq!(configs(&world), 1);
    world.edit(|spec| spec["config"] = serde_json::json!({ "logs": { "level": "debug" } }));
    world.reconcile(usize::MAX);
    assert_eq!(configs(&world), 2);
    world.settle();
    assert_eq!(configs(&world), 1);
    assert_converged(&world);
}
