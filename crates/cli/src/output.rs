//! Tables, JSON, YAML and CSV: one description of a resource, four ways to print it.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use weir_core::{Error, Result};

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// A JSON document; streams give one object a line
    Json,
    /// YAML
    Yaml,
    /// Comma-separated with a header, RFC 4180; the first column of a list is the id
    Csv,
}

/// Something that can be shown.
pub(crate) trait Show {
    /// Column names; the first is the id.
    const COLUMNS: &'static [&'static str];
    /// One cell for each column.
    fn cells(&self) -> Vec<String>;
    /// Everything there is to tell.
    fn json(&self) -> Value;
}

/// Prints a list.
pub(crate) fn list<T: Show>(format: Format, items: &[T]) -> Result<()> {
    match format {
        Format::Table => table(T::COLUMNS, items.iter().map(Show::cells)),
        Format::Csv => csv(T::COLUMNS, items.iter().map(Show::cells)),
        Format::Json => json(&Value::Array(items.iter().map(Show::json).collect())),
        Format::Yaml => yaml(&Value::Array(items.iter().map(Show::json).collect())),
    }
}

/// Prints one thing: in a table its facts one below the other.
pub(crate) fn one<T: Show>(format: Format, item: &T) -> Result<()> {
    match format {
        Format::Table => facts(&item.json()),
        Format::Csv => csv(T::COLUMNS, [item.cells()].into_iter()),
        Format::Json => json(&item.json()),
        Format::Yaml => yaml(&item.json()),
    }
}

/// Prints a secret so that `$(…)` takes just it; where it came from goes to standard error.
pub(crate) fn secret(format: Format, id: &str, secret: &str, what: &str) -> Result<()> {
    match format {
        Format::Table => {
            line(secret)?;
            note(&format!("{what} {id}; shown only this once"));
            Ok(())
        }
        Format::Csv => csv(&["id", "token"], [vec![id.to_owned(), secret.to_owned()]].into_iter()),
        Format::Json => json(&serde_json::json!({"id": id, "token": secret})),
        Format::Yaml => yaml(&serde_json::json!({"id": id, "token": secret})),
    }
}

/// One line to standard output.
pub(crate) fn line(text: &str) -> Result<()> {
    writeln!(io::stdout().lock(), "{text}").map_err(|error| broken(&error))
}

/// One line for a person, to standard error.
pub(crate) fn note(text: &str) {
    let told = writeln!(io::stderr().lock(), "{text}");
    drop(told); // nobody listens: nobody misses it
}

pub(crate) fn table(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| column.to_uppercase()));
    let mut empty = true;
    for row in rows {
        empty = false;
        table.add_row(row);
    }
    if empty {
        note("nothing found");
        return Ok(());
    }
    for row in table.lines() {
        line(row.strip_prefix(' ').unwrap_or(&row).trim_end())?; // cells are padded on both sides
    }
    Ok(())
}

fn facts(value: &Value) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    for (key, value) in value.as_object().into_iter().flatten() {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            Value::Object(map) if map.is_empty() => continue,
            Value::Array(list) if list.is_empty() => continue,
            Value::Object(map) => {
                map.iter().map(|(k, v)| format!("{k}={}", plain(v))).collect::<Vec<_>>().join("\n")
            }
            Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join("\n"),
            other => other.to_string(),
        };
        table.add_row([key.as_str(), text.as_str()]);
    }
    for row in table.lines() {
        line(row.strip_prefix(' ').unwrap_or(&row).trim_end())?; // cells are padded on both sides
    }
    Ok(())
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(k, v)| format!("{k}={}", plain(v)))
            .collect::<Vec<_>>()
            .join(" "),
        other => other.to_string(),
    }
}

pub(crate) fn csv(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<()> {
    let mut writer = csv_writer();
    writer.write_record(columns).map_err(|error| broken(&error))?;
    for row in rows {
        writer.write_record(row).map_err(|error| broken(&error))?;
    }
    writer.flush().map_err(|error| broken(&error))
}

/// A CSV writer to standard output.
pub(crate) fn csv_writer() -> csv::Writer<io::Stdout> {
    csv::WriterBuilder::new().flexible(false).from_writer(io::stdout())
}

pub(crate) fn json(value: &Value) -> Result<()> {
    line(&serde_json::to_string_pretty(value).map_err(|error| broken(&error))?)
}

pub(crate) fn yaml(value: &Value) -> Result<()> {
    line(serde_yaml_ng::to_string(value).map_err(|error| broken(&error))?.trim_end())
}

/// What writing to standard output fails with.
pub(crate) fn broken(error: &impl std::fmt::Display) -> Error {
    Error::unavailable(format!("cannot write to standard output: {error}"))
}

/// Prints things one by one as they come: aligned only as far as each line alone can be.
pub(crate) struct Stream {
    format: Format,
    first: bool,
}

impl Stream {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, first: true }
    }

    pub(crate) fn item<T: Show>(&mut self, item: &T) -> Result<()> {
        let first = std::mem::replace(&mut self.first, false);
        match self.format {
            Format::Table => line(&item.cells().join("  ")),
            Format::Json => line(&item.json().to_string()),
            Format::Yaml => {
                line("---")?;
                yaml(&item.json())
            }
            Format::Csv => {
                let mut writer = csv_writer();
                if first {
                    writer.write_record(T::COLUMNS).map_err(|error| broken(&error))?;
                }
                writer.write_record(item.cells()).map_err(|error| broken(&error))?;
                writer.flush().map_err(|error| broken(&error))
            }
        }
    }
}
