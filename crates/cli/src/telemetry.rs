//! `weir telemetry …`

use std::io;

use weir_core::Result;
use weir_grpc::{convert::from_duration, from_status, status::from_item};
use weir_proto::{
    common::v1::{Reading, Value, value::Kind},
    ingest::v1::PublishRequest,
    storage::v1 as pb,
};

use crate::{
    context::Caller,
    output, page,
    telemetry_args::{Command, Function, Of},
    telemetry_view::{Aggregates, Points},
    when,
};

pub(crate) async fn run(command: Command, caller: &Caller) -> Result<()> {
    match command {
        Command::Query { of, range, limit, descending } => {
            let request = pb::QueryRequest {
                parent: caller.parent()?,
                filter: Some(filter(&of)),
                metrics: of.metric,
                start_time: when::parse_opt("--from", range.from.as_ref())?,
                end_time: when::parse_opt("--to", range.to.as_ref())?,
                order: if descending { pb::Order::Descending } else { pb::Order::Ascending }.into(),
                limit: limit.map_or(0, i64::from),
                ..Default::default()
            };
            query(caller, request).await
        }
        Command::Aggregate { of, range, step, functions, percentiles, time_zone } => {
            let names = functions.iter().map(|function| format!("{function:?}").to_lowercase());
            let names = names.chain(percentiles.iter().map(|percentile| format!("p{percentile}"))).collect();
            let request = pb::AggregateRequest {
                parent: caller.parent()?,
                filter: Some(filter(&of)),
                metrics: of.metric,
                start_time: Some(when::parse("--from", range.from.as_deref().unwrap_or("2000-01-01"))?),
                end_time: Some(when::parse("--to", range.to.as_deref().unwrap_or("now"))?),
                step: step.map(from_duration),
                functions: functions
                    .into_iter()
                    .map(|function| pb::Function::from(function).into())
                    .collect(),
                percentiles,
                time_zone,
                min_positions: Vec::new(),
            };
            aggregate(caller, request, names).await
        }
        Command::Latest { of } => latest(caller, of).await,
        Command::Tail { of } => {
            let request = pb::TailRequest {
                parent: caller.parent()?,
                filter: Some(filter(&of)),
                metrics: of.metric,
                resume_cursor: String::new(),
            };
            let mut answers =
                caller.connection.telemetry().tail(request).await.map_err(from_status)?.into_inner();
            let mut points = Points::live(caller.format, stdout())?;
            while let Some(answer) = answers.message().await.map_err(from_status)? {
                points.push(&answer.points)?;
            }
            points.end()
        }
        Command::Publish { device, values, ts } => publish(caller, &device, values, ts.as_ref()).await,
    }
}

/// Written in large pieces; a batch of points is flushed at its end.
fn stdout() -> io::BufWriter<io::Stdout> {
    io::BufWriter::new(io::stdout())
}

fn filter(of: &Of) -> pb::DeviceFilter {
    pb::DeviceFilter { devices: of.device.clone(), label_selector: of.selector.clone() }
}

async fn query(caller: &Caller, request: pb::QueryRequest) -> Result<()> {
    let mut answers = caller.connection.telemetry().query(request).await.map_err(from_status)?.into_inner();
    let mut points = Points::new(caller.format, stdout())?;
    let mut stats = None;
    while let Some(answer) = answers.message().await.map_err(from_status)? {
        points.push(&answer.points)?;
        stats = answer.stats.or(stats);
    }
    points.end()?;
    if let (output::Format::Table, Some(stats)) = (caller.format, stats) {
        output::note(&format!(
            "{} points from {} rows, {} bytes",
            stats.points, stats.rows_read, stats.bytes_read
        ));
    }
    Ok(())
}

async fn aggregate(caller: &Caller, request: pb::AggregateRequest, names: Vec<String>) -> Result<()> {
    let mut answers =
        caller.connection.telemetry().aggregate(request).await.map_err(from_status)?.into_inner();
    let mut aggregates = Aggregates::new(caller.format, names);
    while let Some(answer) = answers.message().await.map_err(from_status)? {
        aggregates.push(answer.rows);
    }
    aggregates.end()
}

async fn latest(caller: &Caller, of: Of) -> Result<()> {
    let mut stub = caller.connection.telemetry();
    let filter = filter(&of);
    let found = page::all(async |page_token| {
        let request = pb::LatestRequest {
            parent: caller.parent()?,
            filter: Some(filter.clone()),
            metrics: of.metric.clone(),
            page_size: page::SIZE,
            page_token,
            min_positions: Vec::new(),
        };
        let page = stub.latest(request).await.map_err(from_status)?.into_inner();
        Ok((page.points, page.next_page_token))
    })
    .await?;
    let mut points = Points::new(caller.format, stdout())?;
    points.push(&found)?;
    points.end()
}

async fn publish(
    caller: &Caller,
    device: &str,
    values: Vec<(String, String)>,
    ts: Option<&String>,
) -> Result<()> {
    let values =
        values.into_iter().map(|(metric, text)| (metric, Value { kind: Some(kind(text)) })).collect();
    let reading = Reading { ts: when::parse_opt("--ts", ts)?, values };
    let request = PublishRequest {
        device: caller.device(device)?,
        readings: vec![reading],
        traceparent: String::new(),
    };
    let answer = caller.connection.ingest().publish(request).await.map_err(from_status)?.into_inner();
    answer.statuses.iter().try_for_each(from_item)?;
    output::line(&answer.position)
}

fn kind(text: String) -> Kind {
    match text.as_str() {
        "true" => Kind::BoolValue(true),
        "false" => Kind::BoolValue(false),
        number => number.parse().map_or_else(|_| Kind::StringValue(text.clone()), Kind::DoubleValue),
    }
}

impl From<Function> for pb::Function {
    fn from(function: Function) -> Self {
        match function {
            Function::Count => Self::Count,
            Function::Min => Self::Min,
            Function::Max => Self::Max,
            Function::Avg => Self::Avg,
            Function::Sum => Self::Sum,
            Function::First => Self::First,
            Function::Last => Self::Last,
            Function::Stddev => Self::Stddev,
            Function::Rate => Self::Rate,
        }
    }
}
