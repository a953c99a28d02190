//! An alarm's life: when it is raised, escalates and clears, and what people and edits do to it.

use weir_core::Uid;
use weir_rules::{ClearReason, DeviceState, RuleSet, Rung, Severity, TransitionKind, simulate};

use crate::support::{compiled, device, duration, of_temp, position, row, rule, rules, seconds, told};

#[test]
fn for_completes_at_the_first_reading_that_is_late_enough_and_still_true() {
    let mut held = rule("temp > 30");
    held.for_duration = duration("60s");
    assert_eq!(of_temp(&held, &[(0, 31.0), (59, 31.0), (60, 31.0), (61, 31.0)]), ["raised@60"]);
    // The value holds until the next reading, however far.
    assert_eq!(of_temp(&held, &[(0, 31.0), (600, 31.0)]), ["raised@600"]);
    // False in between, or at the end.
    assert_eq!(of_temp(&held, &[(0, 31.0), (30, 29.0), (60, 31.0), (119, 31.0)]), [""; 0]);
    assert_eq!(of_temp(&held, &[(0, 31.0), (60, 29.0)]), [""; 0]);
}

#[test]
fn a_gap_longer_than_max_gap_starts_for_anew() {
    let mut held = rule("temp > 30");
    held.for_duration = duration("60s");
    held.max_gap = Some(duration("30s"));
    assert_eq!(of_temp(&held, &[(0, 31.0), (30, 31.0), (60, 31.0)]), ["raised@60"]);
    assert_eq!(of_temp(&held, &[(0, 31.0), (31, 31.0), (61, 31.0), (91, 31.0)]), ["raised@91"]);
}

#[test]
fn an_alarm_clears_by_its_own_condition_after_its_own_time() {
    let mut watched = rule("temp > 30");
    assert_eq!(of_temp(&watched, &[(0, 31.0), (1, 30.0), (2, 31.0)]), ["raised@0", "cleared@1", "raised@2"]);
    watched.clear_when = Some("temp < 25".to_owned());
    assert_eq!(of_temp(&watched, &[(0, 31.0), (1, 28.0), (2, 31.0), (3, 24.0)]), ["raised@0", "cleared@3"]);
    watched.clear_for = duration("10s");
    let rows = [(0, 31.0), (1, 24.0), (5, 26.0), (8, 24.0), (17, 24.0), (18, 20.0)];
    assert_eq!(of_temp(&watched, &rows), ["raised@0", "cleared@18"]);
    // What still holds is not cleared.
    watched.clear_when = Some("temp > 0".to_owned());
    assert_eq!(of_temp(&watched, &[(0, 31.0), (100, 31.0)]), ["raised@0"]);
}

#[test]
fn a_ladder_rises_and_never_falls() {
    let mut ladder = rule("");
    ladder.severities = [(Severity::Critical, 50), (Severity::Info, 20), (Severity::Major, 30)]
        .map(|(severity, limit)| Rung { severity, condition: format!("temp > {limit}") })
        .to_vec();
    let rows = [21.0, 31.0, 21.0, 31.0, 51.0, 31.0, 10.0, 60.0].into_iter().zip(0..);
    let rows = rows.map(|(value, ts)| row(ts as u64 + 1, ts, &[("temp", value)]));
    let out = simulate(&rules(&[&ladder]), &device(), rows);
    let severities: Vec<&str> = out.iter().map(|t| t.severity.as_str()).collect();
    assert_eq!(told(&out), ["raised@0", "escalated@1", "escalated@4", "cleared@6", "raised@7"]);
    assert_eq!(severities, ["INFO", "MAJOR", "CRITICAL", "CRITICAL", "CRITICAL"]);
    assert!(out[..4].iter().all(|t| t.alarm == out[0].id) && out[4].alarm == out[4].id);
}

#[test]
fn a_manual_clear_holds_until_the_condition_was_false_once() {
    let watched = rule("temp > 30");
    let set = rules(&[&watched]);
    let mut state = DeviceState::default();
    let feed = |state: &mut DeviceState, ts: i64, temp: f64| {
        told(&state.apply(&set, &device(), &row(ts as u64 + 1, ts, &[("temp", temp)])))
    };
    assert_eq!(feed(&mut state, 0, 31.0), ["raised@0"]);
    let acknowledged = state.acknowledge(&set, &device(), watched.uid, "request-0");
    assert_eq!(acknowledged[0].kind, TransitionKind::Acknowledged);
    let cleared = state.clear(&set, &device(), watched.uid, "request-1");
    assert_eq!((cleared[0].kind, cleared[0].reason), (TransitionKind::Cleared, Some(ClearReason::Manual)));
    assert_eq!(state.clear(&set, &device(), watched.uid, "request-2"), []);
    assert_eq!(feed(&mut state, 1, 32.0), [""; 0]);
    state = DeviceState::from_bytes(&state.to_bytes().unwrap()).unwrap();
    assert_eq!(feed(&mut state, 2, 33.0), [""; 0]);
    assert_eq!(feed(&mut state, 3, 29.0), [""; 0]);
    assert_eq!(feed(&mut state, 4, 31.0), ["raised@4"]);
}

#[test]
fn a_clear_while_the_condition_is_false_suppresses_nothing() {
    let mut watched = rule("temp > 30");
    watched.clear_when = Some("temp < 20".to_owned());
    let set = rules(&[&watched]);
    let mut state = DeviceState::default();
    state.apply(&set, &device(), &row(1, 0, &[("temp", 31.0)]));
    state.apply(&set, &device(), &row(2, 1, &[("temp", 25.0)]));
    assert_eq!(state.clear(&set, &device(), watched.uid, "r").len(), 1);
    assert_eq!(told(&state.apply(&set, &device(), &row(3, 2, &[("temp", 31.0)]))), ["raised@2"]);
}

#[test]
fn an_edited_rule_starts_cold_and_its_open_alarm_keeps_its_revision() {
    let first = rule("temp > 30");
    let mut second = rule("max(temp, \"1h\") > 30 || other > 1");
    second.revision = 2;
    let mut state = DeviceState::default();
    state.apply(&rules(&[&first]), &device(), &row(1, 0, &[("temp", 40.0)]));
    let set = rules(&[&second]);
    // Neither the old value nor the old window is seen: unknown, so the alarm stays.
    assert_eq!(state.apply(&set, &device(), &row(2, 10, &[("other", 0.0)])), []);
    let out = state.apply(&set, &device(), &row(3, 20, &[("temp", 20.0)]));
    assert_eq!((told(&out), out[0].revision), (vec!["cleared@20".to_owned()], 1));
    let out = state.apply(&set, &device(), &row(4, 30, &[("temp", 31.0)]));
    assert_eq!((told(&out), out[0].revision), (vec!["raised@30".to_owned()], 2));
}

#[test]
fn a_new_rule_starts_cold_beside_one_that_shares_its_window() {
    let (old, mut new) = (rule("count(temp, \"1m\") >= 2"), rule("count(temp, \"1m\") >= 2"));
    new.uid = Uid::from_u128(2);
    let mut state = DeviceState::default();
    state.apply(&rules(&[&old]), &device(), &row(1, 0, &[("temp", 1.0)]));
    let set = rules(&[&old, &new]);
    let rule_of = |out: &[weir_rules::Transition]| out.iter().map(|t| t.rule.as_u128()).collect::<Vec<_>>();
    assert_eq!(rule_of(&state.apply(&set, &device(), &row(2, 10, &[("temp", 1.0)]))), [1]);
    assert_eq!(rule_of(&state.apply(&set, &device(), &row(3, 20, &[("temp", 1.0)]))), [2]);
}

#[test]
fn what_is_removed_closes_its_alarms_with_the_reason() {
    let (hot, mut cold) = (rule("temp > 30"), rule("temp > 20"));
    cold.uid = Uid::from_u128(2);
    let mut state = DeviceState::default();
    state.apply(&rules(&[&hot, &cold]), &device(), &row(1, 0, &[("temp", 40.0)]));
    assert_eq!(state.open_alarms().count(), 2);
    let out = state.sync(&rules(&[&cold]), &device(), position(2));
    assert_eq!((out.len(), out[0].rule, out[0].reason), (1, hot.uid, Some(ClearReason::RuleRemoved)));
    let out = state.remove_device(&device(), position(3));
    assert_eq!((out.len(), out[0].rule, out[0].reason), (1, cold.uid, Some(ClearReason::DeviceRemoved)));
    assert_eq!(state.open_alarms().count(), 0);
}

#[test]
fn a_device_that_a_changed_label_deselects_loses_the_alarm() {
    let mut rooms = rule("temp > 30");
    rooms.selector = "type=room".parse().unwrap();
    let all = [compiled(&rooms)];
    let mut moved = device();
    let mut state = DeviceState::default();
    let out = state.apply(&RuleSet::selecting(&all, &moved), &moved, &row(1, 0, &[("temp", 40.0)]));
    assert_eq!(told(&out), ["raised@0"]);
    moved.labels.insert("type".to_owned(), "hall".to_owned());
    let out = state.apply(&RuleSet::selecting(&all, &moved), &moved, &row(2, 1, &[("temp", 40.0)]));
    assert_eq!((told(&out), out[0].reason), (vec!["cleared@0".to_owned()], Some(ClearReason::RuleRemoved)));
}

#[test]
fn a_disabled_rule_evaluates_nothing_and_keeps_its_alarm() {
    let watched = rule("temp > 30");
    let mut disabled = watched.clone();
    (disabled.revision, disabled.disabled) = (2, true);
    let mut state = DeviceState::default();
    state.apply(&rules(&[&watched]), &device(), &row(1, 0, &[("temp", 40.0)]));
    assert_eq!(state.apply(&rules(&[&disabled]), &device(), &row(2, 1, &[("temp", 10.0)])), []);
    assert_eq!(state.open_alarms().count(), 1);
    let mut enabled = watched.clone();
    enabled.revision = 3;
    assert_eq!(
        told(&state.apply(&rules(&[&enabled]), &device(), &row(3, 2, &[("temp", 10.0)]))),
        ["cleared@2"]
    );
}

#[test]
fn absence_counts_from_arrival_and_a_restart_raises_nothing() {
    let silent = rule("absent(temp, \"10m\")");
    let set = rules(&[&silent]);
    let mut state = DeviceState::default();
    let mut first = row(1, 1_000_000, &[("temp", 1.0)]);
    first.received_at = seconds(0); // the device's clock is far ahead; only arrival counts
    assert_eq!(state.apply(&set, &device(), &first), []);
    assert_eq!(state.tick(&set, &device(), seconds(599)), []);
    // Restored hours later, while the log has not been read on: no tick, so nothing.
    state = DeviceState::from_bytes(&state.to_bytes().unwrap()).unwrap();
    let mut second = row(2, 1_000_001, &[("temp", 1.0)]);
    second.received_at = seconds(300);
    assert_eq!(state.apply(&set, &device(), &second), []);
    let out = state.tick(&set, &device(), seconds(900));
    assert_eq!((out.len(), out[0].position, out[0].approximate), (1, position(2), true));
    assert_eq!(state.tick(&set, &device(), seconds(901)), []);
    let mut third = row(3, 1_000_002, &[("temp", 1.0)]);
    third.received_at = seconds(1_000);
    assert_eq!(state.apply(&set, &device(), &third)[0].kind, TransitionKind::Cleared);
}

#[test]
fn an_absence_that_no_tick_saw_is_told_when_the_next_row_ends_it_under_the_same_id() {
    let set = rules(&[&rule("absent(temp, \"10m\")")]);
    let run = |tick: bool| {
        let mut state = DeviceState::default();
        let mut out = state.apply(&set, &device(), &row(1, 0, &[("temp", 1.0)]));
        if tick {
            out.extend(state.tick(&set, &device(), seconds(700)));
        }
        out.extend(state.apply(&set, &device(), &row(2, 4_000, &[("temp", 1.0)])));
        out.iter().map(|t| (t.id, t.kind)).collect::<Vec<_>>()
    };
    assert_eq!(run(true), run(false));
    assert_eq!(run(true).len(), 2);
}

#[test]
fn an_outage_is_no_silence_neither_for_a_tick_nor_for_the_gap_between_two_rows() {
    let set = rules(&[&rule("absent(temp, \"10m\")")]);
    let silent_since = |listening: &[(i64, i64)], late: Option<i64>| {
        let mut state = DeviceState::default();
        assert_eq!(state.apply(&set, &device(), &row(1, 0, &[("temp", 1.0)])), []);
        for (since, until) in listening {
            state.skip_outage(seconds(*since), seconds(*until));
        }
        if let Some(at) = late {
            // It arrived before the outage ended, and is read only now.
            assert_eq!(state.apply(&set, &device(), &row(2, at, &[("temp", 1.0)])), []);
        }
        DeviceState::from_bytes(&state.to_bytes().unwrap()).unwrap()
    };
    // Until when a device may be silent after an outage; crashes in a row overlap, and count once.
    let cases = [
        (&[][..], None, 600),
        (&[(100, 5_000)], None, 5_500),
        (&[(100, 4_000), (100, 5_000)], None, 5_500),
        (&[(100, 1_000), (1_200, 5_000)], None, 5_000 + 600 - 300),
        (&[(100, 5_000)], Some(101), 5_600),
    ];
    for (outages, late, end) in cases {
        let mut state = silent_since(outages, late);
        assert_eq!(state.tick(&set, &device(), seconds(end - 1)), [], "{outages:?}");
        assert_eq!(state.tick(&set, &device(), seconds(end)).len(), 1, "{outages:?}");
        for (at, told) in [(end - 1, 0), (end, 2)] {
            let mut state = silent_since(outages, late);
            let out = state.apply(&set, &device(), &row(3, at, &[("temp", 1.0)]));
            assert_eq!(out.len(), told, "{outages:?}");
        }
    }
}

#[test]
fn for_of_an_absent_metric_completes_at_a_tick() {
    let mut silent = rule("absent(temp, \"10m\")");
    silent.for_duration = duration("5m");
    let set = rules(&[&silent]);
    let mut state = DeviceState::default();
    state.apply(&set, &device(), &row(1, 0, &[("temp", 1.0)]));
    let ticks = [600, 899, 900, 901].map(|now| state.tick(&set, &device(), seconds(now)).len());
    assert_eq!(ticks, [0, 0, 1, 0]);
}

#[test]
fn a_command_is_filled_in_and_kept_apart_by_its_interval() {
    let mut acting = rule("co2 > 1000");
    acting.actions = serde_json::from_str(
        r#"[{"id": "fan", "on": ["raised", "cleared"], "command": {"name": "ventilate", "payload":
             {"speed": "${co2 / 100}", "why": "${alarm.rule} ${alarm.severity} on $${floor} ${device.labels.floor}: ${co2 > 1}",
              "list": [1, "${never}", "${avg(co2, \"1m\") > 1}"]}}},
            {"id": "hook", "webhook": {"url": "http://localhost/x"}}]"#,
    )
    .unwrap();
    let rows = [(0, 1_200.0), (1, 500.0), (300, 1_300.0), (599, 500.0), (600, 1_400.0)];
    let rows = rows.iter().zip(1..).map(|((ts, co2), n)| row(n, *ts, &[("co2", *co2)]));
    let out = simulate(&rules(&[&acting]), &device(), rows);
    let payload = out[0].actions[0].payload.as_ref().unwrap();
    assert_eq!(
        payload.to_string(),
        r#"{"list":[1,null,true],"speed":12,"why":"hot WARNING on ${floor} 2: true"}"#
    );
    let suppressed: Vec<bool> = out.iter().map(|t| t.actions[0].suppressed).collect();
    assert_eq!(told(&out), ["raised@0", "cleared@1", "raised@300", "cleared@599", "raised@600"]);
    assert_eq!(suppressed, [false, true, true, true, false]);
    assert_eq!(out[0].actions.iter().map(|due| due.action.as_str()).collect::<Vec<_>>(), ["fan", "hook"]);
    assert_eq!(out[1].actions.len(), 1);
}

#[test]
fn a_silent_device_climbs_the_ladder_with_an_id_for_each_rung() {
    let mut ladder = rule("");
    ladder.severities = [(Severity::Info, "10m"), (Severity::Major, "20m"), (Severity::Critical, "30m")]
        .map(|(severity, after)| Rung { severity, condition: format!("absent(temp, \"{after}\")") })
        .to_vec();
    let set = rules(&[&ladder]);
    let mut state = DeviceState::default();
    state.apply(&set, &device(), &row(1, 0, &[("temp", 1.0)]));
    let ids: std::collections::HashSet<Uid> = [600, 1_200, 1_800]
        .into_iter()
        .flat_map(|now| state.tick(&set, &device(), seconds(now)))
        .map(|transition| transition.id)
        .collect();
    assert_eq!(ids.len(), 3);
}
