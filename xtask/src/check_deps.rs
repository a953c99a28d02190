//! The arrows: which of our crates may use which, and which may use an engine's client.

use std::{collections::BTreeMap, process::Command};

use serde::Deserialize;

use crate::run::{cargo_path, output};

/// What a service may use.
const SERVICE: &[&str] =
    &["core", "config", "proto", "frame", "rules", "grpc", "runtime", "metrics", "observability"];

/// As a service; it also has the kinds of Kubernetes.
const OPERATOR: &[&str] =
    &["core", "config", "proto", "frame", "rules", "grpc", "runtime", "metrics", "observability", "crd"];

/// Which of ours each crate may use in its own code.
fn allowed(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "core" | "proto" => &[],
        "frame" | "rules" | "config" | "metrics" => &["core"],
        "log-embedded" | "log-nats" | "store-embedded" | "store-scylla" => &["core", "config"],
        "grpc" => &["core", "proto", "metrics"],
        "clients" => &["core", "proto", "grpc"],
        "drive" => &["core", "proto", "grpc", "clients"],
        "cli" => &["clients", "drive", "rules", "config", "core", "grpc", "proto"],
        "observability" | "runtime" => &["core", "config", "metrics"],
        "crd" => &["core", "config"],
        "operator" => OPERATOR,
        "registry" | "ingest" | "storage" | "analytics" | "commands" => SERVICE,
        "conformance" => &["core", "grpc", "clients"], // call ports are tested over a real connection, too
        _ => return None,                              // the binary, tests and xtask wire everything
    })
}

/// Clients and engines that stay behind one crate each, so that the rest cannot tell which engine runs. The fault harness
/// measures a plain client of the bus beside Weir, and puts junk on it.
const ONLY: [(&str, &[&str]); 4] = [
    ("fjall", &["store-embedded"]),
    ("async-nats", &["log-nats", "tests"]),
    ("scylla", &["store-scylla"]),
    ("kube", &["operator", "crd", "tests"]),
];

/// What `core` and `rules` may not touch: they are free of I/O.
const NO_IO: [&str; 4] = ["tokio", "tonic", "axum", "reqwest"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// Checks every arrow.
pub(crate) fn run() -> Result<(), String> {
    let text =
        output(Command::new(cargo_path()).args(["metadata", "--format-version=1", "--no-deps", "--locked"]))?;
    let metadata: Metadata = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let ours: BTreeMap<&str, &Package> =
        metadata.packages.iter().map(|package| (short(&package.name), package)).collect();
    let mut wrong = Vec::new();
    for (name, package) in &ours {
        for dependency in &package.dependencies {
            wrong.extend(check(name, dependency, |other| ours.contains_key(other)));
        }
    }
    if wrong.is_empty() {
        crate::run::complain(&format!("{} crates, every arrow is allowed", ours.len()));
        return Ok(());
    }
    Err(format!("arrows that must not be:\n  {}", wrong.join("\n  ")))
}

fn check(name: &str, dependency: &Dependency, is_ours: impl Fn(&str) -> bool) -> Option<String> {
    let other = short(&dependency.name);
    let dev = dependency.kind.as_deref() == Some("dev");
    if other == "conformance" && dependency.name.starts_with("weir-") {
        return (!dev).then(|| format!("{name} → conformance: only tests may use it"));
    }
    if dev {
        return None; // tests may see everything they test with
    }
    if dependency.name.starts_with("weir-") && is_ours(other) {
        return allowed(name)
            .filter(|allowed| !allowed.contains(&other))
            .map(|allowed| format!("{name} → {other}: {name} may use {}", allowed.join(", ")));
    }
    if let Some((_, owners)) =
        ONLY.iter().find(|(engine, owners)| *engine == other && !owners.contains(&name))
    {
        return Some(format!("{name} → {other}: only {} may use it", owners.join(", ")));
    }
    (matches!(name, "core" | "rules") && NO_IO.contains(&other))
        .then(|| format!("{name} → {other}: {name} does no I/O"))
}

fn short(name: &str) -> &str {
    name.strip_prefix("weir-").unwrap_or(name)
}
