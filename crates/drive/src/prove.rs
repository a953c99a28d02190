//! The ledger against an installation of the user's own: load over every edge for some minutes, everything read back, and how
//! long a reading takes from its publish until it can be queried.
//!
//! No faults: whoever wants to see what a fault costs injects it themselves while this runs. Everything is done by devices made
//! for it, which are deleted again.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use weir_core::{Clock as _, Error, Result, SystemClock, Timestamp, Value, name};
use weir_grpc::{convert, from_status, status::from_item};
use weir_proto::{
    ingest::v1::PublishRequest,
    storage::v1::{DeviceFilter, QueryRequest},
};

use crate::{
    Place, Reading, Via,
    edge::as_proto,
    lane::Patience,
    ledger::{Counts, Gap, Ledger, Source, Verdict, audit},
    open_loop::{Felt, Load, Options as LoadOptions, Sender},
    provision,
    random::mix,
};

/// An admin listener answers at once; one that hangs must not hold the verdict.
const READYZ_MAX: Duration = Duration::from_secs(5);
/// From one probe to the next: 300 a minute are enough for a 99th percentile.
const PROBE_EVERY: Duration = Duration::from_millis(200);
/// Devices that are made and deleted at the same time.
const AT_ONCE: usize = 16;
/// How long reading back goes on trying.
const PATIENCE: Duration = Duration::from_secs(120);

/// How to prove.
#[derive(Debug, Clone)]
pub struct Options {
    /// Over what; each has as many devices.
    pub via: Vec<Via>,
    /// Devices over each.
    pub devices: u32,
    /// Messages a second of each device.
    pub rate: f64,
    /// Readings in one message over gRPC.
    pub batch: u32,
    /// After the end, how long unanswered messages are sent again.
    pub settle: Duration,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Messages by what was said of them.
    pub counts: Counts,
    /// What is wrong with what can be read.
    pub verdict: Verdict,
    /// From publish to queryable: 50th and 99th percentile; none where no probe was answered.
    pub queryable: Option<[Duration; 2]>,
    /// Probes that were acknowledged and could not be read at their own position.
    pub unreadable: u64,
    /// Longest times without an acknowledgement.
    pub gaps: Vec<(Via, Gap)>,
    /// Connections opened again.
    pub reconnects: u64,
    /// Messages that left more than a second late.
    pub late: u64,
    /// What the server complained of.
    pub complaints: Vec<String>,
}

/// A proof under way.
pub struct Proof {
    place: Place,
    ledger: Arc<Ledger>,
    loads: Vec<Load>,
    felt: Vec<Arc<Felt>>,
    probe: JoinHandle<()>,
    probes: Arc<Probes>,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Probes {
    times: Mutex<Vec<Duration>>,
    unreadable: AtomicU64,
}

impl Proof {
    /// Makes devices and starts the load.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn start(place: &Place, options: &Options) -> Result<Self> {
        let now = SystemClock.now().as_micros();
        let run = now.unsigned_abs();
        let epoch = Timestamp::from_micros(now / 1_000_000 * 1_000_000);
        let epoch = epoch.saturating_sub(Duration::from_secs(7 * 86_400));
        let mut ledger = Ledger::default();
        let mut senders: Vec<(Via, Vec<Sender>)> = Vec::new();
        let each = |via: Via| {
            let via = format!("{via:?}").to_lowercase();
            (0..options.devices.max(1)).map(move |number| format!("prove-{run:x}-{via}-{number}"))
        };
        let devices: Vec<String> =
            options.via.iter().flat_map(|via| each(*via)).chain([probe_id(run)]).collect();
        provision::create(place, &devices, &audit::labels(run)).await?;
        for via in &options.via {
            let mut list = Vec::new();
            for device in each(*via) {
                let token = match via {
                    Via::Grpc => String::new(), // the API token publishes
                    Via::Mqtt | Via::Http => provision::token(place, &device).await?.secret,
                };
                let number = u32::try_from(ledger.accounts().len()).unwrap_or(u32::MAX);
                let account = ledger.open(Source { run, tenant: 0, device: number }, &device, epoch);
                list.push(Sender { account, places: vec![place.clone()], via: *via, token });
            }
            senders.push((*via, list));
        }
        let gaps = Arc::clone(&ledger.gaps);
        let loads: Vec<Load> = senders
            .into_iter()
            .map(|(via, list)| Load::start(list, &load_options(options, via, run), Arc::clone(&gaps)))
            .collect();
        let (stop, probes) = (CancellationToken::new(), Arc::new(Probes::default()));
        let probe = tokio::spawn(probe(place.clone(), probe_id(run), Arc::clone(&probes), stop.clone()));
        Ok(Self {
            place: place.clone(),
            felt: loads.iter().map(|load| Arc::clone(&load.felt)).collect(),
            ledger: Arc::new(ledger),
            loads,
            probe,
            probes,
            stop,
        })
    }

    /// The ledger, for whoever shows how far it is.
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// Readings acknowledged so far.
    pub fn acknowledged(&self) -> impl Fn() -> u64 + Send + 'static {
        let felt = self.felt.clone();
        move || felt.iter().map(|felt| felt.tally.acknowledged_count()).sum()
    }

    /// Ends the load and reads everything back.
    ///
    /// # Errors
    /// What cannot be read however often it is tried.
    pub async fn finish(self) -> Result<Report> {
        self.stop.cancel();
        let mut report = Report::default();
        for load in self.loads.into_iter().map(|load| tokio::spawn(load.stop())).collect::<Vec<_>>() {
            let felt =
                load.await.map_err(|source| Error::internal("the load panicked").with_source(source))??;
            report.reconnects += felt.reconnects();
            report.late += felt.late();
            report.complaints.extend(felt.complaints());
        }
        drop(self.probe.await); // what it has found is kept beside
        report.counts = self.ledger.counts();
        let gaps = Via::ALL.into_iter().filter_map(|via| Some((via, self.ledger.gaps.longest(via)?)));
        report.gaps = gaps.collect();
        let mut times = self.probes.times.lock().unwrap_or_else(PoisonError::into_inner).clone();
        times.sort_unstable();
        let percentile = |share: f64| {
            let index = ((times.len() as f64 * share).ceil() as usize).saturating_sub(1);
            times.get(index).copied()
        };
        report.queryable = percentile(0.5).zip(percentile(0.99)).map(|(half, most)| [half, most]);
        report.unreadable = self.probes.unreadable.load(Ordering::Relaxed);
        report.verdict = audit::all(&self.ledger, std::slice::from_ref(&self.place), PATIENCE).await?;
        Ok(report)
    }
}

/// Deletes every device that a proof has made.
pub async fn clean_up(place: &Place, ledger: &Ledger) {
    let probes = ledger.accounts().iter().take(1).map(|account| probe_id(account.source().run));
    let devices = ledger.accounts().iter().map(|account| account.device().to_owned()).chain(probes);
    stream::iter(devices)
        .for_each_concurrent(AT_ONCE, |device| async move {
            drop(provision::delete(place, &device).await); // left behind, it is told apart by its label
        })
        .await;
}

/// What an acknowledgement survives, by the server's own word: what `/readyz` tells beside readiness.
pub async fn durability(admin: &str) -> Option<Vec<String>> {
    let ask = async { reqwest::get(format!("http://{admin}/readyz")).await?.text().await };
    let answer = tokio::time::timeout(READYZ_MAX, ask).await.ok()?.ok()?;
    Some(answer.lines().filter(|line| line.contains("durability")).map(str::to_owned).collect())
}

fn probe_id(run: u64) -> String {
    format!("prove-{run:x}-probe")
}

fn load_options(options: &Options, via: Via, run: u64) -> LoadOptions {
    let base = LoadOptions {
        rate: options.rate,
        settle: options.settle,
        seed: mix(run ^ via as u64),
        ..LoadOptions::default()
    };
    match via {
        Via::Mqtt => base,
        Via::Http => LoadOptions { window: 1, ..base }, // one request after the other, as a device does
        Via::Grpc => LoadOptions { batch: options.batch, ..base },
    }
}

/// Publishes a reading and queries it at its own position, again and again.
async fn probe(place: Place, device: String, probes: Arc<Probes>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(PROBE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 0_u32.. {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let begin = Instant::now();
        // A probe that the server does not answer measures nothing; the load tells of it.
        let Ok(found) = one_probe(&place, &device, number, &stop).await else { continue };
        if found {
            probes.times.lock().unwrap_or_else(PoisonError::into_inner).push(begin.elapsed());
        } else {
            probes.unreadable.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn one_probe(place: &Place, device: &str, number: u32, stop: &CancellationToken) -> Result<bool> {
    let ts = SystemClock.now();
    let reading =
        Reading { ts: Some(ts), values: vec![("probe".to_owned(), Value::Double(f64::from(number)))] };
    let request = PublishRequest {
        device: name::child(&place.tenant, "devices", device),
        readings: vec![as_proto(&reading)],
        ..Default::default()
    };
    let answer = place.connection.ingest().publish(request).await.map_err(from_status)?.into_inner();
    answer.statuses.iter().try_for_each(from_item)?;
    let query = QueryRequest {
        parent: name::tenant(&place.tenant),
        filter: Some(DeviceFilter { devices: vec![device.to_owned()], label_selector: String::new() }),
        start_time: Some(convert::from_timestamp(ts)),
        end_time: Some(convert::from_timestamp(ts.saturating_add(Duration::from_micros(1)))),
        min_positions: vec![answer.position],
        ..Default::default()
    };
    let mut patience = Patience::new(PATIENCE);
    loop {
        match points(place, query.clone()).await {
            Ok(points) => return Ok(points == 1),
            Err(error) if stop.is_cancelled() => return Err(error),
            Err(error) => patience.again(error).await?,
        }
    }
}

async fn points(place: &Place, query: QueryRequest) -> Result<usize> {
    let mut answers = place.connection.telemetry().query(query).await.map_err(from_status)?.into_inner();
    let mut points = 0;
    while let Some(answer) = answers.message().await.map_err(from_status)? {
        points += answer.points.len();
    }
    Ok(points)
}
