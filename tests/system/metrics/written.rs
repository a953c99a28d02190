//! What is written about metrics agrees with what is registered: dashboards, rules, alerts, runbooks.

use std::{collections::BTreeSet, fs, process::Command};

use weir_test_servers::{or_skip, prometheus};

use super::{read, repository};

/// Names of metrics in a text, histograms' series by the name of the histogram; recorded series have a colon and are none.
pub(super) fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    let words = text.split(|letter| !is_part(letter));
    words
        .filter(|word| {
            let ours = word.starts_with("weir_") || word.starts_with("process_");
            ours && !word.contains(':') && !word.ends_with('_')
        })
        .map(|word| {
            let of = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
            of.unwrap_or(word).to_owned()
        })
        .collect()
}

fn files_in(dir: &str, end: &str) -> Vec<String> {
    let entries = fs::read_dir(repository(dir)).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.filter_map(|name| name.into_string().ok()).collect();
    names.retain(|name| name.ends_with(end));
    names.sort();
    names.into_iter().map(|name| format!("{dir}/{name}")).collect()
}

#[test]
fn every_metric_that_is_asked_for_is_in_the_inventory() {
    let inventory = read("docs/metrics.md");
    let known = metrics_in(&inventory);
    let mut asking = files_in("deploy/grafana/dashboards", ".json");
    asking.extend(files_in("deploy/prometheus", ".yaml"));
    asking.extend(files_in("deploy/prometheus/tests", ".yaml"));
    asking.extend(files_in("docs/runbooks", ".md"));
    assert!(asking.len() > 30, "{asking:?}");
    for file in asking {
        let mut text = read(&file);
        // The bus's own names, in commands of its own.
        text = text.replace("weir_readings", "");
        let unknown: Vec<_> = metrics_in(&text).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "{file} asks for what nobody tells: {unknown:?}");
    }
}

#[test]
fn every_alert_has_a_runbook_and_a_test_and_neither_stands_alone() {
    let rules = read("deploy/prometheus/weir-alerts.rules.yaml");
    let alerts: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(rules.matches("runbook_url: docs/runbooks/").count(), rules.matches("- alert: ").count());
    let named = |dir: &str, end: &str| -> BTreeSet<String> {
        let file = |path: String| Some(path.rsplit('/').next()?.strip_suffix(end)?.to_owned());
        files_in(dir, end).into_iter().filter_map(file).collect()
    };
    let expected: BTreeSet<String> = alerts.iter().map(|alert| (*alert).to_owned()).collect();
    assert_eq!(named("docs/runbooks", ".md"), expected);
    assert_eq!(named("deploy/prometheus/tests", ".test.yaml"), expected);
    for alert in alerts {
        let test = read(&format!("deploy/prometheus/tests/{alert}.test.yaml"));
        assert!(
            test.contains("exp_labels:") && test.contains("exp_alerts: []"),
            "{alert} fires, and is quiet"
        );
        let runbook = read(&format!("docs/runbooks/{alert}.md"));
        for part in ["## What it means", "## How to see it", "## What to do"] {
            assert!(runbook.contains(part), "{alert}: {part}");
        }
    }
}

#[test]
fn rules_are_sound_and_every_alert_fires_when_it_should() {
    let Some(promtool) = or_skip("promtool", prometheus::binary("promtool")) else { return };
    let run = |args: &[&str], files: Vec<String>| {
        let told = Command::new(&promtool)
            .args(args)
            .args(files.iter().map(|file| repository(file)))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&told.stdout) + String::from_utf8_lossy(&told.stderr);
        assert!(told.status.success(), "promtool {args:?}: {text}");
    };
    run(&["check", "rules"], files_in("deploy/prometheus", ".rules.yaml"));
    run(&["test", "rules"], files_in("deploy/prometheus/tests", ".test.yaml"));
}
