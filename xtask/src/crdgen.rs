//! `charts/weir/crds`, from the types: one file a kind, and what the schema of the chart's values takes from them.

use std::{collections::BTreeMap, fs, process::Command};

use crate::{
    chart_schema,
    run::{cargo_path, output, root},
};

/// Writes the definitions, or checks them.
pub(crate) fn run(check: bool) -> Result<(), String> {
    let mut command = Command::new(cargo_path());
    command
        .args(["run", "--quiet", "--locked", "--package", "weir", "--", "operator", "crds"])
        .current_dir(root());
    let made = files(&output(&mut command)?)?;
    let folder = root().join("charts").join("weir").join("crds");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(&folder).map_err(|error| error.to_string())? {
        let entry = entry.map_err(|error| error.to_string())?;
        let text = fs::read_to_string(entry.path()).map_err(|error| error.to_string())?;
        found.insert(entry.file_name().to_string_lossy().into_owned(), text);
    }
    if check {
        return match found == made {
            true => chart_schema::run(true),
            false => Err("charts/weir/crds is not what the types say; run `cargo xtask crdgen`".to_owned()),
        };
    }
    for name in found.keys().filter(|name| !made.contains_key(*name)) {
        fs::remove_file(folder.join(name)).map_err(|error| format!("{name}: {error}"))?;
    }
    for (name, text) in &made {
        fs::write(folder.join(name), text).map_err(|error| format!("{name}: {error}"))?;
    }
    chart_schema::run(false)
}

/// One file a document, named by the definition.
fn files(text: &str) -> Result<BTreeMap<String, String>, String> {
    let documents = text.split("---\n").filter(|document| !document.trim().is_empty());
    documents
        .map(|document| {
            let name = document.lines().find_map(|line| line.strip_prefix("  name: "));
            let name = name.ok_or("a definition has no name")?;
            Ok((
                format!("{name}.yaml"),
                format!("# Written by `cargo xtask crdgen`; do not edit.\n{}\n", document.trim_end()),
            ))
        })
        .collect()
}
