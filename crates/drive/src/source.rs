//! Files of measurements: rows of any comma- or space-separated text, with or without a header, as readings of devices.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
    time::Duration,
};

use weir_core::{Error, Result, Timestamp, Value};

/// A line longer than this is not a row of measurements but another kind of file.
const LINE_MAX: usize = 1 << 20;

/// How to read a file.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The device of every row; else `device_column`.
    pub device: Option<String>,
    /// The column whose text is the device's id.
    pub device_column: Option<String>,
    /// The column with the time, or with a counter where `start` and `interval` are given.
    pub time_column: Option<String>,
    /// Names of the columns, in order, for a file without a header.
    pub columns: Vec<String>,
    /// The columns to send; all others if empty.
    pub metrics: Vec<String>,
    /// The time of each device's first row.
    pub start: Option<Timestamp>,
    /// The time from one count to the next.
    pub interval: Option<Duration>,
}

/// One row: a reading of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The device's id.
    pub device: String,
    /// Event time.
    pub ts: Timestamp,
    /// Value by metric; empty cells are left out.
    pub values: Vec<(String, Value)>,
}

/// Rows of a file, one by one.
pub struct Source {
    lines: BufReader<Box<dyn Read + Send>>,
    line_number: u64,
    held: Option<Vec<String>>,
    columns: Columns,
    options: Options,
    counters: HashMap<String, Counter>,
}

#[derive(Debug, Default)]
struct Counter {
    first: Option<f64>,
    rows: u64,
}

#[derive(Debug, Clone)]
struct Columns {
    names: Vec<String>,
    device: Option<usize>,
    time: Option<usize>,
    metrics: Vec<usize>,
    /// Rows have one cell more than the header has names: the first is a row number.
    row_number: bool,
}

impl Source {
    /// Opens a file and finds out its shape from its first lines.
    ///
    /// # Errors
    /// `SOURCE_INVALID` for a file that cannot be read, has no rows, or lacks a named column.
    pub fn open(path: &Path, options: Options) -> Result<Self> {
        let file =
            File::open(path).map_err(|error| invalid(format!("cannot read {}: {error}", path.display())))?;
        Self::new(Box::new(file), options)
    }

    /// The same over bytes that are there already.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn new(bytes: Box<dyn Read + Send>, options: Options) -> Result<Self> {
        let mut source = Self {
            lines: BufReader::new(bytes),
            line_number: 0,
            held: None,
            columns: Columns { names: vec![], device: None, time: None, metrics: vec![], row_number: false },
            options,
            counters: HashMap::new(),
        };
        let first = source.cells()?.ok_or_else(|| invalid("the file has no rows"))?;
        let header = is_header(&first);
        let row = if header {
            source.cells()?.ok_or_else(|| invalid("the file has a header and no rows"))?
        } else {
            first.clone()
        };
        let names = match (source.options.columns.is_empty(), header) {
            (false, _) => source.options.columns.clone(),
            (true, true) => first,
            (true, false) => (1..=row.len()).map(|number| format!("c{number}")).collect(),
        };
        source.columns = Columns::find(names, &row, &source.options)?;
        source.held = Some(row);
        Ok(source)
    }

    /// The next row; none at the end.
    ///
    /// # Errors
    /// `ROW_INVALID` that names the line and what is wrong with it; the next call goes on after it.
    pub fn next_row(&mut self) -> Result<Option<Row>> {
        let Some(cells) = (match self.held.take() {
            Some(cells) => Some(cells),
            None => self.cells()?,
        }) else {
            return Ok(None);
        };
        self.row(cells).map(Some).map_err(|error| error.context(format!("line {}", self.line_number)))
    }

    fn row(&mut self, mut cells: Vec<String>) -> Result<Row> {
        let expected = self.columns.names.len() + usize::from(self.columns.row_number);
        if cells.len() != expected {
            return Err(bad_row(format!("it has {} cells, not {expected}", cells.len())));
        }
        if self.columns.row_number {
            cells.remove(0);
        }
        let cell = |at: usize| cells.get(at).map(String::as_str).unwrap_or_default();
        let device = match (self.columns.device, &self.options.device) {
            (Some(at), _) => cell(at).to_owned(),
            (None, Some(device)) => device.clone(),
            (None, None) => return Err(bad_row("it has no device")),
        };
        let time = self.columns.time.map(cell);
        let ts = self.time(&device, time)?;
        let values = self
            .columns
            .metrics
            .iter()
            .filter_map(|at| Some((self.columns.names.get(*at)?.clone(), value(cells.get(*at)?)?)))
            .collect::<Vec<_>>();
        if values.is_empty() {
            return Err(bad_row("it has no values"));
        }
        Ok(Row { device, ts, values })
    }

    fn time(&mut self, device: &str, cell: Option<&str>) -> Result<Timestamp> {
        let (Some(start), Some(interval)) = (self.options.start, self.options.interval) else {
            let cell =
                cell.ok_or_else(|| bad_row("it has no time; give --time-column, or --start and --interval"))?;
            return parse_time(cell).ok_or_else(|| bad_row(format!("{cell:?} is not a time")));
        };
        let counter = self.counters.entry(device.to_owned()).or_default();
        let steps = match cell {
            Some(cell) => {
                let count: f64 = cell.parse().map_err(|_| bad_row(format!("{cell:?} is not a count")))?;
                count - *counter.first.get_or_insert(count)
            }
            None => counter.rows as f64,
        };
        counter.rows += 1;
        let micros = (steps * interval.as_micros() as f64).round();
        Ok(Timestamp::from_micros(start.as_micros().saturating_add(micros as i64)))
    }

    /// The cells of the next line that is not empty.
    fn cells(&mut self) -> Result<Option<Vec<String>>> {
        loop {
            let mut line = Vec::new();
            let read = (&mut self.lines).take(LINE_MAX as u64).read_until(b'\n', &mut line);
            let read =
                read.map_err(|error| invalid(format!("cannot read line {}: {error}", self.line_number + 1)))?;
            if read == 0 {
                return Ok(None);
            }
            self.line_number += 1;
            if line.len() == LINE_MAX {
                return Err(invalid(format!("line {} is longer than {LINE_MAX} bytes", self.line_number)));
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_start_matches('\u{feff}').trim();
            if !line.is_empty() {
                return split(line)
                    .map(Some)
                    .ok_or_else(|| invalid(format!("line {} has an open quote", self.line_number)));
            }
        }
    }
}

impl Columns {
    fn find(names: Vec<String>, row: &[String], options: &Options) -> Result<Self> {
        let row_number = row.len() == names.len() + 1;
        if row.len() != names.len() && !row_number {
            return Err(invalid(format!(
                "the first row has {} cells for {} columns",
                row.len(),
                names.len()
            )));
        }
        let at = |name: &str| {
            names.iter().position(|known| known == name).ok_or_else(|| {
                invalid(format!("there is no column {name:?}; there are {}", names.join(", ")))
            })
        };
        let device = options.device_column.as_deref().map(at).transpose()?;
        let first =
            |index: usize| row.get(index + usize::from(row_number)).map(String::as_str).unwrap_or_default();
        let guessed = || {
            let usual = ["time", "timestamp", "ts", "date", "datetime"];
            names
                .iter()
                .position(|name| usual.contains(&name.to_lowercase().as_str()))
                .or_else(|| (0..names.len()).find(|index| is_date(first(*index))))
        };
        let time = match &options.time_column {
            Some(name) => Some(at(name)?),
            None if options.start.is_some() => None,
            None => guessed(),
        };
        let metrics = if options.metrics.is_empty() {
            (0..names.len()).filter(|index| Some(*index) != device && Some(*index) != time).collect()
        } else {
            options.metrics.iter().map(|name| at(name)).collect::<Result<Vec<_>>>()?
        };
        if metrics.is_empty() {
            return Err(invalid("no column is left to send"));
        }
        Ok(Self { names, device, time, metrics, row_number })
    }
}

/// Cells of one line: by commas with quotes (RFC 4180) where it has any, else by white space.
fn split(line: &str) -> Option<Vec<String>> {
    if !line.contains(',') {
        return Some(line.split_whitespace().map(|cell| cell.trim_matches('"').to_owned()).collect());
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(line.as_bytes());
    let record = reader.records().next()?.ok()?;
    Some(record.iter().map(|cell| cell.trim().to_owned()).collect())
}

fn is_header(cells: &[String]) -> bool {
    cells.iter().all(|cell| !cell.is_empty() && cell.parse::<f64>().is_err() && parse_time(cell).is_none())
}

fn value(cell: &str) -> Option<Value> {
    match cell {
        "" => None,
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        text => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Some(Value::Double(number)),
            Ok(_) => None, // NaN and infinities are no measurements
            Err(_) => Some(Value::String(text.to_owned())),
        },
    }
}

fn is_date(cell: &str) -> bool {
    cell.parse::<f64>().is_err() && parse_time(cell).is_some()
}

/// RFC 3339, naive `YYYY-MM-DD[ T]HH:MM[:SS[.f]]` or `YYYY-MM-DD` as UTC, epoch seconds or milliseconds.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(number) = text.parse::<f64>() {
        // Seconds until the year 5138, else milliseconds: each is read as what it can only be.
        let micros = if number.abs() < 1e11 { number * 1e6 } else { number * 1e3 };
        return number.is_finite().then(|| Timestamp::from_micros(micros.round() as i64));
    }
    if let Ok(ts) = Timestamp::parse_rfc3339(text) {
        return Some(ts);
    }
    let naive = text.replacen(' ', "T", 1);
    let full = match naive.len() {
        10 => format!("{naive}T00:00:00Z"),
        16 => format!("{naive}:00Z"),
        _ => format!("{naive}Z"),
    };
    Timestamp::parse_rfc3339(&full).ok()
}

fn invalid(message: impl Into<String>) -> Error {
    Error::invalid("file", "SOURCE_INVALID", message)
}

fn bad_row(message: impl Into<String>) -> Error {
    Error::invalid("row", "ROW_INVALID", message)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn rows(text: &'static str, options: Options) -> Vec<Row> {
        let mut source = Source::new(Box::new(Cursor::new(text)), options).unwrap();
        std::iter::from_fn(|| source.next_row().unwrap()).collect()
    }

    fn device() -> Options {
        Options { device: Some("d".to_owned()), ..Options::default() }
    }

    #[test]
    fn a_row_number_that_the_header_does_not_name_is_dropped() {
        let found = rows(
            "\"date\",\"Temperature\",\"CO2\"\n\"1\",\"2015-02-04 17:51:00\",23.18,721.25\n\"2\",\"2015-02-04 17:51:59\",23.15,\n",
            device(),
        );
        let expected = Timestamp::parse_rfc3339("2015-02-04T17:51:00Z").unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].ts, expected);
        let values =
            vec![("Temperature".to_owned(), Value::Double(23.18)), ("CO2".to_owned(), Value::Double(721.25))];
        assert_eq!(found[0].values, values);
        assert_eq!(found[1].values.len(), 1);
    }

    #[test]
    fn a_cycle_counter_becomes_time() {
        let options = Options {
            device_column: Some("unit".to_owned()),
            time_column: Some("cycle".to_owned()),
            columns: ["unit", "cycle", "s1", "s2"].map(str::to_owned).to_vec(),
            metrics: vec!["s2".to_owned()],
            start: Some(Timestamp::from_micros(1_000_000_000_000_000)),
            interval: Some(Duration::from_secs(60)),
            ..Options::default()
        };
        let found = rows("1 1 0.5 100.0  \n1 2 0.5 101.0  \n2 1 0.5 102.0  \n", options);
        assert_eq!(found[1].ts.as_micros() - found[0].ts.as_micros(), 60_000_000);
        assert_eq!(found[2].ts, found[0].ts);
        assert_eq!((found[2].device.as_str(), found[2].values[0].0.as_str()), ("2", "s2"));
    }

    #[test]
    fn a_wrong_row_is_named_and_the_next_one_read() {
        let mut source =
            Source::new(Box::new(Cursor::new("ts,v\n1,2\nx,3\n1,2,3\n4,5\n")), device()).unwrap();
        assert!(source.next_row().unwrap().is_some());
        assert!(source.next_row().unwrap_err().message().contains("line 3"));
        assert!(source.next_row().unwrap_err().message().contains("3 cells"));
        assert!(source.next_row().unwrap().is_some());
        assert!(source.next_row().unwrap().is_none());
    }

    #[test]
    fn a_missing_column_is_named_with_those_there_are() {
        let options = Options { time_column: Some("when".to_owned()), ..device() };
        let error = Source::new(Box::new(Cursor::new("ts,v\n1,2\n")), options).err().unwrap();
        assert!(error.message().contains("ts, v"), "{error}");
    }
}
