//! A crash at any moment: what is restored and fed again comes out exactly as if nothing had happened.

use std::{collections::HashSet, sync::Arc};

use proptest::prelude::*;
use weir_core::{ErrorKind, Reading, Uid, Value};
use weir_rules::{Compiled, DeviceState, Rule, RuleSet, Rung, Severity, Transition};

use crate::support::{compiled, device, duration, position, rule, seconds};

#[derive(Debug, Clone)]
enum Step {
    /// A reading: step in event time, value of `a`, value of `b`.
    Read(i64, f64, Option<f64>),
    /// The next list of rules.
    Change(usize),
    /// Nothing was unread, this long after the last arrival.
    Tick(i64),
    Clear(usize),
    Acknowledge(usize),
}

/// Lists of rules, one after the other: added, edited, removed, disabled.
fn lists() -> Vec<RuleSet> {
    let with = |uid: u128, revision: u64, condition: &str, change: &dyn Fn(&mut Rule)| -> Arc<Compiled> {
        let mut made = rule(condition);
        (made.uid, made.revision) = (Uid::from_u128(uid), revision);
        made.actions = serde_json::from_str(
            r#"[{"id": "act", "on": ["raised", "escalated", "acknowledged", "cleared"], "command":
                 {"name": "set", "payload": {"a": "${avg(a, \"30s\")}"}, "min_interval": "20s"}}]"#,
        )
        .unwrap();
        change(&mut made);
        compiled(&made)
    };
    let windows = with(1, 1, "avg(a, \"10s\") + stddev(a, \"30s\") > 4 && b < 4", &|rule| {
        rule.for_duration = duration("5s");
        rule.clear_for = duration("3s");
    });
    let edited = with(1, 2, "max(a, \"10s\") > 4", &|rule| rule.max_gap = Some(duration("6s")));
    let disabled = with(1, 3, "max(a, \"10s\") > 4", &|rule| rule.disabled = true);
    let ladder = with(2, 1, "", &|rule| {
        rule.severities = [(Severity::Info, 1), (Severity::Critical, 4)]
            .map(|(severity, limit)| Rung { severity, condition: format!("min(b, \"15s\") > {limit}") })
            .to_vec();
        rule.for_duration = duration("2s");
    });
    let silent = with(3, 1, "absent(b, \"20s\") || a > 5", &|rule| rule.for_duration = duration("1s"));
    vec![
        RuleSet::new([windows.clone()]),
        RuleSet::new([windows.clone(), ladder.clone(), silent.clone()]),
        RuleSet::new([edited.clone(), ladder.clone(), silent.clone()]),
        RuleSet::new([disabled, ladder]),
        RuleSet::new([edited, silent]),
        RuleSet::new([windows]),
    ]
}

struct Run {
    state: DeviceState,
    rules: usize,
    ts: i64,
}

impl Run {
    fn step(&mut self, index: usize, step: &Step, lists: &[RuleSet]) -> Vec<Transition> {
        let device = device();
        let current = |run: &Self| lists[run.rules % lists.len()].clone();
        match step {
            Step::Read(by, a, b) => {
                self.ts += by.max(&0);
                let ts = self.ts + by.min(&0);
                let b = b.map(|b| ("b".into(), Value::Double(b)));
                let values = [("a".into(), Value::Double(*a))].into_iter().chain(b).collect();
                let reading =
                    Reading { ts: seconds(ts), received_at: seconds(self.ts), claimed_ts: None, values };
                self.state.feed(&current(self), &device, position(index as u64), &reading)
            }
            Step::Change(to) => {
                self.rules = *to;
                self.state.sync(&current(self), &device, position(index as u64))
            }
            Step::Tick(after) => self.state.tick(&current(self), &device, seconds(self.ts + after)),
            Step::Clear(rule) => {
                self.state.clear(&current(self), &device, Uid::from_u128(*rule as u128), &format!("c{index}"))
            }
            Step::Acknowledge(rule) => self.state.acknowledge(
                &current(self),
                &device,
                Uid::from_u128(*rule as u128),
                &format!("k{index}"),
            ),
        }
    }
}

fn undisturbed(steps: &[Step], lists: &[RuleSet]) -> Vec<Transition> {
    let mut run = Run { state: DeviceState::default(), rules: 0, ts: 0 };
    steps.iter().enumerate().flat_map(|(index, step)| run.step(index, step, lists)).collect()
}

/// The same with checkpoints and crashes; a transition that is made again under its id counts once.
fn disturbed(steps: &[Step], lists: &[RuleSet], checkpoints: &[usize], crashes: &[usize]) -> Vec<Transition> {
    let mut run = Run { state: DeviceState::default(), rules: 0, ts: 0 };
    let mut saved = (0, run.state.to_bytes().unwrap(), 0, 0);
    let mut crashes: HashSet<usize> = crashes.iter().copied().collect();
    let (mut out, mut ids, mut index) = (Vec::new(), HashSet::new(), 0);
    while index < steps.len() {
        if checkpoints.contains(&index) {
            saved = (index, run.state.to_bytes().unwrap(), run.rules, run.ts);
        }
        if crashes.remove(&index) {
            let state = DeviceState::from_bytes(&saved.1).unwrap();
            assert_eq!(state.to_bytes().unwrap(), saved.1);
            run = Run { state, rules: saved.2, ts: saved.3 };
            index = saved.0;
            // A frame that was read before is read again: all of it is skipped.
            if let Some(at) = (0..index).rev().find(|at| matches!(steps[*at], Step::Read(..))) {
                let ts = run.ts;
                assert_eq!(run.step(at, &Step::Read(0, 6.0, Some(6.0)), lists), []);
                run.ts = ts;
            }
        }
        for transition in run.step(index, &steps[index], lists) {
            if ids.insert(transition.id) {
                out.push(transition);
            }
        }
        index += 1;
    }
    out
}

fn any_step() -> impl Strategy<Value = Step> {
    let value = || (0_i32..8).prop_map(f64::from);
    prop_oneof![
        20 => (-3_i64..6, value(), prop::option::of(value())).prop_map(|(by, a, b)| Step::Read(by, a, b)),
        1 => (0_usize..6).prop_map(Step::Change),
        2 => (0_i64..40).prop_map(Step::Tick),
        1 => (1_usize..4).prop_map(Step::Clear),
        1 => (1_usize..4).prop_map(Step::Acknowledge),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn checkpoints_and_crashes_change_nothing(
        steps in prop::collection::vec(any_step(), 1..120),
        checkpoints in prop::collection::vec(0_usize..120, 0..8),
        crashes in prop::collection::vec(0_usize..120, 0..8),
    ) {
        let lists = lists();
        prop_assert_eq!(disturbed(&steps, &lists, &checkpoints, &crashes), undisturbed(&steps, &lists));
    }

    #[test]
    fn a_damaged_checkpoint_is_an_error_or_another_state_and_never_a_panic(
        steps in prop::collection::vec(any_step(), 1..40),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let lists = lists();
        let mut run = Run { state: DeviceState::default(), rules: 1, ts: 0 };
        for (index, step) in steps.iter().enumerate() {
            run.step(index, step, &lists);
        }
        let mut bytes = run.state.to_bytes().unwrap();
        prop_assert!(DeviceState::from_bytes(&bytes[..cut.index(bytes.len())]).is_err());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(state) = DeviceState::from_bytes(&bytes) {
            let mut run = Run { state, rules: 2, ts: 1_000 };
            run.step(1_000, &Step::Read(1, 1.0, None), &lists);
        }
    }
}

#[test]
fn the_state_of_another_release_is_refused_by_its_version() {
    let mut bytes = DeviceState::default().to_bytes().unwrap();
    bytes[0] = 99;
    let error = DeviceState::from_bytes(&bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    assert!(error.message().contains("99"), "{error}");
}
