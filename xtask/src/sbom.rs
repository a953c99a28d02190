//! The bill of materials of the image, CycloneDX 1.5: every crate that is linked into the binary, and what is linked into it
//! from outside of cargo.
//!
//! `cargo tree` says which crates they are (with the features of this binary alone, without macros and build scripts),
//! `cargo metadata` what is known of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    image::FEATURES,
    run::{cargo_path, output, root, set},
};

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

/// Writes it; how many components it names.
pub(crate) fn write(file: &Path, target: &str) -> Result<usize, String> {
    let linked = linked(target)?;
    let metadata = metadata(target)?;
    let packages: BTreeMap<&str, &Package> = metadata
        .packages
        .iter()
        .filter(|package| linked.contains(&format!("{} v{}", package.name, package.version)))
        .map(|package| (package.id.as_str(), package))
        .collect();
    let mut components: Vec<Value> = packages.values().map(|package| component(package)).collect();
    components.extend(outside()?);
    let count = components.len();
    let dependencies: Vec<Value> =
        metadata.resolve.nodes.iter().filter_map(|node| edges(node, &packages)).collect();
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {"type": "container", "bom-ref": "image", "name": "weir", "version": env!("CARGO_PKG_VERSION")},
            "tools": {"components": [{"type": "application", "name": "cargo xtask image"}]},
        },
        "components": components,
        "dependencies": dependencies,
    });
    let text = serde_json::to_string_pretty(&bill).map_err(|error| error.to_string())?;
    fs::write(file, text + "\n").map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(count)
}

/// `NAME vVERSION` of every crate in the binary.
fn linked(target: &str) -> Result<BTreeSet<String>, String> {
    let told = output(
        Command::new(cargo_path())
            .args(["tree", "--locked", "--package", "weir", "--features", FEATURES, "--target", target])
            .args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"])
            .current_dir(root()),
    )?;
    let crates = told.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "));
    Ok(crates.filter(|line| !line.is_empty()).collect())
}

fn metadata(target: &str) -> Result<Metadata, String> {
    let told = output(
        Command::new(cargo_path())
            .args(["metadata", "--format-version=1", "--locked", "--filter-platform", target])
            .current_dir(root()),
    )?;
    serde_json::from_str(&told).map_err(|error| error.to_string())
}

fn component(package: &Package) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(package),
        "name": package.name,
        "version": package.version,
    });
    if let Some(license) = &package.license {
        // What Cargo still takes for "or" is none in SPDX.
        let license = license.replace('/', " OR ");
        set(&mut component, "licenses", json!([{"expression": license}]));
    }
    if package.source.is_some() {
        set(&mut component, "purl", json!(reference(package)));
    }
    component
}

/// What a crate uses, of those that are in the binary.
fn edges(node: &Node, packages: &BTreeMap<&str, &Package>) -> Option<Value> {
    let package = packages.get(node.id.as_str())?;
    let used: Vec<String> = node
        .dependencies
        .iter()
        .filter_map(|id| packages.get(id.as_str()))
        .map(|package| reference(package))
        .collect();
    Some(json!({"ref": reference(package), "dependsOn": used}))
}

fn reference(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

/// The standard library, and the C library that is linked statically: their weaknesses are the image's, too.
fn outside() -> Result<[Value; 2], String> {
    let rust = output(Command::new("rustc").arg("--version"))?;
    let rust = rust.split_whitespace().nth(1).unwrap_or_default();
    let glibc = output(Command::new("ldd").arg("--version"))?;
    let glibc = glibc.lines().next().and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
    Ok([
        json!({"type": "library", "bom-ref": "rust-std", "name": "rust-std", "version": rust,
            "licenses": [{"expression": "MIT OR Apache-2.0"}]}),
        json!({"type": "library", "bom-ref": "glibc", "name": "glibc", "version": glibc,
            "cpe": format!("cpe:2.3:a:gnu:glibc:{glibc}:*:*:*:*:*:*:*"),
            "licenses": [{"expression": "LGPL-2.1-or-later"}]}),
    ])
}
