//! `weir replay`, `weir simulate`, `weir bench`: load as devices make it, with progress and a result.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;
use weir_core::{Error, ErrorKind, Result};
use weir_drive::{Place, bench, replay, simulate, source};

use crate::{
    context::Caller,
    convert::{parse_pair, parse_span},
    output, when,
};

/// The protocol that devices speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// MQTT 5, QoS 1
    Mqtt,
    /// HTTP
    Http,
    /// A gRPC stream
    Grpc,
}

impl From<Via> for weir_drive::Via {
    fn from(via: Via) -> Self {
        match via {
            Via::Mqtt => Self::Mqtt,
            Via::Http => Self::Http,
            Via::Grpc => Self::Grpc,
        }
    }
}

/// Where devices connect.
#[derive(Debug, Args)]
pub(crate) struct Edge {
    /// Over which protocol
    #[arg(long, value_enum, default_value_t = Via::Mqtt)]
    via: Via,
    /// Address of the MQTT listener; else the context's
    #[arg(long, value_name = "HOST:PORT")]
    mqtt_addr: Option<String>,
    /// Address of the HTTP device API; else the context's
    #[arg(long, value_name = "HOST:PORT")]
    http_addr: Option<String>,
}

impl Edge {
    fn place(&self, caller: &Caller) -> Result<Place> {
        Ok(Place {
            connection: caller.connection.clone(),
            tenant: caller.tenant()?,
            mqtt: if self.via == Via::Mqtt { Some(caller.mqtt(self.mqtt_addr.as_deref())?) } else { None },
            http: if self.via == Via::Http { Some(caller.http(self.http_addr.as_deref())?) } else { None },
        })
    }
}

/// `weir replay`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  weir replay room.csv --device room-1 --create
  weir replay train.txt --columns unit,cycle,a,b,c --device-column unit --time-column cycle \\
    --start 2024-01-01 --interval 1h --create --speed 3600")]
pub struct Replay {
    /// A comma- or space-separated file, with or without a header
    file: PathBuf,
    /// The device of every row
    #[arg(long, required_unless_present = "device_column", conflicts_with = "device_column")]
    device: Option<String>,
    /// The column whose text is the device's id
    #[arg(long, value_name = "COLUMN")]
    device_column: Option<String>,
    /// The column with the time, or with a counter where --start and --interval are given
    #[arg(long, value_name = "COLUMN")]
    time_column: Option<String>,
    /// Names of the columns of a file without a header
    #[arg(long, value_delimiter = ',', value_name = "A,B,…")]
    columns: Vec<String>,
    /// The columns to send; all others if not given
    #[arg(long, value_delimiter = ',', value_name = "A,B,…")]
    metrics: Vec<String>,
    /// The time of each device's first row; rows then follow by --interval
    #[arg(long, value_name = "TIME", requires = "interval")]
    start: Option<String>,
    /// The time from one row, or one count, to the next: 60s, 5m, 1h
    #[arg(long, value_name = "SPAN", requires = "start", value_parser = parse_span)]
    interval: Option<Duration>,
    /// Create devices that do not exist
    #[arg(long)]
    create: bool,
    /// Label of those that are created; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_pair)]
    labels: Vec<(String, String)>,
    /// How many times faster than life; max for as fast as it goes
    #[arg(long, default_value = "max", value_name = "60|max", value_parser = parse_speed)]
    speed: replay::Speed,
    /// How long to go on trying while nobody answers
    #[arg(long, default_value = "60s", value_name = "SPAN", value_parser = parse_span)]
    retry_for: Duration,
    #[command(flatten)]
    edge: Edge,
}

fn parse_speed(text: &str) -> Result<replay::Speed, String> {
    match text.trim_end_matches('x').parse::<f64>() {
        _ if text == "max" => Ok(replay::Speed::Max),
        Ok(times) if times.is_finite() && times > 0.0 => Ok(replay::Speed::Times(times)),
        _ => Err(format!("{text:?} must be a number above 0, such as 60, or max")),
    }
}

pub(crate) async fn replay(args: Replay, caller: &Caller) -> Result<()> {
    let start = args.start.as_ref().map(|text| when::parse("--start", text)).transpose()?;
    let options = source::Options {
        device: args.device,
        device_column: args.device_column,
        time_column: args.time_column,
        columns: args.columns,
        metrics: args.metrics,
        start: start.map(|start| weir_grpc::convert::to_timestamp("start", &start)).transpose()?,
        interval: args.interval,
    };
    let source = source::Source::open(&args.file, options)?;
    let place = args.edge.place(caller)?;
    let options = replay::Options {
        via: args.edge.via.into(),
        speed: args.speed,
        create: args.create,
        labels: args.labels.into_iter().collect::<HashMap<_, _>>(),
        patience: args.retry_for,
    };
    let progress = Arc::new(replay::Progress::default());
    let bar = bar("{spinner} {msg}  {elapsed}");
    let shown = show(bar.clone(), {
        let progress = Arc::clone(&progress);
        move || {
            let (read, acknowledged) = (progress.read(), progress.tally.acknowledged_count());
            format!("{} rows read, {} acknowledged", HumanCount(read), HumanCount(acknowledged))
        }
    });
    let result = replay::run(&place, source, &options, &progress, interrupted()).await;
    shown.abort();
    bar.finish_and_clear();
    if let Err(error) = &result {
        output::note(&format!("stopped: {}", error.message()));
    }
    summary(&progress)?;
    result
}

/// Ends with what became of everything; an error where a reading was lost or refused.
fn summary(progress: &replay::Progress) -> Result<()> {
    let tally = &progress.tally;
    let refusals = tally.refusals();
    let refused: u64 = refusals.values().sum();
    output::line(&format!("rows read     {}", progress.read()))?;
    output::line(&format!("sent          {}", tally.sent_count()))?;
    output::line(&format!("acknowledged  {}", tally.acknowledged_count()))?;
    output::line(&format!("refused       {refused}"))?;
    for (reason, count) in &refusals {
        output::line(&format!("  {count} × {reason}"))?;
    }
    if tally.lost_count() > 0 {
        output::line(&format!("lost          {}", tally.lost_count()))?;
        let message = format!("{} readings were not acknowledged", tally.lost_count());
        return Err(Error::new(ErrorKind::Unavailable, "READINGS_LOST", message));
    }
    if refused > 0 {
        let message = format!("{refused} rows were refused");
        return Err(Error::new(ErrorKind::InvalidArgument, "ROWS_REFUSED", message));
    }
    Ok(())
}

/// `weir simulate`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weir simulate --devices 100 --rate 1 --duration 1m\n  weir command invoke sim-1 blink  # while it runs"
)]
pub struct Simulate {
    /// How many devices
    #[arg(long, default_value_t = 10, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    devices: u32,
    /// Readings a second of each device
    #[arg(long, default_value_t = 1.0, value_name = "NUMBER")]
    rate: f64,
    /// Devices are called PREFIX-1, PREFIX-2, … and labelled type=PREFIX
    #[arg(long, default_value = "sim")]
    prefix: String,
    /// How long to run; until Ctrl-C if not given
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    duration: Option<Duration>,
    /// Address of the MQTT listener; else the context's
    #[arg(long, value_name = "HOST:PORT")]
    mqtt_addr: Option<String>,
}

pub(crate) async fn simulate(args: Simulate, caller: &Caller) -> Result<()> {
    let edge = Edge { via: Via::Mqtt, mqtt_addr: args.mqtt_addr, http_addr: None };
    let place = edge.place(caller)?;
    let options = simulate::Options { devices: args.devices as usize, rate: args.rate, prefix: args.prefix };
    let progress = Arc::new(simulate::Progress::default());
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let duration = args.duration;
    let watch = tokio::spawn(async move {
        tokio::select! {
            () = interrupted() => {}
            () = async { match duration { Some(span) => tokio::time::sleep(span).await, None => std::future::pending().await } } => {}
        }
        stopping.cancel();
    });
    let bar = bar("{spinner} {msg}  {elapsed}");
    let shown = show(bar.clone(), {
        let progress = Arc::clone(&progress);
        move || {
            format!(
                "{} connected, {} readings acknowledged, {} commands answered",
                progress.connected(),
                HumanCount(progress.tally.acknowledged_count()),
                progress.answered()
            )
        }
    });
    let result = simulate::run(&place, &options, Arc::clone(&progress), stop).await;
    watch.abort();
    shown.abort();
    bar.finish_and_clear();
    output::line(&format!("sent          {}", progress.tally.sent_count()))?;
    output::line(&format!("acknowledged  {}", progress.tally.acknowledged_count()))?;
    output::line(&format!("answered      {}", progress.answered()))?;
    for (reason, count) in progress.tally.refusals() {
        output::line(&format!("refused       {count} × {reason}"))?;
    }
    result
}

/// `weir bench`
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Acknowledged readings a second, time to the durable answer, CPU, and everything read back
    #[command(
        after_help = "Examples:\n  weir bench ingest --via mqtt --connections 100 --readings 500000\n  weir bench ingest --via grpc --batch 100"
    )]
    Ingest(Ingest),
}

/// `weir bench ingest`
#[derive(Debug, Args)]
pub struct Ingest {
    /// Devices, each with a connection of its own
    #[arg(long, default_value_t = 100, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Readings in the throughput phase
    #[arg(long, default_value_t = 200_000, value_name = "COUNT")]
    readings: usize,
    /// Readings in one message; 1 over MQTT and HTTP, 100 over gRPC if not given
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    batch: Option<u32>,
    /// Metrics in one reading
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=256))]
    metrics: u32,
    /// Readings a second in the latency phase; half of the measured throughput if not given
    #[arg(long, value_name = "NUMBER")]
    rate: Option<f64>,
    /// How long the latency phase lasts
    #[arg(long, default_value = "5s", value_name = "SPAN", value_parser = parse_span)]
    latency_phase: Duration,
    /// Address of the admin listener, for the server's CPU time; else the context's
    #[arg(long, value_name = "HOST:PORT")]
    admin_addr: Option<String>,
    #[command(flatten)]
    edge: Edge,
}

pub(crate) async fn bench(command: Bench, caller: &Caller) -> Result<()> {
    let Bench::Ingest(args) = command;
    let place = args.edge.place(caller)?;
    let batch = args.batch.unwrap_or(if args.edge.via == Via::Grpc { 100 } else { 1 });
    let options = bench::Options {
        via: args.edge.via.into(),
        connections: args.connections as usize,
        readings: args.readings,
        batch: batch as usize,
        metrics: args.metrics as usize,
        rate: args.rate,
        latency_phase: args.latency_phase,
        admin: args.admin_addr.or_else(|| caller.context.admin.clone()),
    };
    let bar = bar("{spinner} measuring  {elapsed}");
    bar.enable_steady_tick(Duration::from_millis(100));
    let report = bench::ingest(&place, &options).await;
    bar.finish_and_clear();
    let report = report?;
    let rate = report.acknowledged as f64 / report.elapsed.as_secs_f64();
    let [p50, p99, p999] = report.latency.map(|time| format!("{:.2} ms", time.as_secs_f64() * 1e3));
    output::line(&format!(
        "via                      {:?}, {} connections, {batch} readings a message",
        args.edge.via, args.connections
    ))?;
    output::line(&format!(
        "acknowledged readings/s  {rate:.0}  ({} in {:.2} s)",
        report.acknowledged,
        report.elapsed.as_secs_f64()
    ))?;
    output::line(&format!(
        "ack p50 / p99 / p99.9    {p50} / {p99} / {p999}  (open loop at {:.0} readings/s)",
        report.offered
    ))?;
    match report.cpu_s_per_million {
        Some(seconds) => output::line(&format!("server CPU-s / million   {seconds:.1}"))?,
        None => output::line("server CPU-s / million   unknown: give --admin-addr")?,
    }
    output::line(&format!(
        "read back                {} of {}, {} unexpected",
        report.read_back, report.acknowledged_in_all, report.unexpected
    ))?;
    if report.read_back != report.acknowledged_in_all || report.unexpected > 0 {
        return Err(Error::data_loss("what was read back is not what was acknowledged"));
    }
    Ok(())
}

async fn interrupted() {
    drop(tokio::signal::ctrl_c().await); // without signals it runs until its end
}

fn bar(template: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn show(bar: ProgressBar, text: impl Fn() -> String + Send + 'static) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            bar.set_message(text());
            bar.tick();
        }
    })
}
