//! Points and aggregates as they are shown. Points are streamed: a year of them must not have to fit in memory.

use std::io::{self, Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value as Json, json};
use weir_core::Result;
use weir_proto::{
    common::v1::{Value, value::Kind},
    storage::v1 as pb,
};

use crate::{
    convert::{json_time, time},
    output::{Format, broken, csv, csv_writer, json, line, yaml},
};

/// One value a line: the contract of scripts.
const COLUMNS: [&str; 5] = ["device", "ts", "metric", "type", "value"];

/// Prints points as they come.
pub(crate) struct Points {
    format: Format,
    csv: csv::Writer<io::Stdout>,
    /// A list is one JSON document; a live stream is one object a line.
    live: bool,
    first: bool,
}

impl Points {
    /// A list of points.
    pub(crate) fn new(format: Format) -> Result<Self> {
        let mut csv = csv_writer();
        match format {
            Format::Csv => csv.write_record(COLUMNS).map_err(|error| broken(&error))?,
            Format::Table => line(&row("DEVICE", "TS", "METRIC", "VALUE"))?,
            Format::Json | Format::Yaml => {}
        }
        Ok(Self { format, csv, live: false, first: true })
    }

    /// A stream that does not end by itself.
    pub(crate) fn live(format: Format) -> Result<Self> {
        Ok(Self { live: true, ..Self::new(format)? })
    }

    pub(crate) fn push(&mut self, points: &[pb::Point]) -> Result<()> {
        points.iter().try_for_each(|point| self.point(point))
    }

    fn point(&mut self, point: &pb::Point) -> Result<()> {
        let (kind, text) = text(point.value.as_ref());
        let ts = time(point.ts.as_ref());
        match self.format {
            Format::Csv => self
                .csv
                .write_record([&point.device, &ts, &point.metric, kind, &text])
                .map_err(|error| broken(&error)),
            Format::Table => line(&row(&point.device, &ts, &point.metric, &text)),
            Format::Json if self.live => line(&as_json(point).to_string()),
            Format::Json => {
                let separator = if std::mem::replace(&mut self.first, false) { "[" } else { "," };
                line(&format!("{separator}{}", as_json(point)))
            }
            Format::Yaml => yaml(&Json::Array(vec![as_json(point)])),
        }
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        self.csv.flush().map_err(|error| broken(&error))?;
        io::stdout().flush().map_err(|error| broken(&error))
    }

    pub(crate) fn end(mut self) -> Result<()> {
        if self.format == Format::Json && !self.live {
            line(if self.first { "[]" } else { "]" })?;
        }
        self.flush()
    }
}

fn row(device: &str, ts: &str, metric: &str, value: &str) -> String {
    format!("{device:<20}  {ts:<27}  {metric:<20}  {value}")
}

fn as_json(point: &pb::Point) -> Json {
    json!({
        "device": point.device,
        "ts": json_time(point.ts.as_ref()),
        "metric": point.metric,
        "type": text(point.value.as_ref()).0,
        "value": json_value(point.value.as_ref()),
        "receive_time": json_time(point.receive_time.as_ref()),
        "position": point.position,
    })
}

/// A value's type, and the value so that it can be read back without loss.
fn text(value: Option<&Value>) -> (&'static str, String) {
    match value.and_then(|value| value.kind.as_ref()) {
        Some(Kind::DoubleValue(value)) => ("double", format!("{value:?}")), // the shortest that reads back the same
        Some(Kind::Int64Value(value)) => ("int64", value.to_string()),
        Some(Kind::BoolValue(value)) => ("bool", value.to_string()),
        Some(Kind::StringValue(value)) => ("string", value.clone()),
        Some(Kind::BytesValue(value)) => ("bytes", STANDARD.encode(value)),
        None => ("", String::new()),
    }
}

fn json_value(value: Option<&Value>) -> Json {
    match value.and_then(|value| value.kind.as_ref()) {
        Some(Kind::DoubleValue(value)) => json!(value),
        Some(Kind::Int64Value(value)) => json!(value),
        Some(Kind::BoolValue(value)) => json!(value),
        Some(Kind::StringValue(value)) => json!(value),
        Some(Kind::BytesValue(value)) => json!(STANDARD.encode(value)),
        None => Json::Null,
    }
}

/// Aggregates: at most 100,000 steps, so they are kept and printed at the end.
pub(crate) struct Aggregates {
    format: Format,
    names: Vec<String>,
    rows: Vec<pb::AggregateRow>,
}

impl Aggregates {
    pub(crate) fn new(format: Format, names: Vec<String>) -> Self {
        Self { format, names, rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, rows: Vec<pb::AggregateRow>) {
        self.rows.extend(rows);
    }

    pub(crate) fn end(self) -> Result<()> {
        let mut columns = vec!["device", "metric", "start"];
        columns.extend(self.names.iter().map(String::as_str));
        let cells = self.rows.iter().map(|found| {
            let mut cells = vec![found.device.clone(), found.metric.clone(), time(found.start_time.as_ref())];
            cells.extend(found.values.iter().map(|value| text(Some(value)).1));
            cells.extend(found.percentiles.iter().map(|value| format!("{value:?}")));
            cells.resize(columns.len(), String::new());
            cells
        });
        match self.format {
            Format::Csv => csv(&columns, cells),
            Format::Table => crate::output::table(&columns, cells),
            Format::Json => json(&self.json()),
            Format::Yaml => yaml(&self.json()),
        }
    }

    fn json(&self) -> Json {
        let rows = self.rows.iter().map(|found| {
            let mut object = serde_json::Map::new();
            object.insert("device".to_owned(), json!(found.device));
            object.insert("metric".to_owned(), json!(found.metric));
            object.insert("start".to_owned(), json_time(found.start_time.as_ref()));
            object.insert("end".to_owned(), json_time(found.end_time.as_ref()));
            let values = found.values.iter().map(|value| json_value(Some(value)));
            let values = values.chain(found.percentiles.iter().map(|value| json!(value)));
            object.extend(self.names.iter().cloned().zip(values));
            Json::Object(object)
        });
        Json::Array(rows.collect())
    }
}
