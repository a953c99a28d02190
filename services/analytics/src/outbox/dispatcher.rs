//! Doing what waits: a lane for each rule's webhooks and for each device's commands, one try at a time in each, so that a
//! dead endpoint delays only its own rule's. Commands never wait for webhooks, nor one tenant for all of another's.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_core::{Clock, ErrorKind, Partition, Timestamp, Uid, port::CommandSender};

use super::{Job, Outcome, Row, command, slots::Slots, webhook};
use crate::{
    alarm::{Alarms, Op},
    config::ActionsConfig,
    metrics::Metrics,
};

/// Each further pause is so many times the one before.
const RETRY_FACTOR: u32 = 4;
/// The longest pause: with eight tries from one second on, the last of them comes after about one hour.
const RETRY_MAX: Duration = Duration::from_secs(2_400);
/// Commands are retried sooner: they have a time to live.
const COMMAND_RETRY_MAX: Duration = Duration::from_secs(30);
/// Pause between tries to record what became of an action.
const RECORD_PAUSE: Duration = Duration::from_secs(1);

/// One lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum LaneKey {
    Rule(Uid),
    Device(Uid),
}

#[derive(Default)]
struct Lane {
    due: BinaryHeap<Reverse<(Timestamp, u64)>>,
    rows: HashMap<u64, (Partition, Row)>,
    bell: Arc<Notify>,
}

#[derive(Default)]
struct Lanes {
    lanes: HashMap<LaneKey, Lane>,
    known: HashSet<Uid>,
    /// Partitions that are this replica's; what waits of others is for theirs.
    owned: HashSet<Partition>,
    next: u64,
}

/// Delivers outbox rows. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Dispatcher(Arc<Inner>);

struct Inner {
    alarms: Arc<Alarms>,
    commands: Arc<dyn CommandSender>,
    caller: webhook::Caller,
    config: ActionsConfig,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    lanes: Mutex<Lanes>,
    slots: Slots,
    tasks: TaskTracker,
    /// No further tries.
    stop: CancellationToken,
    /// Ends at once, as a crash would.
    kill: CancellationToken,
}

impl Dispatcher {
    pub(crate) fn new(
        alarms: Arc<Alarms>,
        commands: Arc<dyn CommandSender>,
        config: ActionsConfig,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        kill: CancellationToken,
    ) -> Self {
        let this = Self(Arc::new(Inner {
            slots: Slots::new(config.concurrency as usize),
            alarms,
            commands,
            caller: webhook::Caller::default(),
            config,
            clock,
            metrics,
            lanes: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            kill,
        }));
        this.tell_use();
        this
    }

    /// How much waits and is under way, as it is read at a scrape.
    fn tell_use(&self) {
        let Inner { metrics, slots, config, .. } = &*self.0;
        metrics.actions.trying_max.set(i64::from(config.concurrency));
        metrics.actions.trying.by_label(slots.running());
        let inner = Arc::downgrade(&self.0);
        metrics.actions.waiting.by(move || {
            let waiting = |inner: Arc<Inner>| -> usize {
                inner.lanes.lock().lanes.values().map(|lane| lane.rows.len()).sum()
            };
            inner.upgrade().map_or(0, waiting) as f64
        });
    }

    /// Takes rows that are durable. One that it has already is not taken twice.
    pub(crate) fn take(&self, partition: Partition, rows: Vec<Row>) {
        self.0.alarms.waiting.add_all(&rows);
        let mut lanes = self.0.lanes.lock();
        lanes.owned.insert(partition);
        for row in rows {
            if !lanes.known.insert(row.key) {
                continue;
            }
            let key = match row.job {
                Job::Command { .. } => LaneKey::Device(row.device.uid),
                Job::Webhook { .. } => LaneKey::Rule(row.rule_uid),
            };
            lanes.next += 1;
            let number = lanes.next;
            let new = !lanes.lanes.contains_key(&key);
            let lane = lanes.lanes.entry(key).or_default();
            lane.due.push(Reverse((row.next_at, number)));
            lane.rows.insert(number, (partition, row));
            lane.bell.notify_one();
            if new {
                let (inner, kill) = (Arc::clone(&self.0), self.0.kill.clone());
                self.0.tasks.spawn(async move { kill.run_until_cancelled(inner.run(key)).await });
            }
        }
    }

    /// Forgets what waits of a partition: it is another's now. A try that is under way is recorded, and is the last here.
    pub(crate) fn release(&self, partition: Partition) {
        let mut lanes = self.0.lanes.lock();
        let Lanes { lanes, known, owned, .. } = &mut *lanes;
        owned.remove(&partition);
        for lane in lanes.values_mut() {
            let rows = std::mem::take(&mut lane.rows).into_iter();
            let (gone, stay): (Vec<_>, _) = rows.partition(|(_, (of, _))| *of == partition);
            lane.rows = stay.into_iter().collect();
            if gone.is_empty() {
                continue;
            }
            lane.due.retain(|Reverse((_, number))| lane.rows.contains_key(number));
            for (_, (_, row)) in gone {
                known.remove(&row.key);
                self.0.alarms.waiting.remove(&row);
            }
            lane.bell.notify_one(); // where it has nothing left it ends
        }
    }

    /// Ends after the tries that are under way.
    pub(crate) async fn drain(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

/// What a lane does next.
enum Next {
    Try(Partition, Box<Row>),
    Wait(Duration, Arc<Notify>),
    End,
}

impl Inner {
    async fn run(self: Arc<Self>, key: LaneKey) {
        loop {
            match self.next(key) {
                Next::End => return,
                Next::Wait(pause, bell) => tokio::select! {
                    () = self.stop.cancelled() => return,
                    () = bell.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                },
                Next::Try(partition, row) => {
                    if self.stop.is_cancelled() {
                        return;
                    }
                    self.work(key, partition, *row).await;
                }
            }
        }
    }

    fn next(&self, key: LaneKey) -> Next {
        let mut lanes = self.lanes.lock();
        let now = self.clock.now();
        let Some(lane) = lanes.lanes.get_mut(&key) else { return Next::End };
        match lane.due.peek() {
            None => {
                lanes.lanes.remove(&key);
                Next::End
            }
            Some(Reverse((at, _))) if *at > now => Next::Wait(at.since(now), Arc::clone(&lane.bell)),
            Some(Reverse((_, number))) => {
                let number = *number;
                lane.due.pop();
                match lane.rows.remove(&number) {
                    Some((partition, row)) => Next::Try(partition, Box::new(row)),
                    None => Next::Wait(Duration::ZERO, Arc::clone(&lane.bell)),
                }
            }
        }
    }

    async fn work(&self, key: LaneKey, partition: Partition, row: Row) {
        let outcome = {
            // What has no slot yet when the service stops is tried after the next start.
            let slot = self.stop.run_until_cancelled(self.slots.acquire(&row));
            let Some(Some(_slot)) = slot.await else { return };
            let began = Instant::now();
            let outcome = self.attempt(&row).await;
            self.metrics.actions.attempted(row.job.kind(), outcome.as_str(), began.elapsed().as_secs_f64());
            outcome
        };
        if let Outcome::Failed { error } = &outcome {
            tracing::warn!(rule = %row.rule, device = %row.device.device, kind = row.job.kind(), error, "an action was given up");
        }
        let op = [Op::Tried { row: row.clone(), outcome: outcome.clone() }];
        while let Err(error) = self.alarms.apply(partition, &row.device.tenant, &op).await {
            tracing::warn!(rule = %row.rule, %error, "cannot record what became of an action");
            tokio::select! {
                () = self.stop.cancelled() => return, // the row is still there: it is tried again after the next start
                () = tokio::time::sleep(RECORD_PAUSE) => {}
            }
        }
        let mut lanes = self.lanes.lock();
        match outcome.next(&row).filter(|_| lanes.owned.contains(&partition)) {
            None => {
                lanes.known.remove(&row.key);
                drop(lanes);
                self.alarms.waiting.remove(&row);
            }
            Some(again) => {
                lanes.next += 1;
                let number = lanes.next;
                if let Some(lane) = lanes.lanes.get_mut(&key) {
                    lane.due.push(Reverse((again.next_at, number)));
                    lane.rows.insert(number, (partition, again));
                }
            }
        }
    }

    async fn attempt(&self, row: &Row) -> Outcome {
        let now = self.clock.now();
        match &row.job {
            Job::Webhook { .. } => match self.caller.post(row, self.config.webhook_timeout, now).await {
                Ok(()) => Outcome::Done { command: None },
                Err(webhook::Failure::Passing(error)) if row.attempts + 1 < self.config.webhook_attempts => {
                    Outcome::Retry { at: self.later(row, RETRY_MAX), error }
                }
                Err(webhook::Failure::Passing(error) | webhook::Failure::Lasting(error)) => {
                    Outcome::Failed { error }
                }
            },
            Job::Command { .. } => match command::send(&*self.commands, row, now).await {
                Ok(Some(id)) => Outcome::Done { command: Some(id) },
                Ok(None) => {
                    Outcome::Failed { error: "its time to live ran out before it could be sent".to_owned() }
                }
                Err(error) if error.kind().retryable() || error.kind() == ErrorKind::Internal => {
                    Outcome::Retry { at: self.later(row, COMMAND_RETRY_MAX), error: error.to_string() }
                }
                Err(error) => Outcome::Failed { error: error.to_string() },
            },
        }
    }

    /// When to try again: exponential backoff, a fifth of it up or down by the row's own key, so that many rows that
    /// failed together do not come back together.
    fn later(&self, row: &Row, max: Duration) -> Timestamp {
        let pause = self.config.retry_base.saturating_mul(RETRY_FACTOR.saturating_pow(row.attempts)).min(max);
        let seed = Uid::hash(&[&row.key.to_bytes(), &row.attempts.to_be_bytes()]).as_u128() % 400;
        let jittered = pause.mul_f64(0.8 + f64::from(u32::try_from(seed).unwrap_or(200)) / 1_000.0);
        self.clock.now().saturating_add(jittered)
    }
}
