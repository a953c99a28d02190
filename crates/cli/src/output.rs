//! Tables, JSON, YAML and CSV: one description of a resource, four ways to print it.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use weir_core::{Error, Result};

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns, for people
    Table,
    /// A JSON document; streams give one object a line
    Json,
    /// A YAML document; streams give one after the other
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
    print(|out| write_list(out, format, items))
}

/// Prints one thing: in a table its facts one below the other.
pub(crate) fn one<T: Show>(format: Format, item: &T) -> Result<()> {
    print(|out| write_one(out, format, item))
}

fn write_list<T: Show>(out: &mut impl Write, format: Format, items: &[T]) -> Result<()> {
    match format {
        Format::Table => table(out, T::COLUMNS, items.iter().map(Show::cells)),
        Format::Csv => csv(out, T::COLUMNS, items.iter().map(Show::cells)),
        Format::Json => json(out, &Value::Array(items.iter().map(Show::json).collect())),
        Format::Yaml => yaml(out, &Value::Array(items.iter().map(Show::json).collect())),
    }
}

fn write_one<T: Show>(out: &mut impl Write, format: Format, item: &T) -> Result<()> {
    match format {
        Format::Table => facts(out, &item.json()),
        Format::Csv => csv(out, T::COLUMNS, [item.cells()].into_iter()),
        Format::Json => json(out, &item.json()),
        Format::Yaml => yaml(out, &item.json()),
    }
}

/// Prints a secret so that `$(…)` takes just it; where it came from goes to standard error.
pub(crate) fn secret(format: Format, id: &str, secret: &str, what: &str) -> Result<()> {
    let whole = serde_json::json!({"id": id, "token": secret});
    match format {
        Format::Table => {
            line(secret)?;
            note(&format!("{what} {id}; shown only this once"));
            Ok(())
        }
        Format::Csv => {
            let row = vec![id.to_owned(), secret.to_owned()];
            print(|out| csv(out, &["id", "token"], [row].into_iter()))
        }
        Format::Json => print(|out| json(out, &whole)),
        Format::Yaml => print(|out| yaml(out, &whole)),
    }
}

/// Bytes to standard output as they are.
pub(crate) fn raw(bytes: &[u8]) -> Result<()> {
    print(|out| out.write_all(bytes).map_err(|error| broken(&error)))
}

/// Writes to standard output in large pieces.
pub(crate) fn print(
    write: impl FnOnce(&mut io::BufWriter<io::StdoutLock<'static>>) -> Result<()>,
) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    write(&mut out)?;
    out.flush().map_err(|error| broken(&error))
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

pub(crate) fn table(
    out: &mut impl Write,
    columns: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| column.to_uppercase()));
    let mut empty = true;
    for row in rows {
        empty = false;
        table.add_row(row.iter().map(|cell| visible(cell)));
    }
    if empty {
        note("nothing found");
        return Ok(());
    }
    lines(out, &table)
}

fn facts(out: &mut impl Write, value: &Value) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let (id, others): (Vec<_>, Vec<_>) =
        value.as_object().into_iter().flatten().partition(|(key, _)| *key == "id");
    for (key, value) in id.into_iter().chain(others) {
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
        table.add_row([key.as_str(), &visible(&text)]);
    }
    lines(out, &table)
}

fn lines(out: &mut impl Write, table: &Table) -> Result<()> {
    for row in table.lines() {
        let row = row.strip_prefix(' ').unwrap_or(&row).trim_end(); // cells are padded on both sides
        writeln!(out, "{row}").map_err(|error| broken(&error))?;
    }
    Ok(())
}

/// Text for a terminal: what a device sent must not move the cursor or change colors.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(|c: char| c.is_control() && c != '\n') {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
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

pub(crate) fn csv(
    out: &mut impl Write,
    columns: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(columns).map_err(|error| broken(&error))?;
    for row in rows {
        writer.write_record(row).map_err(|error| broken(&error))?;
    }
    writer.flush().map_err(|error| broken(&error))
}

pub(crate) fn json(out: &mut impl Write, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| broken(&error))?;
    writeln!(out, "{text}").map_err(|error| broken(&error))
}

pub(crate) fn yaml(out: &mut impl Write, value: &Value) -> Result<()> {
    let text = serde_yaml_ng::to_string(value).map_err(|error| broken(&error))?;
    writeln!(out, "{}", text.trim_end()).map_err(|error| broken(&error))
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
            Format::Table => line(&visible(&item.cells().join("  "))),
            Format::Json => line(&item.json().to_string()),
            Format::Yaml => {
                line("---")?;
                print(|out| yaml(out, &item.json()))
            }
            Format::Csv if first => print(|out| csv(out, T::COLUMNS, [item.cells()].into_iter())),
            Format::Csv => print(|out| {
                let mut writer = csv::Writer::from_writer(out);
                writer.write_record(item.cells()).map_err(|error| broken(&error))?;
                writer.flush().map_err(|error| broken(&error))
            }),
        }
    }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
