//! From the log to whoever watches here.
//!
//! Of each partition it is known up to where its messages were handed over (`told`), and each step goes on exactly where
//! the last one ended, whoever makes it: the partition's owner, where it is this replica, right after it has written; else,
//! or where the owner began further on, the follower ([`super::follow`]), which reads the log. So a tail that is
//! subscribed misses nothing after what was told when it subscribed, in order, and whatever moves.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, watch};
use weir_core::{DeviceId, Partition, TenantId, Value};

use crate::{
    marks::{Mark, Marks},
    metrics::Metrics,
    writer::Heard,
};

/// Messages that wait for one tail at most, beside the bound in bytes.
const MESSAGES_MAX: usize = 8_192;
/// What a reading and a value weigh in memory, about.
const READING_BYTES: usize = 64;
const VALUE_BYTES: usize = 48;

/// Which messages of its tenant a tail is handed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Those of these devices, also if one is created anew.
    Devices(HashSet<DeviceId>),
    /// All of them: the tail asks the registry which devices its selector matches.
    Tenant,
}

struct Subscriber {
    id: u64,
    wanted: Wanted,
    queue: mpsc::Sender<Arc<Heard>>,
    queued: Arc<AtomicUsize>,
}

/// The live tails. As many as tenants may hold; a tail whose queue is full is let go.
pub(crate) struct FanOut {
    tenants: RwLock<HashMap<TenantId, Vec<Subscriber>>>,
    /// Up to where each partition was handed over; of no meaning while nobody watches. Taken before `tenants`.
    told: Vec<Mutex<Mark>>,
    watched: watch::Sender<bool>,
    marks: Arc<Marks>,
    ids: AtomicU64,
    buffer_bytes: usize,
    metrics: Arc<Metrics>,
}

impl FanOut {
    /// `buffer_bytes`: what may wait for one tail.
    pub(crate) fn new(buffer_bytes: usize, marks: Arc<Marks>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            tenants: RwLock::default(),
            told: (0..marks.partitions()).map(|_| Mutex::default()).collect(),
            watched: watch::Sender::new(false),
            marks,
            ids: AtomicU64::default(),
            buffer_bytes,
            metrics,
        })
    }

    /// Whether anybody watches, as it changes.
    pub(super) fn watched(&self) -> watch::Receiver<bool> {
        self.watched.subscribe()
    }

    /// Up to where a partition was handed over to those who watch.
    pub(super) fn told(&self, partition: Partition) -> Mark {
        self.told.get(usize::from(partition.0)).map(|told| *told.lock()).unwrap_or_default()
    }

    /// The same of every partition.
    pub(super) fn all_told(&self) -> Vec<Mark> {
        self.told.iter().map(|told| *told.lock()).collect()
    }

    /// Hands everything of a partition after `from` and up to `to` to the tails that want it, unless it was handed over
    /// already, or something before it was not: that is for the follower. Never waits.
    pub(crate) fn hand_over(&self, partition: Partition, from: Mark, to: Mark, heard: &[Arc<Heard>]) {
        let Some(told) = self.told.get(usize::from(partition.0)) else { return };
        let mut told = told.lock();
        if *self.watched.borrow() && from <= *told && *told < to {
            self.publish(heard);
            *told = to;
        }
    }

    fn publish(&self, heard: &[Arc<Heard>]) {
        let tenants = self.tenants.read();
        let mut full = Vec::new();
        for message in heard {
            for subscriber in tenants.get(&message.series.tenant).into_iter().flatten() {
                let wanted = match &subscriber.wanted {
                    Wanted::Devices(devices) => devices.contains(&message.device),
                    Wanted::Tenant => true,
                };
                if wanted && !full.contains(&subscriber.id) && !self.offer(subscriber, message) {
                    full.push(subscriber.id);
                }
            }
        }
        drop(tenants);
        for id in full {
            self.metrics.tails_slow.inc();
            self.remove(id);
        }
    }

    /// Lets every tail go, as one that was too slow: what comes next is no longer in the log.
    pub(super) fn let_go(&self) {
        let mut tenants = self.tenants.write();
        self.metrics.tails_slow.inc_by(tenants.values().map(Vec::len).sum::<usize>() as u64);
        tenants.clear();
        self.watched.send_replace(false);
    }

    fn offer(&self, subscriber: &Subscriber, message: &Arc<Heard>) -> bool {
        let bytes = weight(message);
        let queued = subscriber.queued.fetch_add(bytes, Ordering::AcqRel);
        // A message larger than the buffer passes where nothing waits, or such a device could never be watched.
        (queued == 0 || queued + bytes <= self.buffer_bytes)
            && subscriber.queue.try_send(Arc::clone(message)).is_ok()
    }

    /// From now on hands messages to the subscription: all of what comes after [`FanOut::all_told`] says next.
    pub(super) fn subscribe(self: &Arc<Self>, tenant: TenantId, wanted: Wanted) -> Subscription {
        let (queue, receiver) = mpsc::channel(MESSAGES_MAX);
        let queued = Arc::new(AtomicUsize::new(0));
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let subscriber = Subscriber { id, wanted, queue, queued: Arc::clone(&queued) };
        // In the order of partitions, so that two of these do not wait for each other.
        let mut told: Vec<_> = self.told.iter().map(Mutex::lock).collect();
        let mut tenants = self.tenants.write();
        if tenants.is_empty() {
            // Nobody needs what came before the first one.
            told.iter_mut().zip(self.marks.all()).for_each(|(told, written)| **told = written.max(**told));
        }
        tenants.entry(tenant).or_default().push(subscriber);
        self.watched.send_replace(true);
        drop((tenants, told));
        self.metrics.tails.inc();
        Subscription { fan_out: Arc::clone(self), id, receiver, queued }
    }

    fn remove(&self, id: u64) {
        let mut tenants = self.tenants.write();
        for subscribers in tenants.values_mut() {
            subscribers.retain(|subscriber| subscriber.id != id);
        }
        tenants.retain(|_, subscribers| !subscribers.is_empty());
        if tenants.is_empty() {
            self.watched.send_if_modified(std::mem::take);
        }
    }

    /// Bytes that may wait for one tail.
    pub(super) fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }
}

/// A tail's end of its queue; dropping it ends the handing over.
pub(super) struct Subscription {
    fan_out: Arc<FanOut>,
    id: u64,
    receiver: mpsc::Receiver<Arc<Heard>>,
    queued: Arc<AtomicUsize>,
}

impl Subscription {
    /// The next message; none where this tail was too slow. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Option<Arc<Heard>> {
        let message = self.receiver.recv().await?;
        self.queued.fetch_sub(weight(&message), Ordering::AcqRel);
        Some(message)
    }

    /// A message that waits already.
    pub(super) fn try_next(&mut self) -> Option<Arc<Heard>> {
        let message = self.receiver.try_recv().ok()?;
        self.queued.fetch_sub(weight(&message), Ordering::AcqRel);
        Some(message)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.fan_out.remove(self.id);
        self.fan_out.metrics.tails.dec();
    }
}

fn weight(message: &Heard) -> usize {
    let text = |value: &Value| match value {
        Value::String(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Double(_) | Value::Int64(_) | Value::Bool(_) => 0,
    };
    let values = |values: &[(Arc<str>, Value)]| {
        values.iter().map(|(_, value)| VALUE_BYTES + text(value)).sum::<usize>()
    };
    message.readings.iter().map(|(_, reading)| READING_BYTES + values(&reading.values)).sum()
}
