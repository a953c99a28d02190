//! One live tail, pulled by its reader.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;
use tokio::time::Instant;
use weir_core::{
    DeviceId, Error, ErrorKind, Partition, Result, TenantId,
    device::Device,
    port::{Log, Registry, Signal, SignalStream, Signals, Topic},
};

use super::{
    catch_up::{CatchUp, Step},
    cursor::{Cursor, Place},
    fan_out::{FanOut, Subscription, Wanted},
};
use crate::{
    marks::{Mark, Marks},
    query::{Devices, Latest, Permit, Point, Wants, device_matches},
    writer::Heard,
};

/// Nothing happened for so long: say so, so that both ends know that the other lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Labels are asked for again this often, since a signal may be lost.
const LABELS_AGE_MAX: Duration = Duration::from_secs(30);
/// Devices whose match is remembered; past it all are asked for again.
const MATCHES_MAX: usize = 10_000;
/// Points of a message at most.
const POINTS_MAX: usize = 500;
/// Bytes of a message after which it is full: with one largest reading more, below gRPC's 4 MiB.
const MESSAGE_BYTES: usize = 1 << 20;

/// Asks for points as they are stored.
pub(crate) struct TailRequest {
    pub(crate) tenant: TenantId,
    pub(crate) devices: Devices,
    pub(crate) wants: Wants,
    /// Goes on after this; from now, with a snapshot, if empty.
    pub(crate) resume_cursor: String,
}

/// What a message is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Points(Vec<Point>),
    Synced,
    Heartbeat,
}

/// One message of a tail.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    pub(crate) event: Event,
    /// Empty until the snapshot is complete: a tail that ended before begins anew.
    pub(crate) cursor: String,
}

/// What a tail stands on.
pub(crate) struct Sources {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) signals: Arc<dyn Signals>,
    pub(crate) marks: Arc<Marks>,
    pub(crate) fan_out: Arc<FanOut>,
}

enum Phase {
    Snapshot(Latest),
    /// Twice: the first time, which may be long, without a queue that would fill meanwhile; then with one.
    CatchUp(CatchUp),
    Synced,
    Live,
    Ended,
}

/// A live tail. Each message is made when it is asked for.
pub(crate) struct Tail {
    sources: Sources,
    request: TailRequest,
    phase: Phase,
    cursor: Cursor,
    subscription: Option<Subscription>,
    /// Messages to give before anything else.
    pending: VecDeque<Arc<Heard>>,
    /// What was given once `pending` is: the queue was empty after these were read.
    drained: Option<Vec<Mark>>,
    matches: HashMap<DeviceId, bool>,
    matches_at: Instant,
    heartbeat_at: Instant,
    changes: SignalStream,
    _permit: Permit,
}

impl Tail {
    /// Opens a tail; `snapshot` gives the newest values, where the request has no cursor.
    ///
    /// # Errors
    /// `CURSOR_INVALID` for a cursor that was not given out; `Unavailable` of store or log.
    pub(crate) async fn open(
        sources: Sources,
        request: TailRequest,
        snapshot: Latest,
        permit: Permit,
    ) -> Result<Self> {
        let changes = sources.signals.subscribe(Topic::Registry).await;
        let mut tail = Self {
            cursor: Cursor::through(&[]),
            phase: Phase::Ended,
            subscription: None,
            pending: VecDeque::new(),
            drained: None,
            matches: HashMap::new(),
            matches_at: Instant::now(),
            heartbeat_at: Instant::now() + HEARTBEAT,
            changes,
            _permit: permit,
            sources,
            request,
        };
        if tail.request.resume_cursor.is_empty() {
            tail.subscribe();
            tail.cursor = Cursor::through(&tail.sources.fan_out.all_told());
            tail.phase = Phase::Snapshot(snapshot);
        } else {
            tail.cursor = Cursor::parse(&tail.request.resume_cursor, tail.sources.marks.partitions())?;
            // Whoever gave it may have known of a loss before this replica does.
            tail.sources.marks.know(tail.cursor.generation()).await?;
            tail.phase = Phase::CatchUp(tail.catch_up(tail.sources.marks.all()));
        }
        Ok(tail)
    }

    /// The next message; none after an error.
    ///
    /// # Errors
    /// `ResourceExhausted` (`TAIL_SLOW`) where the reader was too slow; `CURSOR_TOO_OLD`, `POSITION_LOST` on resume; those
    /// of store, log and registry.
    pub(crate) async fn next(&mut self) -> Result<Option<Message>> {
        if matches!(self.phase, Phase::Ended) {
            return Ok(None);
        }
        let message = self.step().await;
        self.heartbeat_at = Instant::now() + HEARTBEAT;
        if message.is_err() {
            self.phase = Phase::Ended;
        }
        message.map(Some)
    }

    async fn step(&mut self) -> Result<Message> {
        loop {
            if let Some(points) = self.take_pending().await? {
                return Ok(self.message(Event::Points(points)));
            }
            match &mut self.phase {
                Phase::Snapshot(latest) => match latest.next().await? {
                    Some(points) => {
                        return Ok(Message { event: Event::Points(points), cursor: String::new() });
                    }
                    None => self.phase = Phase::Synced,
                },
                Phase::CatchUp(log) => match log.next(&self.cursor).await? {
                    Step::Heard(heard) => self.pending.extend(heard),
                    Step::Reached(partition, mark) => self.cursor.advance(partition, Place::through(mark)),
                    Step::Done if self.subscription.is_some() => self.phase = Phase::Synced,
                    Step::Done => {
                        self.subscribe();
                        self.phase = Phase::CatchUp(self.catch_up(self.sources.fan_out.all_told()));
                    }
                },
                Phase::Synced => {
                    self.phase = Phase::Live;
                    return Ok(self.message(Event::Synced));
                }
                Phase::Live | Phase::Ended => {
                    if !self.listen().await? {
                        return Ok(self.message(Event::Heartbeat));
                    }
                }
            }
        }
    }

    /// Waits for something live; false where it is time for a heartbeat.
    async fn listen(&mut self) -> Result<bool> {
        if Instant::now() >= self.heartbeat_at {
            return Ok(false);
        }
        let told = self.sources.fan_out.all_told();
        let Some(subscription) = &mut self.subscription else {
            return Err(Error::internal("a tail has no queue"));
        };
        while self.pending.len() < POINTS_MAX {
            match subscription.try_next() {
                Some(heard) => self.pending.push_back(heard),
                None => {
                    // What is up to these marks was handed over before they were read.
                    self.drained = Some(told);
                    break;
                }
            }
        }
        if !self.pending.is_empty() {
            return Ok(true);
        }
        tokio::select! {
            heard = subscription.next() => match heard {
                Some(heard) => self.pending.push_back(heard),
                None => return Err(self.slow()),
            },
            change = self.changes.next() => match change {
                Some(Some(Signal::DeviceChanged { tenant, .. })) if tenant != self.request.tenant => {}
                Some(_) => self.matches.clear(),
                None => self.changes = futures::stream::pending().boxed(), // the 30 s are left
            },
            () = tokio::time::sleep_until(self.heartbeat_at) => return Ok(false),
        }
        Ok(true)
    }

    /// Points of what is pending, as many as a message takes; none where nothing of it is wanted.
    async fn take_pending(&mut self) -> Result<Option<Vec<Point>>> {
        let (mut points, mut bytes) = (Vec::new(), 0);
        while let Some(message) = self.pending.front().cloned() {
            if self.is_wanted(&message).await? {
                for (index, reading) in &message.readings {
                    if !self.cursor.place(message.partition).precedes(&message, *index) {
                        continue;
                    }
                    if points.len() >= POINTS_MAX || bytes >= MESSAGE_BYTES {
                        return Ok(Some(points));
                    }
                    let position = message.position(*index);
                    for (metric, value) in
                        reading.values.iter().filter(|(metric, _)| self.request.wants.metric(metric))
                    {
                        let point = Point {
                            device: message.device.clone(),
                            ts: reading.ts,
                            metric: Arc::clone(metric),
                            value: value.clone(),
                            received_at: reading.received_at,
                            position,
                        };
                        bytes += point.weight();
                        points.push(point);
                    }
                    self.cursor.advance(message.partition, place_after(&message, *index));
                }
            } else if let Some((index, _)) = message.readings.last() {
                self.cursor.advance(message.partition, place_after(&message, *index));
            }
            self.pending.pop_front();
        }
        for (partition, mark) in (0..).map(Partition).zip(self.drained.take().into_iter().flatten()) {
            self.cursor.advance(partition, Place::through(mark));
        }
        Ok((!points.is_empty()).then_some(points))
    }

    async fn is_wanted(&mut self, message: &Heard) -> Result<bool> {
        if message.series.tenant != self.request.tenant {
            return Ok(false);
        }
        let selector = match &self.request.devices {
            Devices::Ids(ids) => return Ok(ids.contains(&message.device)),
            Devices::Selector(selector) => selector,
        };
        if self.matches_at.elapsed() > LABELS_AGE_MAX || self.matches.len() >= MATCHES_MAX {
            self.matches.clear();
            self.matches_at = Instant::now();
        }
        if let Some(matches) = self.matches.get(&message.device) {
            return Ok(*matches);
        }
        let device: Option<Arc<Device>> =
            match self.sources.registry.device(&self.request.tenant, &message.device).await {
                Ok(device) => Some(device),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
        let matches = device.is_some_and(|device| device_matches(selector, &device));
        self.matches.insert(message.device.clone(), matches);
        Ok(matches)
    }

    fn subscribe(&mut self) {
        let wanted = match &self.request.devices {
            Devices::Ids(ids) => Wanted::Devices(ids.iter().cloned().collect()),
            Devices::Selector(_) => Wanted::Tenant,
        };
        self.subscription = Some(self.sources.fan_out.subscribe(self.request.tenant.clone(), wanted));
    }

    fn catch_up(&self, targets: Vec<Mark>) -> CatchUp {
        CatchUp::new(Arc::clone(&self.sources.log), Arc::clone(&self.sources.marks), targets)
    }

    fn message(&self, event: Event) -> Message {
        Message { event, cursor: self.cursor.to_text() }
    }

    fn slow(&self) -> Error {
        let limit = self.sources.fan_out.buffer_bytes();
        Error::new(
            ErrorKind::ResourceExhausted,
            "TAIL_SLOW",
            format!(
                "more than {limit} bytes of readings waited for this reader: go on with resume_cursor {}",
                self.cursor.to_text()
            ),
        )
        .with_limit(limit)
        .with_retry_after(Duration::from_millis(1))
    }
}

fn place_after(message: &Heard, index: u32) -> Place {
    Place { generation: message.generation, sequence: message.sequence, index: index.saturating_add(1) }
}
