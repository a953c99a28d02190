//! Values, windows and logic.

use std::sync::Arc;

use weir_core::{Reading, Value, event_clock::EventClock};
use weir_rules::{DeviceState, MAX_SAMPLES_PER_METRIC, rule_row, simulate};

use crate::support::{compiled, device, of_temp, position, row, rule, rules, seconds, told};

/// Whether a condition is raised by one row of these values.
fn fires(condition: &str, values: &[(&str, Value)]) -> bool {
    let mut all = row(1, 0, &[]);
    all.values = values.iter().map(|(name, value)| (Arc::from(*name), value.clone())).collect();
    !simulate(&rules(&[&rule(condition)]), &device(), [all]).is_empty()
}

#[test]
fn unknown_spreads_except_where_the_rest_decides() {
    let temp = [("temp", Value::Double(31.0))];
    for (condition, raised) in [
        ("never > 1", false),
        ("!(never > 1)", false),
        ("never > 1 || temp > 30", true),
        ("temp > 30 || never > 1", true),
        ("never > 1 && temp > 30", false),
        ("!(never > 1 && temp < 30)", true),
        ("!(temp < 30 && never > 1)", true),
        ("(never > 1 ? true : true)", false),
        ("temp / 0 > 1", false),
        ("!(temp / 0 > 1)", false),
        ("temp % 0 == 1 || true", true),
        ("count(never, \"5m\") < 1", false),
        ("delta(temp, \"5m\") == 0", false),
        ("device.labels.missing == \"x\" || !has(device.labels.missing)", true),
    ] {
        assert_eq!(fires(condition, &temp), raised, "{condition}");
    }
}

#[test]
fn a_value_serves_where_its_type_fits() {
    let values = [
        ("door", Value::Bool(true)),
        ("open", Value::Double(1.0)),
        ("count", Value::Int64(3)),
        ("status", Value::String("error-7".to_owned())),
        ("room.temp", Value::Double(2.5)),
        ("blob", Value::Bytes(bytes::Bytes::from_static(b"x"))),
    ];
    for (condition, raised) in [
        ("door && open && door == open", true),
        ("door == true && door != false && door + 1 == 2", true),
        ("count == 3 && count / 2 == 1.5 && -count < 0 && 7 % count == 1", true),
        ("count", false),
        ("status == \"error-7\" && status > \"error\" && status in [\"error-7\"]", true),
        ("status.matches(\"^error-[0-9]$\") && status.contains(\"or\") && status.endsWith(\"7\")", true),
        ("status > 3 || !(status > 3)", false),
        ("blob == 1 || blob != 1", false),
        ("room.temp == 2.5 && m(\"room.temp\") == 2.5 && room.temp < count", true),
        (
            "device.labels.floor == \"2\" && device.attributes[\"site\"] == \"north\" && device.id == \"room-1\"",
            true,
        ),
        ("(status + \"!\") == \"error-7!\"", true),
        ("(door ? count : 9) == 3", true),
    ] {
        assert_eq!(fires(condition, &values), raised, "{condition}");
    }
}

#[test]
fn a_window_holds_what_is_younger_than_its_length_and_no_more() {
    // At 10 the sample of 0 is exactly 10 s old, and gone.
    assert_eq!(of_temp(&rule("count(temp, \"10s\") == 2"), &[(0, 1.0), (9, 1.0), (10, 1.0)]), ["raised@9"]);
    assert_eq!(of_temp(&rule("count(temp, \"10s\") == 3"), &[(0, 1.0), (9, 1.0), (10, 1.0)]), [""; 0]);
    assert_eq!(of_temp(&rule("max(temp, \"10s\") < 5"), &[(0, 9.0), (9, 1.0), (10, 1.0)]), ["raised@10"]);
}

#[test]
fn each_aggregate_is_what_its_name_says() {
    for (condition, values) in [
        ("avg(temp, \"1m\") == 3 && sum(temp, \"1m\") == 9 && min(temp, \"1m\") == 1", [1.0, 2.0, 6.0]),
        ("max(temp, \"1m\") == 6 && delta(temp, \"1m\") == 5 && rate(temp, \"1m\") == 0.25", [1.0, 2.0, 6.0]),
        ("last(temp, \"1m\") == 6 && last(temp) == 6 && count(temp, \"1m\") == 3", [1.0, 2.0, 6.0]),
        (
            "stddev(temp, \"1m\") > 1.999999999 && stddev(temp, \"1m\") < 2.000000001",
            [5.0, 5.0 - 2.449489742783178, 5.0 + 2.449489742783178],
        ),
        (
            "stddev(temp, \"1m\") < 1.0000001 && stddev(temp, \"1m\") > 0.99999",
            [1e9 - 1.224744871391589, 1e9, 1e9 + 1.224744871391589],
        ),
    ] {
        let rows = [(0, values[0]), (10, values[1]), (20, values[2])];
        assert_eq!(
            of_temp(&rule(condition), &rows).last().map(String::as_str),
            Some("raised@20"),
            "{condition}"
        );
    }
}

#[test]
fn a_late_value_is_never_seen_and_several_messages_at_one_time_all_are() {
    let rules = rules(&[&rule("a == 1 && b == 2 && c == 3")]);
    let (mut clock, mut state, mut out) = (EventClock::default(), DeviceState::default(), vec![]);
    for (sequence, (ts, metric, value)) in
        [(10, "a", 1.0), (10, "b", 2.0), (9, "c", 3.0), (10, "b", 9.0), (10, "c", 3.0), (11, "a", 5.0)]
            .into_iter()
            .enumerate()
    {
        let reading = Reading {
            ts: seconds(ts),
            received_at: seconds(100),
            claimed_ts: None,
            values: vec![(metric.into(), Value::Double(value))],
        };
        let row = rule_row(&mut clock, position(sequence as u64), &reading);
        assert_eq!(row.values.is_empty(), sequence == 2 || sequence == 3);
        out.extend(state.feed(&rules, &device(), position(sequence as u64), &reading));
    }
    assert_eq!(told(&out), ["raised@10", "cleared@11"]);
    assert_eq!(out[0].position, position(4));
    assert_eq!(state.clock(), &clock);
}

#[test]
fn what_fired_is_shown_with_its_values_and_windows() {
    let watched = rule("temp > 30 && avg(temp, \"60s\") > 20 && never > 1 || temp == 32");
    let out = simulate(
        &rules(&[&watched]),
        &device(),
        [row(1, 0, &[("temp", 30.0)]), row(2, 10, &[("temp", 32.0), ("other", 1.0)])],
    );
    let values: Vec<(&str, f64)> =
        out[0].values.iter().map(|(name, value)| (name.as_str(), value.as_f64().unwrap())).collect();
    assert_eq!(values, [("temp", 32.0), ("avg(temp, \"1m\")", 31.0)]);
}

#[test]
fn unknown_evaluations_are_counted() {
    let both = compiled(&rule("temp > 30 && door"));
    let set = weir_rules::RuleSet::new([Arc::clone(&both)]);
    simulate(&set, &device(), [row(1, 0, &[("temp", 31.0)]), row(2, 1, &[("door", 1.0)])]);
    assert_eq!((both.evaluations(), both.unknown()), (2, 1));
}

#[test]
fn a_window_of_too_many_samples_is_unknown_until_it_shrinks() {
    let watched = rules(&[&rule("count(temp, \"1d\") > 10")]);
    let count = MAX_SAMPLES_PER_METRIC as i64 + 2;
    let mut state = DeviceState::default();
    let feed = |state: &mut DeviceState, ts| {
        told(&state.apply(&watched, &device(), &row(ts as u64 + 1, ts, &[("temp", 1.0)])))
    };
    let mut out: Vec<String> = (0..count).flat_map(|ts| feed(&mut state, ts)).collect();
    assert_eq!(out, ["raised@10"]);
    assert_eq!(state.samples(), MAX_SAMPLES_PER_METRIC);
    // A restored state knows what was lost.
    state = DeviceState::from_bytes(&state.to_bytes().unwrap()).unwrap();
    out = feed(&mut state, 86_400); // lost samples are still in the window: unknown clears nothing
    out.extend(feed(&mut state, 300_000)); // one sample
    assert_eq!(out, ["cleared@300000"]);
    assert!(state.to_bytes().unwrap().len() < 200);
}
