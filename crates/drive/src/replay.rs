//! Replays a file as devices: at full speed, or as many times faster than life.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use weir_core::{DeviceId, Error, Result, Timestamp};

use crate::{
    Place, Reading, Tally, Via,
    lane::{Lane, Sender, patiently},
    provision::{self, Token},
    source::{Row, Source},
};

/// Readings in one message at full speed: large enough that the message's cost is spread, far below the limit of 1,000.
const BATCH: usize = 100;
/// Rows that a replay in time keeps in memory, since a file need not be in order of time.
const ROWS_MAX: usize = 5_000_000;
/// Devices that send at the same time; when one more comes, the one that was quiet longest is finished first.
const LANES_MAX: usize = 256;

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// As fast as the server takes it.
    Max,
    /// So many times faster than life, by event time.
    Times(f64),
}

/// What to replay, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Over what.
    pub via: Via,
    /// How fast.
    pub speed: Speed,
    /// Whether devices that do not exist are created; else they are an error.
    pub create: bool,
    /// Labels of those that are created.
    pub labels: HashMap<String, String>,
    /// How long to go on trying while nobody answers.
    pub patience: Duration,
}

/// How far a replay is; shared with whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    read: AtomicU64,
    bad: AtomicU64,
    /// What became of what was sent.
    pub tally: Arc<Tally>,
}

impl Progress {
    /// Rows read from the file, good and bad.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
    /// Rows that could not be read as a reading.
    pub fn bad(&self) -> u64 {
        self.bad.load(Ordering::Relaxed)
    }
}

/// Replays `source` until its end, or until `stop`. What was read is counted in `progress`.
///
/// # Errors
/// `NotFound` for a device that does not exist without `create`; why a device's lane gave up. Readings that were given up
/// are in the tally as lost.
pub async fn run(
    place: &Place,
    mut source: Source,
    options: &Options,
    progress: &Progress,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let mut replay = Replay { place, options, progress, lanes: HashMap::new(), tokens: Vec::new(), clock: 0 };
    let work = async {
        match options.speed {
            Speed::Max => replay.at_once(&mut source).await,
            Speed::Times(times) => replay.in_time(&mut source, times).await,
        }
    };
    let done = tokio::select! {
        done = work => done,
        () = stop => Ok(()),
    };
    let finished = replay.finish().await;
    done.and(finished)
}

struct Replay<'a> {
    place: &'a Place,
    options: &'a Options,
    progress: &'a Progress,
    lanes: HashMap<String, Open>,
    tokens: Vec<Token>,
    clock: u64,
}

struct Open {
    lane: Lane,
    batch: Vec<Reading>,
    used: u64,
}

impl Replay<'_> {
    async fn at_once(&mut self, source: &mut Source) -> Result<()> {
        while let Some(row) = self.next(source)? {
            self.push(row, BATCH).await?;
        }
        Ok(())
    }

    async fn in_time(&mut self, source: &mut Source, times: f64) -> Result<()> {
        let mut rows = Vec::new();
        while let Some(row) = self.next(source)? {
            if rows.len() == ROWS_MAX {
                return Err(Error::invalid(
                    "file",
                    "SOURCE_INVALID",
                    format!("the file has more than {ROWS_MAX} rows; replay it with --speed max"),
                )
                .with_limit(ROWS_MAX));
            }
            rows.push(row);
        }
        rows.sort_by_key(|row| row.ts);
        let (begin, first) = (Instant::now(), rows.first().map_or(Timestamp::MIN, |row| row.ts));
        for row in rows {
            let due = begin + row.ts.since(first).div_f64(times);
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            self.push(row, 1).await?;
        }
        Ok(())
    }

    /// The next good row; bad ones are counted with their reason.
    fn next(&self, source: &mut Source) -> Result<Option<Row>> {
        loop {
            match source.next_row() {
                Ok(None) => return Ok(None),
                Ok(Some(row)) => {
                    self.progress.read.fetch_add(1, Ordering::Relaxed);
                    return Ok(Some(row));
                }
                Err(error) if error.reason() == "ROW_INVALID" => {
                    self.progress.read.fetch_add(1, Ordering::Relaxed);
                    self.progress.bad.fetch_add(1, Ordering::Relaxed);
                    self.progress.tally.refused(&error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn push(&mut self, row: Row, batch_max: usize) -> Result<()> {
        if !self.lanes.contains_key(&row.device) {
            self.open(&row.device).await?;
        }
        self.clock += 1;
        let Some(open) = self.lanes.get_mut(&row.device) else { return Ok(()) };
        open.used = self.clock;
        open.batch.push(Reading { ts: Some(row.ts), values: row.values });
        if open.batch.len() >= batch_max {
            let batch = std::mem::take(&mut open.batch);
            if !open.lane.send(batch).await {
                return self.close(&row.device).await;
            }
        }
        Ok(())
    }

    async fn open(&mut self, device: &str) -> Result<()> {
        DeviceId::new(device)?;
        if self.lanes.len() >= LANES_MAX {
            let oldest =
                self.lanes.iter().min_by_key(|(_, open)| open.used).map(|(device, _)| device.clone());
            if let Some(oldest) = oldest {
                self.close(&oldest).await?;
            }
        }
        patiently(self.options.patience, async || match self.options.create {
            true => provision::create(self.place, &[device.to_owned()], &self.options.labels).await,
            false => provision::check(self.place, device).await,
        })
        .await?;
        let token = match self.options.via {
            Via::Grpc => String::new(), // the API token publishes
            Via::Mqtt | Via::Http => {
                let token =
                    patiently(self.options.patience, async || provision::token(self.place, device).await)
                        .await?;
                self.tokens.push(token.clone());
                token.secret
            }
        };
        let sender = Sender {
            place: self.place.clone(),
            via: self.options.via,
            device: device.to_owned(),
            token,
            patience: self.options.patience,
        };
        let lane = Lane::open(sender, Arc::clone(&self.progress.tally));
        self.lanes.insert(device.to_owned(), Open { lane, batch: Vec::new(), used: self.clock });
        Ok(())
    }

    async fn close(&mut self, device: &str) -> Result<()> {
        let Some(open) = self.lanes.remove(device) else { return Ok(()) };
        if !open.batch.is_empty() {
            let count = open.batch.len();
            if !open.lane.send(open.batch).await {
                self.progress.tally.sent(count);
                self.progress.tally.lost(count);
            }
        }
        open.lane.finish().await.map_err(|error| error.context(format!("device {device}")))
    }

    async fn finish(&mut self) -> Result<()> {
        let mut result = Ok(());
        let devices: Vec<String> = self.lanes.keys().cloned().collect();
        for device in devices {
            result = result.and(self.close(&device).await);
        }
        for token in &self.tokens {
            drop(provision::revoke(self.place, token).await); // it ends by itself within a day
        }
        result
    }
}
