//! Rules that are refused, alarms in event time, and the same alarms whatever happens to the process.

use std::{collections::BTreeMap, fmt::Write as _};

use weir_tests::{Weir, eventually};

#[test]
fn a_wrong_rule_is_refused_with_line_column_and_caret() {
    let weir = Weir::start();
    for (when, expected) in [
        ("temp >", "1:"),
        ("agv(temp, \"5m\") > 1", "avg"),
        ("avg(temp, \"5 minutes\") > 1", "5 minutes"),
        ("avg(temp) > 1", "avg"),
        ("temp + 1", "true or false"),
    ] {
        let refused = weir.try_run(&["rule", "create", "r", "--when", when]);
        let complaint = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{when}: {complaint}");
        assert!(complaint.contains(expected) && complaint.contains('^'), "{when}: {complaint}");
    }
}

/// A day of a room that gets stuffy and airs again every two hours, with noise, out of order here and there.
fn room() -> String {
    let mut text = "time,CO2,temp\n".to_owned();
    for minute in 0..1_440_u32 {
        // Every 50th row comes twenty rows late, behind the clock: stored, never seen by rules.
        let at = if minute % 50 == 49 { minute - 20 } else { minute };
        let co2 = 700.0
            + 500.0 * (f64::from(minute) / 120.0 * std::f64::consts::TAU).sin()
            + f64::from(minute * 7 % 13);
        writeln!(text, "{},{co2},21", 1_424_044_800 + at * 60).unwrap();
    }
    text
}

/// Everything that can be said of the alarms but ids and wall-clock times.
fn alarms(weir: &Weir) -> Vec<BTreeMap<String, String>> {
    let mut rows = weir.rows(&["alarm", "list"]);
    rows.iter_mut().for_each(|row| drop(row.remove("id")));
    rows.sort();
    rows
}

fn prepare(weir: &Weir) -> String {
    weir.run(&[
        "rule",
        "create",
        "stuffy",
        "--when",
        "CO2 > 1000",
        "--for",
        "5m",
        "--clear-when",
        "CO2 < 800",
        "--command",
        "air",
    ]);
    weir.run(&["rule", "create", "mean", "--when", "avg(CO2, \"30m\") > 900", "--clear-for", "3m"]);
    let file = weir.home().join("room.csv");
    std::fs::write(&file, room()).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn alarms_after_kills_in_the_middle_equal_those_of_an_undisturbed_run() {
    let calm = Weir::start();
    let file = prepare(&calm);
    calm.run(&["replay", &file, "--device", "room", "--create"]);
    let expected = eventually("an undisturbed run has all its alarms", || {
        let found = alarms(&calm);
        (found.iter().filter(|row| row["state"] == "cleared").count() == 24).then_some(found)
    });

    let mut shaken = Weir::start();
    let file = prepare(&shaken);
    let replay = shaken
        .command(&["replay", &file, "--device", "room", "--create", "--speed", "20000"])
        .spawn()
        .unwrap();
    let mut replay = std::mem::ManuallyDrop::new(replay);
    for kill in 0..4 {
        eventually("the replay goes on", || {
            let rows =
                shaken.try_run(&["telemetry", "query", "--device", "room", "--metric", "temp", "-o", "csv"]);
            (rows.stdout.iter().filter(|byte| **byte == b'\n').count() > 200 * (kill + 1)).then_some(())
        });
        shaken.kill();
        shaken.boot();
    }
    assert!(replay.wait().unwrap().success(), "the replay lost something");
    eventually("the alarms equal those of the undisturbed run", || {
        (alarms(&shaken) == expected).then_some(())
    });
    let commands = |weir: &Weir| weir.rows(&["command", "list"]).len();
    assert_eq!(commands(&shaken), commands(&calm), "commands are sent exactly once");

    // TestRule from the rule's start equals what fired.
    for rule in ["stuffy", "mean"] {
        let tested = shaken.rows(&["rule", "test", rule]);
        let raised = |rows: &[BTreeMap<String, String>], kind: &str, column: &str| {
            let mut times: Vec<_> = rows
                .iter()
                .filter(|row| kind.is_empty() || row["type"] == kind)
                .map(|row| row[column].clone())
                .collect();
            times.sort();
            times
        };
        let fired: Vec<_> = expected.iter().filter(|row| row["rule"] == rule).cloned().collect();
        assert_eq!(raised(&tested, "raised", "event_time"), raised(&fired, "", "raised"), "{rule}");
        assert_eq!(raised(&tested, "cleared", "event_time"), raised(&fired, "", "cleared"), "{rule}");
    }
}

#[test]
fn an_alarm_is_acknowledged_and_cleared_by_hand() {
    let weir = Weir::start();
    weir.run(&["device", "create", "d"]);
    weir.run(&["rule", "create", "hot", "--when", "temp > 30", "--severity", "critical"]);
    weir.run(&["telemetry", "publish", "d", "temp=31", "--ts", "2015-02-04T00:00:00Z"]);
    let alarm = eventually("the alarm is raised", || weir.rows(&["alarm", "list"]).pop());
    assert_eq!((alarm["severity"].as_str(), alarm["state"].as_str()), ("critical", "raised"));
    weir.run(&["alarm", "ack", &alarm["id"], "--comment", "on it"]);
    assert_eq!(weir.rows(&["alarm", "list", "--state", "acknowledged"]).len(), 1);
    weir.run(&["alarm", "clear", &alarm["id"]]);
    let cleared = &weir.rows(&["alarm", "list"])[0];
    assert_eq!((cleared["state"].as_str(), cleared["clear_reason"].as_str()), ("cleared", "MANUAL"));
    // Not raised again until the condition was false once.
    weir.run(&["telemetry", "publish", "d", "temp=32", "--ts", "2015-02-04T00:01:00Z"]);
    weir.run(&["telemetry", "publish", "d", "temp=20", "--ts", "2015-02-04T00:02:00Z"]);
    weir.run(&["telemetry", "publish", "d", "temp=33", "--ts", "2015-02-04T00:03:00Z"]);
    let again = eventually("it is raised once more", || {
        let rows = weir.rows(&["alarm", "list"]);
        (rows.len() > 1).then_some(rows)
    });
    assert_eq!(again.len(), 2);
    assert!(again.iter().any(|row| row["raised"] == "2015-02-04T00:03:00Z"));
}
