//! `docs/metrics.md`, from what each component registers: one row a metric, with its kind, labels, unit and meaning.

use std::{fmt::Write as _, fs, process::Command};

use serde::Deserialize;

use crate::run::{cargo_path, output, root};

const HEAD: &str = "# Metrics

Written by `cargo xtask metrics-inventory` from what each component registers; do not edit.

Every process tells its own at `GET /metrics` of its admin listener (`listen.admin_port`), those of the services that it runs
and of what they stand on. Counters and histograms begin at 0 with the process. Labels are bounded: no device id, topic or
path ever is one, and of tenants the first 100 that a process met have their name, all others are `other`.
";

/// One metric, as `weir metrics-inventory` tells it.
#[derive(Debug, Deserialize)]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) name: String,
    /// `counter`, `gauge` or `histogram`.
    pub(crate) kind: String,
    /// Its labels.
    pub(crate) labels: Vec<String>,
    /// What it means.
    pub(crate) help: String,
}

/// Writes the inventory, or checks it.
pub(crate) fn run(check: bool) -> Result<(), String> {
    let mut command = Command::new(cargo_path());
    command
        .args(["run", "--quiet", "--locked", "--package", "weir", "--", "metrics-inventory"])
        .current_dir(root());
    let entries: Vec<Entry> =
        serde_json::from_str(&output(&mut command)?).map_err(|error| error.to_string())?;
    let wrong: Vec<String> = entries.iter().filter_map(misnamed).collect();
    if !wrong.is_empty() {
        return Err(format!("metrics that are not named as all are:\n  {}", wrong.join("\n  ")));
    }
    let text = inventory(&entries)?;
    let file = root().join("docs").join("metrics.md");
    if check {
        let found = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        return if found == text {
            Ok(())
        } else {
            Err("docs/metrics.md is not what is registered; run `cargo xtask metrics-inventory`".to_owned())
        };
    }
    fs::write(&file, text).map_err(|error| error.to_string())
}

fn inventory(entries: &[Entry]) -> Result<String, String> {
    let mut text = HEAD.to_owned();
    let mut last = "";
    for entry in entries {
        let component = component(&entry.name);
        if component != last {
            last = component;
            write!(text, "\n## {component}\n\n| metric | type | labels | unit | meaning |\n| --- | --- | --- | --- | --- |\n")
                .map_err(|error| error.to_string())?;
        }
        let labels: Vec<String> = entry.labels.iter().map(|label| format!("`{label}`")).collect();
        let meaning = entry.help.replace('|', "\\|");
        let Entry { name, kind, .. } = entry;
        writeln!(text, "| `{name}` | {kind} | {} | {} | {meaning} |", labels.join(", "), unit(name))
            .map_err(|error| error.to_string())?;
    }
    Ok(text)
}

/// The second part of a name; what the client library tells of the process is its own.
fn component(name: &str) -> &str {
    match name.strip_prefix("weir_").and_then(|rest| rest.split('_').next()) {
        Some(component) => component,
        None => "process",
    }
}

/// The unit at the end of a name; a plain number of what the name says without one.
fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    match name.rsplit('_').next().unwrap_or_default() {
        "seconds" => "s",
        "bytes" => "bytes",
        "ratio" => "ratio, 0 to 1",
        "info" => "always 1",
        "sequence" => "log sequence",
        _ => "count",
    }
}

/// Why a metric is not named as all are: `weir_<component>_<name>_<unit>[_total]`, base units, and a meaning.
fn misnamed(entry: &Entry) -> Option<String> {
    let Entry { name, kind, help, .. } = entry;
    let is_counter = kind == "counter";
    let why = if is_counter != name.ends_with("_total") {
        "a counter ends in _total, and nothing else does"
    } else if !name.starts_with("weir_") && !name.starts_with("process_") {
        "it begins with weir_"
    } else if ["_ms", "_millis", "_us", "_kib", "_mb", "_percent"].iter().any(|unit| name.ends_with(unit)) {
        "units are base units: seconds, bytes, ratio"
    } else if help.is_empty() {
        "it has no meaning"
    } else {
        return None;
    };
    Some(format!("{name}: {why}"))
}
