//! The chart by itself: what it renders from each example, and what it refuses. It needs helm, and no cluster.

use std::{fs, path::PathBuf, process::Command};

use crate::tools::{EXAMPLES, has, root, skipped, told};

/// Renders the chart; what helm complains about where it does not.
fn render(args: &[&str]) -> Result<String, String> {
    let output = Command::new("helm")
        .args(["template", "weir", "charts/weir", "--namespace", "iot", "--kube-version", "1.33.0"])
        .args(args)
        .current_dir(root())
        .output()
        .map_err(|error| error.to_string())?;
    told("helm template", output)
}

fn golden(name: &str) -> PathBuf {
    root().join("tests/cluster/golden").join(format!("{name}.yaml"))
}

/// To accept what changed: `WEIR_GOLDEN=write cargo test -p weir-tests --test cluster chart`.
#[test]
fn every_example_renders_what_was_reviewed() {
    if !has("helm") {
        return skipped("renderings of the chart need helm on PATH");
    }
    for example in EXAMPLES {
        let rendered = render(&["--values", &format!("charts/weir/examples/{example}.yaml")]).unwrap();
        if std::env::var_os("WEIR_GOLDEN").is_some() {
            fs::write(golden(example), &rendered).unwrap();
        }
        let reviewed = fs::read_to_string(golden(example)).unwrap();
        let differs =
            reviewed.lines().zip(rendered.lines()).find(|(reviewed, rendered)| reviewed != rendered);
        assert!(reviewed == rendered, "{example} renders something else: {differs:?}");
    }
}

#[test]
fn helm_lint_finds_nothing_in_any_example() {
    if !has("helm") {
        return skipped("helm lint needs helm on PATH");
    }
    for example in EXAMPLES {
        let output = Command::new("helm")
            .args(["lint", "--strict", "charts/weir", "--values"])
            .arg(format!("charts/weir/examples/{example}.yaml"))
            .current_dir(root())
            .output()
            .unwrap();
        told(&format!("helm lint of {example}"), output).unwrap();
    }
}

#[test]
fn a_wrong_key_or_value_is_refused_by_its_path() {
    if !has("helm") {
        return skipped("the schema of the values needs helm on PATH");
    }
    for (set, named) in [
        ("operatr.replicas=1", "operatr"),
        ("operator.replica=1", "replica"),
        ("operator.replicas=none", "replicas"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("wait.timeout=soon", "timeout"),
        ("cluster.versoin=1", "versoin"),
        ("cluster.engines.embedded.durability=luck", "durability"),
        ("cluster.engines.embedded.storage.sise=1Gi", "sise"),
        ("cluster.exposure.mqtt.type=Ingress", "type"),
        ("cluster.services.all.scaling.mode=Magic", "mode"),
    ] {
        let why = render(&["--set", set]).expect_err(set);
        assert!(why.contains(named), "{set}: {why}");
    }
}
