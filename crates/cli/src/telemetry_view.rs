//! Points and aggregates as they are shown. Points are streamed: a year of them must not have to fit in memory.

use std::io::Write;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value as Json, json};
use weir_core::Result;
use weir_proto::{
    common::v1::{Value, value::Kind},
    storage::v1 as pb,
};

use crate::{
    convert::{json_time, time},
    output::{self, Format, broken, csv, visible, yaml},
};

/// One value a line: the contract of scripts.
const COLUMNS: [&str; 5] = ["device", "ts", "metric", "type", "value"];

/// Prints points as they come, a batch at a time.
pub(crate) struct Points<W> {
    format: Format,
    out: W,
    /// A list is one JSON document; a live stream is one object a line.
    live: bool,
    first: bool,
}

impl<W: Write> Points<W> {
    /// A list of points.
    pub(crate) fn new(format: Format, out: W) -> Result<Self> {
        let mut points = Self { format, out, live: false, first: true };
        match format {
            Format::Csv => csv(&mut points.out, &COLUMNS, std::iter::empty())?,
            Format::Table => points.line(&row("DEVICE", "TS", "METRIC", "VALUE"))?,
            Format::Json | Format::Yaml => {}
        }
        Ok(points)
    }

    /// A stream that does not end by itself.
    pub(crate) fn live(format: Format, out: W) -> Result<Self> {
        let mut points = Self { live: true, ..Self::new(format, out)? };
        points.flush()?;
        Ok(points)
    }

    pub(crate) fn push(&mut self, points: &[pb::Point]) -> Result<()> {
        if self.format == Format::Csv {
            let mut writer = csv::Writer::from_writer(&mut self.out);
            for point in points {
                let (kind, text) = text(point.value.as_ref());
                let ts = time(point.ts.as_ref());
                let row = [point.device.as_str(), &ts, &point.metric, kind, &text];
                writer.write_record(row).map_err(|error| broken(&error))?;
            }
            writer.flush().map_err(|error| broken(&error))?;
        } else {
            points.iter().try_for_each(|point| self.point(point))?;
        }
        self.flush()
    }

    fn point(&mut self, point: &pb::Point) -> Result<()> {
        let first = std::mem::replace(&mut self.first, false);
        match self.format {
            Format::Json if self.live => self.line(&as_json(point).to_string()),
            Format::Json => self.line(&format!("{}{}", if first { "[" } else { "," }, as_json(point))),
            Format::Yaml => yaml(&mut self.out, &Json::Array(vec![as_json(point)])),
            Format::Table | Format::Csv => {
                let value = text(point.value.as_ref()).1.replace('\n', "\\n"); // a point is a line
                let ts = time(point.ts.as_ref());
                self.line(&visible(&row(&point.device, &ts, &point.metric, &value)))
            }
        }
    }

    fn line(&mut self, text: &str) -> Result<()> {
        writeln!(self.out, "{text}").map_err(|error| broken(&error))
    }

    fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(|error| broken(&error))
    }

    pub(crate) fn end(mut self) -> Result<()> {
        match (self.format, self.first) {
            (Format::Json | Format::Yaml, true) if !self.live => self.line("[]")?,
            (Format::Json, false) if !self.live => self.line("]")?,
            _ => {}
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
        output::print(|out| match self.format {
            Format::Csv => csv(out, &columns, cells),
            Format::Table => output::table(out, &columns, cells),
            Format::Json => output::json(out, &self.json()),
            Format::Yaml => yaml(out, &self.json()),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn point(device: &str, value: Kind) -> pb::Point {
        pb::Point {
            device: device.to_owned(),
            metric: "temp".to_owned(),
            ts: Some(prost_types::Timestamp { seconds: 1_423_072_260, nanos: 0 }),
            value: Some(Value { kind: Some(value) }),
            ..Default::default()
        }
    }

    fn printed(format: Format, batches: &[Vec<pb::Point>]) -> String {
        let mut out = Vec::new();
        let mut points = Points::new(format, &mut out).unwrap();
        batches.iter().for_each(|batch| points.push(batch).unwrap());
        points.end().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn no_points_are_an_empty_list_in_every_format() {
        assert_eq!(printed(Format::Json, &[]), "[]\n");
        assert_eq!(printed(Format::Yaml, &[]), "[]\n");
        assert_eq!(printed(Format::Csv, &[]), "device,ts,metric,type,value\n");
    }

    #[test]
    fn batches_of_points_make_one_document() {
        let batches = [
            vec![point("a", Kind::DoubleValue(0.1))],
            vec![],
            vec![
                point("b", Kind::StringValue("x,\"y\"".to_owned())),
                point("b", Kind::BytesValue(vec![0, 255].into())),
            ],
        ];
        let json: Json = serde_json::from_str(&printed(Format::Json, &batches)).unwrap();
        let yaml: Json = serde_yaml_ng::from_str(&printed(Format::Yaml, &batches)).unwrap();
        assert_eq!(json, yaml);
        assert_eq!(json.as_array().map(Vec::len), Some(3));
        assert_eq!(
            printed(Format::Csv, &batches),
            "device,ts,metric,type,value\n\
             a,2015-02-04T17:51:00Z,temp,double,0.1\n\
             b,2015-02-04T17:51:00Z,temp,string,\"x,\"\"y\"\"\"\n\
             b,2015-02-04T17:51:00Z,temp,bytes,AP8=\n"
        );
    }

    #[test]
    fn a_row_for_people_keeps_long_ids_whole_and_stays_one_line() {
        let id = "a-device-with-a-name-of-more-than-20-characters";
        let shown = printed(Format::Table, &[vec![point(id, Kind::StringValue("a\n\u{1b}[2J".to_owned()))]]);
        let row = shown.lines().nth(1).unwrap();
        assert_eq!(row, format!("{id}  2015-02-04T17:51:00Z         temp                  a\\n\\u{{1b}}[2J"));
    }
}
