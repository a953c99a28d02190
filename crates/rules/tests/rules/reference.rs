//! The engine against a reference that keeps everything and computes everything anew for each row, O(n²), without CEL.

use proptest::prelude::*;
use weir_core::{Reading, Uid, Value};
use weir_rules::{DeviceState, Rule, RuleSet};

use crate::support::{compiled, device, duration, position, rule, seconds};

/// A message: event time in seconds, and a value of `a`, `b` or both.
#[derive(Debug, Clone)]
struct Sent {
    ts: i64,
    a: Option<f64>,
    b: Option<f64>,
}

/// What is seen of the messages so far, newest last: (ts, value).
struct Seen {
    now: i64,
    a: Vec<(i64, f64)>,
    b: Vec<(i64, f64)>,
}

impl Seen {
    fn last(series: &[(i64, f64)]) -> Option<f64> {
        series.last().map(|(_, value)| *value)
    }
    fn window(&self, series: &[(i64, f64)], length: i64) -> Option<Vec<(i64, f64)>> {
        let inside: Vec<_> = series.iter().filter(|(ts, _)| *ts > self.now - length).copied().collect();
        (!inside.is_empty()).then_some(inside)
    }
    fn two(&self, series: &[(i64, f64)], length: i64) -> Option<Vec<(i64, f64)>> {
        self.window(series, length).filter(|window| window.len() > 1)
    }
}

fn values(window: &[(i64, f64)]) -> impl Iterator<Item = f64> {
    window.iter().map(|(_, value)| *value)
}

fn or(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    if a == Some(true) || b == Some(true) { Some(true) } else { a.zip(b).map(|_| false) }
}

fn and(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    or(a.map(|a| !a), b.map(|b| !b)).map(|value| !value)
}

type Condition = fn(&Seen) -> Option<bool>;

/// Conditions in CEL and by hand.
const CONDITIONS: [(&str, Condition); 9] = [
    ("a > 3", |s| Some(Seen::last(&s.a)? > 3.0)),
    ("avg(a, \"10s\") > 3 && b < 2", |s| {
        let avg = s.window(&s.a, 10).map(|w| values(&w).sum::<f64>() / w.len() as f64 > 3.0);
        and(avg, Seen::last(&s.b).map(|b| b < 2.0))
    }),
    ("count(a, \"7s\") >= 3 || b == 5", |s| {
        or(s.window(&s.a, 7).map(|w| w.len() >= 3), Seen::last(&s.b).map(|b| b == 5.0))
    }),
    ("max(a, \"10s\") - min(b, \"5s\") > 4", |s| {
        let max = values(&s.window(&s.a, 10)?).fold(f64::MIN, f64::max);
        Some(max - values(&s.window(&s.b, 5)?).fold(f64::MAX, f64::min) > 4.0)
    }),
    ("stddev(a, \"20s\") > 1.7", |s| {
        let window = s.window(&s.a, 20)?;
        let mean = values(&window).sum::<f64>() / window.len() as f64;
        let variance = values(&window).map(|v| (v - mean) * (v - mean)).sum::<f64>() / window.len() as f64;
        Some(variance.sqrt() > 1.7)
    }),
    ("delta(a, \"9s\") > 2 || rate(b, \"9s\") < -0.5", |s| {
        let ends = |w: Vec<(i64, f64)>| (w[0], w[w.len() - 1]);
        let delta = s.two(&s.a, 9).map(ends).map(|(first, last)| last.1 - first.1 > 2.0);
        let rate = s.two(&s.b, 9).map(ends);
        or(delta, rate.map(|(first, last)| (last.1 - first.1) / ((last.0 - first.0) as f64) < -0.5))
    }),
    ("!(a > 3) && sum(b, \"10s\") <= 4", |s| {
        and(Seen::last(&s.a).map(|a| a <= 3.0), s.window(&s.b, 10).map(|w| values(&w).sum::<f64>() <= 4.0))
    }),
    ("last(a, \"6s\") == b", |s| Some(s.window(&s.a, 6)?.last()?.1 == Seen::last(&s.b)?)),
    ("min(a, \"15s\") >= 2 ? a != b : b > 1", |s| {
        let min = values(&s.window(&s.a, 15)?).fold(f64::MAX, f64::min);
        if min >= 2.0 { Some(Seen::last(&s.a)? != Seen::last(&s.b)?) } else { Some(Seen::last(&s.b)? > 1.0) }
    }),
];

#[derive(Debug, Clone)]
struct Case {
    sent: Vec<Sent>,
    condition: usize,
    hold: i64,
    clear_below: Option<i64>,
    clear_hold: i64,
    max_gap: Option<i64>,
    /// The message before which the rule begins.
    begins: usize,
}

/// The on-time part of each message, by the definition: late is below an earlier ts, or a second value at the highest.
fn on_time(sent: &[Sent]) -> Vec<Sent> {
    let mut out = Vec::new();
    for (index, message) in sent.iter().enumerate() {
        let before = &sent[..index];
        let behind = before.iter().any(|m| m.ts > message.ts);
        let taken = |has: fn(&Sent) -> bool| before.iter().any(|m| m.ts == message.ts && has(m));
        out.push(Sent {
            ts: message.ts,
            a: message.a.filter(|_| !behind && !taken(|m| m.a.is_some())),
            b: message.b.filter(|_| !behind && !taken(|m| m.b.is_some())),
        });
    }
    out
}

/// The transitions: kind and the index of the message.
fn reference(case: &Case) -> Vec<(&'static str, usize)> {
    let sent = on_time(&case.sent);
    let visible: Vec<usize> =
        (case.begins..sent.len()).filter(|i| sent[*i].a.is_some() || sent[*i].b.is_some()).collect();
    // The gap before a message is one between readings that rules see, the rule's own or not.
    let gap_before = |i: usize| {
        let before = (0..i).rev().find(|j| sent[*j].a.is_some() || sent[*j].b.is_some());
        case.max_gap.is_some_and(|max| before.is_some_and(|j| sent[i].ts - sent[j].ts > max))
    };
    let seen_at = |i: usize| {
        let upto = || visible.iter().take_while(|j| **j <= i).map(|j| &sent[*j]);
        Seen {
            now: sent[i].ts,
            a: upto().filter_map(|m| Some((m.ts, m.a?))).collect(),
            b: upto().filter_map(|m| Some((m.ts, m.b?))).collect(),
        }
    };
    let truth = |i: usize| CONDITIONS[case.condition].1(&seen_at(i));
    let clears = |i: usize| match case.clear_below {
        Some(limit) => {
            Seen::last(&seen_at(i).a).map(|a| a < limit as f64) == Some(true) && truth(i) != Some(true)
        }
        None => truth(i) == Some(false),
    };
    // For how long `test` has held at the n-th visible message, counted back to `not_before` at most.
    let held = |n: usize, not_before: usize, test: &dyn Fn(usize) -> bool| {
        let mut start = None;
        for m in (not_before..=n).rev() {
            if !test(visible[m]) {
                break;
            }
            start = Some(visible[m]);
            if gap_before(visible[m]) {
                break;
            }
        }
        start.map(|start| sent[visible[n]].ts - sent[start].ts)
    };
    let (mut out, mut open_since) = (vec![], None);
    for (n, index) in visible.iter().enumerate() {
        match open_since {
            None if held(n, 0, &|i| truth(i) == Some(true)).is_some_and(|held| held >= case.hold) => {
                out.push(("raised", *index));
                open_since = Some(n);
            }
            Some(raised) if held(n, raised + 1, &clears).is_some_and(|held| held >= case.clear_hold) => {
                out.push(("cleared", *index));
                open_since = None;
            }
            _ => {}
        }
    }
    out
}

fn engine(case: &Case) -> Vec<(&'static str, usize)> {
    let mut watched: Rule = rule(CONDITIONS[case.condition].0);
    watched.for_duration = duration(&format!("{}s", case.hold));
    watched.clear_when = case.clear_below.map(|limit| format!("a < {limit}"));
    watched.clear_for = duration(&format!("{}s", case.clear_hold));
    watched.max_gap = case.max_gap.map(|gap| duration(&format!("{gap}s")));
    // Another rule shares metrics and windows from the start: it must not be felt.
    let mut other = rule(CONDITIONS[case.condition].0);
    other.uid = Uid::from_u128(99);
    let (watched, other) = (compiled(&watched), compiled(&other));
    let before = RuleSet::new([other.clone()]);
    let after = RuleSet::new([watched.clone(), other]);
    let mut state = DeviceState::default();
    let mut out = vec![];
    for (index, message) in case.sent.iter().enumerate() {
        let values = [("a", message.a), ("b", message.b)];
        let reading = Reading {
            ts: seconds(message.ts),
            received_at: seconds(message.ts),
            claimed_ts: None,
            values: values.into_iter().filter_map(|(m, v)| Some((m.into(), Value::Double(v?)))).collect(),
        };
        let rules = if index < case.begins { &before } else { &after };
        out.extend(state.feed(rules, &device(), position(index as u64), &reading));
    }
    out.iter()
        .filter(|t| t.rule == watched.rule().uid)
        .map(|t| (t.kind.as_str(), t.position.sequence as usize))
        .collect()
}

fn any_case() -> impl Strategy<Value = Case> {
    let value = || prop::option::weighted(0.7, (0_i32..7).prop_map(f64::from));
    let step = prop_oneof![3 => Just(0_i64), 8 => 1_i64..5, 2 => -6_i64..0, 1 => 6_i64..15];
    let sent = prop::collection::vec((step, value(), value()), 1..60).prop_map(|steps| {
        let mut highest = 0;
        let message = |(step, a, b): (i64, Option<f64>, Option<f64>)| {
            let ts = highest + step;
            highest = highest.max(ts);
            Sent { ts, a: a.or(b.is_none().then_some(1.0)), b }
        };
        steps.into_iter().map(message).collect::<Vec<_>>()
    });
    (
        sent,
        0..CONDITIONS.len(),
        prop::sample::select(vec![0_i64, 0, 4, 10]),
        prop::option::of(Just(2_i64)),
        prop::sample::select(vec![0_i64, 0, 3]),
        prop::option::of(Just(5_i64)),
        prop_oneof![Just(0_usize), 0_usize..20],
    )
        .prop_map(|(sent, condition, hold, clear_below, clear_hold, max_gap, begins)| Case {
            sent,
            condition,
            hold,
            clear_below,
            clear_hold,
            max_gap,
            begins,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_engine_and_the_reference_agree(case in any_case()) {
        prop_assert_eq!(engine(&case), reference(&case));
    }
}
