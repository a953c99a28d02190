//! `docs/configuration.md`, from the types: one row a key, with its type, default and meaning.

use std::{fmt::Write as _, fs, process::Command};

use serde_json::{Map, Value};

use crate::run::{cargo_path, output, root};

const HEAD: &str = "# Configuration

Written by `cargo xtask config-docs` from the types; do not edit.

`weir serve --config FILE` reads a TOML file. Each key can also be given in the environment as `WEIR__SECTION__KEY`
(`WEIR__LISTEN__MQTT_PORT=2883`), which wins over the file; flags win over both. An unknown key is an error that names it.
Sizes are written `256KiB`, `4MiB`, spans `500ms`, `10s`, `1h`.
";

/// Writes the reference, or checks it.
pub(crate) fn run(check: bool) -> Result<(), String> {
    let mut command = Command::new(cargo_path());
    command
        .args(["run", "--quiet", "--locked", "--package", "weir", "--", "config-schema"])
        .current_dir(root());
    let schema: Value = serde_json::from_str(&output(&mut command)?).map_err(|error| error.to_string())?;
    let text = reference(&schema)?;
    let file = root().join("docs").join("configuration.md");
    if check {
        let found = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        return if found == text {
            Ok(())
        } else {
            Err("docs/configuration.md is not what the types say; run `cargo xtask config-docs`".to_owned())
        };
    }
    fs::create_dir_all(root().join("docs"))
        .and_then(|()| fs::write(&file, text))
        .map_err(|error| error.to_string())
}

fn reference(schema: &Value) -> Result<String, String> {
    let mut text = HEAD.to_owned();
    let defaults = schema.get("defaults").cloned().unwrap_or_default();
    for (name, section) in properties(schema).ok_or("the schema has no sections")? {
        let resolved = resolve(schema, section);
        writeln!(
            text,
            "\n## `[{name}]`\n\n{}\n",
            description(section).or(description(resolved)).unwrap_or_default()
        )
        .map_err(|error| error.to_string())?;
        text.push_str("| key | default | meaning |\n| --- | --- | --- |\n");
        rows(schema, resolved, "", defaults.get(name).unwrap_or(&Value::Null), &mut text)?;
    }
    Ok(text)
}

fn rows(
    schema: &Value,
    section: &Value,
    prefix: &str,
    defaults: &Value,
    text: &mut String,
) -> Result<(), String> {
    for (name, property) in properties(section).into_iter().flatten() {
        let resolved = resolve(schema, property);
        let default = defaults.get(name).unwrap_or(&Value::Null);
        let key = format!("{prefix}{name}");
        if properties(resolved).is_some() {
            rows(schema, resolved, &format!("{key}."), default, text)?;
            continue;
        }
        let meaning = description(property).or(description(resolved)).unwrap_or_default();
        writeln!(
            text,
            "| `{key}` | {} | {} |",
            shown(default),
            meaning.replace('\n', " ").replace('|', "\\|")
        )
        .map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn shown(default: &Value) -> String {
    match default {
        Value::Null => "none".to_owned(),
        other => format!("`{other}`"),
    }
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties").and_then(Value::as_object)
}

fn description(schema: &Value) -> Option<String> {
    schema.get("description").and_then(Value::as_str).map(str::to_owned)
}

/// Follows a reference to a definition, also one that stands beside a description.
fn resolve<'a>(schema: &'a Value, property: &'a Value) -> &'a Value {
    let reference = property.get("$ref").or_else(|| {
        property
            .get("allOf")
            .and_then(Value::as_array)
            .and_then(|all| all.first())
            .and_then(|first| first.get("$ref"))
    });
    reference
        .and_then(Value::as_str)
        .and_then(|path| path.strip_prefix('#'))
        .and_then(|pointer| schema.pointer(pointer))
        .unwrap_or(property)
}
