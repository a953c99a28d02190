//! Measures an installation from outside: acknowledged readings a second, the time to the durable answer, the server's
//! CPU, and that everything can be read back.
//!
//! Two phases. *Throughput* keeps every connection's window full. *Latency* is an open loop: messages leave by a schedule
//! at half of that rate whatever the answers do, and each answer's time counts from when its message was due, so that a
//! stall is felt by all that would have been sent in it (G. Tene, "How NOT to Measure Latency").

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use tokio::time::Instant;
use weir_core::{Clock as _, Error, Result, SystemClock, Timestamp, Value, name};
use weir_grpc::from_status;
use weir_proto::storage::v1::{DeviceFilter, QueryRequest};

use crate::{
    Edge, Place, Reading, Via,
    edge::{Pending, answer},
    provision,
};

/// Messages of one connection under way in the throughput phase.
const WINDOW: usize = 32;
/// The share of the measured throughput at which latency is measured: a loaded system, not a saturated one.
const LATENCY_LOAD: f64 = 0.5;
/// Devices whose data is read back at the same time.
const READERS: usize = 4;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Over what.
    pub via: Via,
    /// Devices, each with a connection of its own.
    pub connections: usize,
    /// Readings in the throughput phase.
    pub readings: usize,
    /// Readings in one message.
    pub batch: usize,
    /// Metrics in one reading.
    pub metrics: usize,
    /// Readings a second in the latency phase; half of the throughput if none.
    pub rate: Option<f64>,
    /// How long the latency phase lasts.
    pub latency_phase: Duration,
    /// Address of the admin listener, for the server's CPU time.
    pub admin: Option<String>,
}

/// What was measured.
#[derive(Debug, Clone)]
pub struct Report {
    /// Readings acknowledged in the throughput phase.
    pub acknowledged: usize,
    /// How long that took.
    pub elapsed: Duration,
    /// Readings a second at which latency was measured.
    pub offered: f64,
    /// Percentiles of the time to the durable answer: 50, 99, 99.9.
    pub latency: [Duration; 3],
    /// The server's CPU-seconds for a million readings, where its admin listener tells.
    pub cpu_s_per_million: Option<f64>,
    /// Readings acknowledged in all.
    pub acknowledged_in_all: usize,
    /// Of these, how many were read back.
    pub read_back: usize,
    /// Readings read back more than once, or never sent.
    pub unexpected: usize,
}

/// Runs the benchmark on devices of its own, which it deletes again.
///
/// # Errors
/// What the server refuses; a benchmark with refusals measures nothing.
pub async fn ingest(place: &Place, options: &Options) -> Result<Report> {
    let run = SystemClock.now().as_micros();
    let devices: Vec<String> = (0..options.connections.max(1)).map(|n| format!("bench-{run}-{n}")).collect();
    provision::create(place, &devices, &HashMap::from([("type".to_owned(), "bench".to_owned())])).await?;
    let measured = measure(place, options, &devices).await;
    stream::iter(&devices)
        .for_each_concurrent(16, |device| async {
            drop(provision::delete(place, device).await); // left behind, it is told apart by its label
        })
        .await;
    measured
}

async fn measure(place: &Place, options: &Options, devices: &[String]) -> Result<Report> {
    let edges: Vec<Result<Arc<Sender>>> =
        stream::iter(devices).map(|device| Sender::open(place, options, device)).buffered(32).collect().await;
    let edges = edges.into_iter().collect::<Result<Vec<_>>>()?;
    let cpu_before = cpu_seconds(options.admin.as_deref()).await;
    let begin = Instant::now();
    let share = options.readings.div_ceil(edges.len()).div_ceil(options.batch.max(1));
    let loads = edges.iter().map(|edge| tokio::spawn(saturate(Arc::clone(edge), share)));
    let sent = joined(loads.collect()).await?.into_iter().sum::<usize>();
    let elapsed = begin.elapsed();
    let cpu_after = cpu_seconds(options.admin.as_deref()).await;
    let offered = options.rate.unwrap_or(sent as f64 / elapsed.as_secs_f64() * LATENCY_LOAD);
    let (latency, later) = open_loop(&edges, options, offered, share).await?;
    let (read_back, unexpected) = read_back(place, &edges, sent + later).await?;
    Ok(Report {
        acknowledged: sent,
        elapsed,
        offered,
        latency,
        cpu_s_per_million: cpu_before
            .zip(cpu_after)
            .map(|(before, after)| (after - before) / sent as f64 * 1e6),
        acknowledged_in_all: sent + later,
        read_back,
        unexpected,
    })
}

struct Sender {
    device: String,
    edge: Edge,
    epoch: Timestamp,
    batch: usize,
    names: Vec<String>,
}

impl Sender {
    async fn open(place: &Place, options: &Options, device: &str) -> Result<Arc<Self>> {
        let token = match options.via {
            Via::Grpc => String::new(),
            Via::Mqtt | Via::Http => provision::token(place, device).await?.secret,
        };
        let edge = Edge::open(place, options.via, device, &token).await?;
        let epoch = SystemClock.now().saturating_sub(Duration::from_secs(86_400));
        let names = (0..options.metrics.max(1)).map(|n| format!("m{n}")).collect();
        Ok(Arc::new(Self { device: device.to_owned(), edge, epoch, batch: options.batch.max(1), names }))
    }

    /// The message with that number: readings a millisecond apart, no time twice.
    fn message(&self, number: usize) -> Vec<Reading> {
        let first = number * self.batch;
        let reading = |at: usize| Reading {
            ts: Some(Timestamp::from_micros(self.epoch.as_micros() / 1_000 * 1_000 + at as i64 * 1_000)),
            values: self.names.iter().map(|name| (name.clone(), Value::Double(at as f64 * 0.5))).collect(),
        };
        (first..first + self.batch).map(reading).collect()
    }
}

/// Keeps the window of one connection full; returns the readings that were acknowledged.
async fn saturate(sender: Arc<Sender>, messages: usize) -> Result<usize> {
    let mut under_way = std::collections::VecDeque::with_capacity(WINDOW);
    for number in 0..messages {
        if under_way.len() == WINDOW
            && let Some(mut oldest) = under_way.pop_front()
        {
            accepted(&mut oldest).await?;
        }
        under_way.push_back(sender.edge.send(&sender.message(number)).await?);
    }
    for mut pending in under_way {
        accepted(&mut pending).await?;
    }
    Ok(messages * sender.batch)
}

async fn accepted(pending: &mut Pending) -> Result<()> {
    match answer(pending).await?.into_iter().next() {
        None => Ok(()),
        Some((_, error)) => Err(error),
    }
}

/// Sends by a schedule; returns percentiles and the readings that were acknowledged.
async fn open_loop(
    edges: &[Arc<Sender>],
    options: &Options,
    rate: f64,
    first: usize,
) -> Result<([Duration; 3], usize)> {
    let messages_a_second = (rate / options.batch.max(1) as f64).max(1.0);
    let count = (messages_a_second * options.latency_phase.as_secs_f64()).ceil() as usize;
    let interval = Duration::from_secs_f64(1.0 / messages_a_second);
    let begin = Instant::now();
    let loads = edges.iter().enumerate().map(|(index, sender)| {
        let (sender, step) = (Arc::clone(sender), edges.len());
        tokio::spawn(async move {
            let mut answers = Vec::new();
            for (turn, number) in (index..count).step_by(step).enumerate() {
                let due = begin + interval.mul_f64(number as f64);
                tokio::time::sleep_until(due).await;
                let mut pending = sender.edge.send(&sender.message(first + turn)).await?;
                answers.push(tokio::spawn(async move {
                    accepted(&mut pending).await?;
                    Ok(due.elapsed())
                }));
            }
            joined(answers).await
        })
    });
    let mut times: Vec<Duration> = joined(loads.collect()).await?.into_iter().flatten().collect();
    times.sort_unstable();
    let percentile = |share: f64| {
        let index = ((times.len() as f64 * share).ceil() as usize).saturating_sub(1);
        times.get(index).copied().unwrap_or_default()
    };
    Ok(([percentile(0.5), percentile(0.99), percentile(0.999)], times.len() * options.batch.max(1)))
}

async fn joined<T>(tasks: Vec<tokio::task::JoinHandle<Result<T>>>) -> Result<Vec<T>> {
    let mut all = Vec::with_capacity(tasks.len());
    for task in tasks {
        all.push(task.await.map_err(|source| Error::internal("a sender panicked").with_source(source))??);
    }
    Ok(all)
}

/// Reads everything back; returns how many readings were found once, and how many were not expected. Waits until what was
/// acknowledged can be queried.
async fn read_back(place: &Place, edges: &[Arc<Sender>], expected: usize) -> Result<(usize, usize)> {
    let until = Instant::now() + Duration::from_secs(120); // storage may be behind a saturated log
    loop {
        let counts: Vec<Result<(usize, usize)>> = stream::iter(edges)
            .map(|sender| read_device(place, sender))
            .buffer_unordered(READERS)
            .collect()
            .await;
        let counts = counts.into_iter().collect::<Result<Vec<_>>>()?;
        let found = counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        if found.0 >= expected || Instant::now() > until {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn read_device(place: &Place, sender: &Sender) -> Result<(usize, usize)> {
    let request = QueryRequest {
        parent: name::tenant(&place.tenant),
        filter: Some(DeviceFilter { devices: vec![sender.device.clone()], label_selector: String::new() }),
        metrics: vec!["m0".to_owned()],
        ..Default::default()
    };
    let mut answers = place.connection.telemetry().query(request).await.map_err(from_status)?.into_inner();
    let (mut seen, mut unexpected) = (HashSet::new(), 0);
    while let Some(answer) = answers.message().await.map_err(from_status)? {
        for point in answer.points {
            let ts = point.ts.map_or(0, |ts| ts.seconds * 1_000 + i64::from(ts.nanos) / 1_000_000);
            unexpected += usize::from(!seen.insert(ts));
        }
    }
    Ok((seen.len(), unexpected))
}

/// The server's CPU time so far, by its own metrics.
async fn cpu_seconds(admin: Option<&str>) -> Option<f64> {
    let text = reqwest::get(format!("http://{}/metrics", admin?)).await.ok()?.text().await.ok()?;
    let line = text.lines().find(|line| line.starts_with("weir_process_cpu_seconds_total"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
