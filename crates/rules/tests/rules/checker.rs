//! What the checker says.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use weir_core::{Error, ValueType, device::Metric};
use weir_rules::{Action, Compiled, Rung, Severity};

use crate::support::rule;

fn problem(condition: &str) -> String {
    match Compiled::new(&rule(condition), None) {
        Ok(_) => format!("{condition} is accepted"),
        Err(problems) => problems.iter().next().unwrap().to_string(),
    }
}

#[test]
fn what_rules_may_say_is_accepted() {
    for condition in [
        "temp > 30",
        "temp > 30.5 && !(door == true) || m(\"room.temp-1\") <= -2",
        "room.temp >= 30 && door",
        "avg(temp, \"5m\") - min(temp, '1h30m') > 2 * stddev(m(\"a b\"), \"500ms\") % 3",
        "count(temp, \"1d\") == 3 && sum(temp, \"60s\") / rate(temp, \"5m\") != 0",
        "last(temp) > delta(temp, \"5m\") && last(temp, \"5m\") > 1",
        "absent(temp, \"10m\") || max(temp, \"5m\") > 1u",
        "device.labels.floor == \"2\" && device.labels[\"floor\"].startsWith(\"2\")",
        "device.attributes.site in [\"north\", \"south\"] && temp in [1, 2.5, -3]",
        "has(device.labels.floor) && \"floor\" in device.labels && device.id.matches(\"^room-[0-9]+$\")",
        "(door ? temp : 2 * temp) > 3 && (door ? a : b) == c",
        "status.contains(\"err\") && (status + \"!\").endsWith(\"r!\") && a == b && a < b",
        "true",
        "temp > 30\n  && // why\n  humidity < 20",
        "temperature_\u{63} > 1",
    ] {
        assert!(Compiled::new(&rule(condition), None).is_ok(), "{}", problem(condition));
    }
}

#[test]
fn each_mistake_is_shown_with_its_place_and_a_fix() {
    for (condition, expected) in [
        (
            "avgg(temp, \"5m\") > 3",
            "condition:1:1: there is no function avgg\n  avgg(temp, \"5m\") > 3\n  ^^^^\n  did you mean avg?",
        ),
        (
            "temp > 30\n  && humidity > avg(temp)",
            "condition:2:17: avg takes a metric and a duration, and this has 1 argument\n    && humidity > avg(temp)\n                  ^^^\n  such as avg(temp, \"5m\")",
        ),
        (
            "avg(temp, 300) > 1",
            "condition:1:11: a duration is needed here\n  avg(temp, 300) > 1\n            ^^^\n  write \"300s\"",
        ),
        (
            "avg(temp, \"5x\") > 1",
            "condition:1:11: \"5x\" is not a duration such as 500ms, 60s, 5m, 1h30m or 1d\n  avg(temp, \"5x\") > 1\n            ^^^^\n  such as \"5m\"",
        ),
        (
            "temp + 1",
            "condition:1:1: a condition must be true or false, and this is a number\n  temp + 1\n  ^^^^\n  compare it with something, such as avg(temp, \"5m\") > 30",
        ),
        (
            "temp > \"30\" + 1",
            "condition:1:15: a text is needed here, and this is a number\n  temp > \"30\" + 1\n                ^",
        ),
        (
            "temp = 30",
            "condition:1:6: \"=\" is not expected here\n  temp = 30\n       ^\n  write == to compare",
        ),
        (
            "temp > 30 and humidity > 3",
            "condition:1:11: \"and\" is not expected here\n  temp > 30 and humidity > 3\n            ^^^\n  write && for \"and\"",
        ),
        (
            "temp >",
            "condition:1:7: the expression ends too early\n  temp >\n        ^\n  something is missing at the end, such as a value, a quote or a bracket",
        ),
        (
            "avg(temp, 5m) > 3",
            "condition:1:12: \"m\" is not expected here\n  avg(temp, 5m) > 3\n             ^\n  a duration is text: \"5m\"",
        ),
        (
            "[1, 2].exists(x, x > temp)",
            "condition:1:14: all, exists, exists_one, map and filter are not part of rules\n  [1, 2].exists(x, x > temp)\n               ^\n  a metric has one value; windows look at several: max(temp, \"5m\") > 30",
        ),
        (
            "device.label.floor == \"2\"",
            "condition:1:1: a device has no label\n  device.label.floor == \"2\"\n  ^^^^^^^^^^^^^^^^^^\n  did you mean device.labels?",
        ),
        (
            "\"äöü\" == status && avgg(x, \"5m\") > 1",
            "condition:1:20: there is no function avgg\n  \"äöü\" == status && avgg(x, \"5m\") > 1\n                     ^^^^\n  did you mean avg?",
        ),
        (
            "double(temp) > 1",
            "condition:1:1: there is no function double\n  double(temp) > 1\n  ^^^^^^\n  every number is a double already",
        ),
        (
            "temp == null",
            "condition:1:9: null is never a value\n  temp == null\n          ^^^^\n  a metric that was not seen is unknown; use absent(temp, \"10m\")",
        ),
        ("true > temp", "condition:1:6: truth values have no order\n  true > temp\n       ^\n  use == or !="),
        (
            "status.matches(\"(\")",
            "condition:1:16: this is not a regular expression\n  status.matches(\"(\")\n                 ^^^\n  RE2 syntax, such as \"^err-[0-9]+$\"",
        ),
        (
            "avg(temp, \"40d\") > 1",
            "condition:1:11: a window of 40d must be above 0s and at most 30d\n  avg(temp, \"40d\") > 1\n            ^^^^^",
        ),
        ("", "condition: an expression is missing\n  such as temp > 30"),
    ] {
        assert_eq!(problem(condition), expected);
    }
}

#[test]
fn a_metric_that_no_device_declares_is_refused_with_the_nearest_name() {
    let metric = |value_type| Metric { value_type, unit: String::new(), description: String::new() };
    let declared: BTreeMap<Arc<str>, Metric> =
        [("temperature".into(), metric(ValueType::Double)), ("status".into(), metric(ValueType::String))]
            .into();
    let check = |condition: &str| {
        Compiled::new(&rule(condition), Some(&declared)).map(|_| ()).map_err(|problems| problems.to_string())
    };
    assert_eq!(check("temperature > 3 && status == \"on\""), Ok(()));
    assert_eq!(
        check("temprature > 3").unwrap_err(),
        "condition:1:1: no device declares a metric temprature\n  temprature > 3\n  ^^^^^^^^^^\n  did you mean temperature?"
    );
    assert!(check("status > 3").unwrap_err().contains("a text and a number cannot be compared"));
    assert!(check("avg(status, \"5m\") > 3").unwrap_err().contains("avg needs a metric of numbers"));
}

#[test]
fn every_bound_is_named_with_its_number() {
    let long = format!("temp > {}", "1".repeat(4_096));
    let wide = vec!["temp"; 700].join("+") + " > 1";
    let deep = "(".repeat(129) + "temp > 1" + &")".repeat(129);
    let metrics = (0..33).map(|n| format!("m{n} > 1")).collect::<Vec<_>>().join(" && ");
    let regex = "status.matches(\"(a{100}){100}\")".to_owned();
    for (condition, limit) in
        [(long, "4096"), (wide, "512"), (deep, "128"), (metrics, "32"), (regex, "65536")]
    {
        let problems = Compiled::new(&rule(&condition), None).unwrap_err();
        assert!(problems.to_string().contains(limit), "{problems}");
        let error = Error::from(problems);
        assert_eq!(
            (error.field(), error.limit(), error.reason()),
            (Some("condition"), Some(limit), "RULE_INVALID")
        );
    }
}

#[test]
fn no_expression_overflows_a_stack() {
    let nests =
        [("(", "temp > 1", ")"), ("[", "1", "]"), ("f(", "1", ")"), ("{1: ", "1", "}"), ("a[", "1", "]")];
    let mut hostile: Vec<String> =
        nests.iter().map(|(open, inner, close)| open.repeat(128) + inner + &close.repeat(128)).collect();
    hostile.push("(temp > 1 ? ".repeat(64) + "true" + &" : true)".repeat(64));
    hostile.push("temp > 1 ? true : ".repeat(64) + "true");
    hostile.push(vec!["temp"; 800].join("+") + " > 1");
    hostile.push("!".repeat(2_000) + "(temp > 1)");
    hostile.push("temp".to_owned() + &".a".repeat(2_000));
    // The smallest stack that a thread of a server has.
    let checked = std::thread::Builder::new().stack_size(1 << 20).spawn(move || {
        let check = |text: &String| Compiled::new(&rule(text), None).map_err(|problems| problems.to_string());
        hostile.iter().map(|text| check(text).err().unwrap_or_default()).collect::<Vec<_>>()
    });
    let told = checked.unwrap().join().unwrap();
    assert!(told[0].contains("at most 96 levels"), "{told:?}");
    assert!(told[7].contains("512 parts"), "{told:?}");
    assert_eq!(told[8], "");
}

#[test]
fn a_ladder_has_each_severity_once_and_no_other_condition() {
    let mut ladder = rule("temp > 1");
    ladder.severities = vec![
        Rung { severity: Severity::Warning, condition: "temp > 30".to_owned() },
        Rung { severity: Severity::Warning, condition: "temp >".to_owned() },
    ];
    let text = Compiled::new(&ladder, None).unwrap_err().to_string();
    for part in [
        "either a condition or severities",
        "severity WARNING stands here twice",
        "severities[1].condition:1:7",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn an_action_is_checked_to_its_last_expression() {
    let action = |text: &str| serde_json::from_str::<Action>(text).unwrap();
    let mut acting = rule("temp > 1");
    acting.actions = vec![
        action(r#"{"id": "a", "command": {"name": "set", "payload": {"to": ["${avgg(temp, \"5m\")}"]}}}"#),
        action(r#"{"id": "a", "on": [], "command": {"name": "no/slash", "ttl": "31d"}}"#),
        action(r#"{"id": "B", "webhook": {"url": "ftp://x", "headers": {"bad name": "x"}}}"#),
        action(r#"{"id": "d", "command": {"name": "set", "payload": "{"}}"#),
        action(r#"{"id": "e", "command": {"name": "set", "payload": {"x": "${alarm.severty} ${"}}}"#),
    ];
    let text = Compiled::new(&acting, None).unwrap_err().to_string();
    for part in [
        "actions[0].command.payload.to[0]:1:1: there is no function avgg",
        "actions[1].id: action id \"a\" stands here twice",
        "actions[1].on: ",
        "actions[1].command.name: ",
        "actions[1].command.ttl: ",
        "actions[2].id: ",
        "actions[2].webhook.url: ",
        "actions[2].webhook.headers: ",
        "actions[3].command.payload:1:1: this is not JSON",
        "did you mean alarm.severity?",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn a_rule_is_text_and_back() {
    let text = r#"{
        "id": "co2-high", "selector": "type=room,floor in (1,2)", "condition": "CO2 > 1000", "for": "2m",
        "clear_when": "CO2 < 800", "clear_for": "1m", "max_gap": "10m", "severity": "MAJOR", "labels": {"team": "air"},
        "actions": [{"id": "fan", "on": ["raised", "cleared"],
                     "command": {"name": "ventilate", "payload": {"speed": "${CO2 / 100}"}, "min_interval": "0s"}},
                    {"id": "tell", "webhook": {"url": "https://example.org/hook"}}]
    }"#;
    let read: weir_rules::Rule = serde_json::from_str(text).unwrap();
    assert!(Compiled::new(&read, None).is_ok());
    assert_eq!(
        serde_json::from_str::<weir_rules::Rule>(&serde_json::to_string(&read).unwrap()).unwrap(),
        read
    );
    let wrong = text.replace("\"clear_for\"", "\"clearfor\"");
    assert!(serde_json::from_str::<weir_rules::Rule>(&wrong).unwrap_err().to_string().contains("clearfor"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_text_is_a_rule_or_a_problem(text in "\\PC{0,60}") {
        let _ = Compiled::new(&rule(&text), None).map_err(|problems| problems.to_string());
    }

    #[test]
    fn any_words_are_a_rule_or_a_problem(
        words in prop::collection::vec(prop::sample::select(vec![
            "temp", "(", ")", "&&", "||", "!", "-", "+", "<", "==", "in", "[", "]", ",", ".", "?", ":", "\"5m\"", "'", "avg",
            "absent", "last", "m", "has", "device", "labels", "1", "2.5", "true", "null", "matches", "{", "}", "\n",
        ]), 0..20),
    ) {
        let _ = Compiled::new(&rule(&words.join(" ")), None).map_err(|problems| problems.to_string());
    }
}
