//! What waits for one partition: bounded, and fair over tenants.
//!
//! A tenant may hold an equal share of the window, where one share is kept free for a newcomer: so a tenant that fills
//! its share makes only its own callers wait. Frames are filled by deficit round robin over tenants, by bytes, so that
//! large messages of one do not crowd out the small ones of another.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use weir_core::{Message, Result, TenantId, Value};

use super::{Accepted, Source};

/// What a tenant may add to a frame before it is the next one's turn: a frame of 256 KiB has room for 16 tenants, and a
/// turn is long enough that neighbours in the frame mostly share their shape.
const QUANTUM: usize = 16 * 1024;

/// A message, and who waits for its ack.
pub(super) struct Member {
    pub(super) message: Message,
    pub(super) source: Source,
    pub(super) reply: oneshot::Sender<Result<Accepted>>,
    /// What it was counted as.
    pub(super) bytes: usize,
}

/// What waits for one partition.
pub(super) struct Window {
    state: Mutex<State>,
    ready: Notify,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    tenants: HashMap<TenantId, Share>,
    /// The tenants with a queue, in the order of their turns.
    ring: VecDeque<TenantId>,
    /// Of all shares.
    bytes: usize,
    closed: bool,
}

/// A tenant's part of the window; there only while it is used.
#[derive(Default)]
struct Share {
    queue: VecDeque<Member>,
    /// Queued, admitted or in flight.
    bytes: usize,
    deficit: usize,
    waiters: VecDeque<Waiter>,
}

struct Waiter {
    bytes: usize,
    admit: oneshot::Sender<Permit>,
}

/// Room in the window for one message; given back when dropped unused.
pub(super) struct Permit {
    window: Arc<Window>,
    tenant: TenantId,
    bytes: usize,
    used: bool,
}

/// What came of asking for room.
pub(super) enum Admission {
    Admitted(Permit),
    /// Not now.
    Full(oneshot::Receiver<Permit>),
    /// Never again.
    Closed,
}

impl Window {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { state: Mutex::default(), ready: Notify::new(), bytes_max }
    }

    /// What a message counts as: about its size in memory, and no more than a quarter of the window, so that two tenants
    /// can always both have one.
    pub(super) fn cost(&self, message: &Message) -> usize {
        footprint(message).min(self.bytes_max / 4)
    }

    /// Asks for room; whoever waits already comes first.
    pub(super) fn admit(self: &Arc<Self>, tenant: &TenantId, bytes: usize) -> Admission {
        let mut state = self.state.lock();
        if state.closed {
            return Admission::Closed;
        }
        let blocked = state
            .tenants
            .get(tenant)
            .is_some_and(|share| share.waiters.iter().any(|waiter| !waiter.admit.is_closed()));
        if !blocked && state.has_room(tenant, bytes, self.bytes_max) {
            state.reserve(tenant, bytes);
            return Admission::Admitted(self.permit(tenant.clone(), bytes));
        }
        let (admit, admitted) = oneshot::channel();
        state.tenants.entry(tenant.clone()).or_default().waiters.push_back(Waiter { bytes, admit });
        Admission::Full(admitted)
    }

    fn permit(self: &Arc<Self>, tenant: TenantId, bytes: usize) -> Permit {
        Permit { window: Arc::clone(self), tenant, bytes, used: false }
    }

    /// The next message by the order of turns.
    pub(super) fn pop(&self) -> Option<Member> {
        self.state.lock().pop()
    }

    /// Gives room back, and lets in who waits for it.
    pub(super) fn release(self: &Arc<Self>, released: impl IntoIterator<Item = (TenantId, usize)>) {
        let admitted = {
            let mut state = self.state.lock();
            for (tenant, bytes) in released {
                state.give_back(&tenant, bytes);
            }
            state.admit_waiters(self.bytes_max)
        };
        for (waiter, tenant) in admitted {
            // A waiter that went away drops its permit here, outside of the lock that the drop takes.
            drop(waiter.admit.send(self.permit(tenant, waiter.bytes)));
        }
    }

    /// Returns when there may be something to pop.
    pub(super) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Lets nobody in any more; what is in still leaves.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.tenants.values_mut().for_each(|share| share.waiters.clear());
        drop(state);
        self.ready.notify_one();
    }

    /// Whether it is closed, so that an empty one stays empty.
    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// What is in it.
    pub(super) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }
}

impl State {
    fn has_room(&self, tenant: &TenantId, bytes: usize, bytes_max: usize) -> bool {
        let own = self.tenants.get(tenant);
        let newcomers = usize::from(own.is_none());
        let share = bytes_max / (self.tenants.len() + newcomers + 1);
        let used = own.map_or(0, |own| own.bytes);
        (used == 0 || used + bytes <= share) && self.bytes + bytes <= bytes_max
    }

    fn reserve(&mut self, tenant: &TenantId, bytes: usize) {
        self.bytes += bytes;
        match self.tenants.get_mut(tenant) {
            Some(share) => share.bytes += bytes,
            None => drop(self.tenants.insert(tenant.clone(), Share { bytes, ..Share::default() })),
        }
    }

    fn give_back(&mut self, tenant: &TenantId, bytes: usize) {
        self.bytes -= bytes;
        if let Some(share) = self.tenants.get_mut(tenant) {
            share.bytes -= bytes;
            if share.bytes == 0 && share.waiters.is_empty() {
                self.tenants.remove(tenant);
            }
        }
    }

    /// Waiters that have room now, one a tenant in turn, as long as one more has.
    fn admit_waiters(&mut self, bytes_max: usize) -> Vec<(Waiter, TenantId)> {
        let mut admitted = Vec::new();
        let waiting = |share: &Share| !share.waiters.is_empty();
        let mut turns: VecDeque<TenantId> = self
            .tenants
            .iter()
            .filter(|(_, share)| waiting(share))
            .map(|(tenant, _)| tenant.clone())
            .collect();
        while let Some(tenant) = turns.pop_front() {
            let Some(share) = self.tenants.get_mut(&tenant) else { continue };
            while share.waiters.front().is_some_and(|waiter| waiter.admit.is_closed()) {
                share.waiters.pop_front();
            }
            let Some(bytes) = share.waiters.front().map(|waiter| waiter.bytes) else {
                self.give_back(&tenant, 0);
                continue;
            };
            if !self.has_room(&tenant, bytes, bytes_max) {
                continue;
            }
            self.reserve(&tenant, bytes);
            if let Some(waiter) = self.tenants.get_mut(&tenant).and_then(|share| share.waiters.pop_front()) {
                admitted.push((waiter, tenant.clone()));
                turns.push_back(tenant);
            }
        }
        admitted
    }

    fn pop(&mut self) -> Option<Member> {
        loop {
            let tenant = self.ring.front()?;
            let share = self.tenants.get_mut(tenant);
            match share.and_then(Share::turn) {
                Some(Turn::Take(member)) => return Some(*member),
                Some(Turn::Over) => self.ring.rotate_left(1),
                None => drop(self.ring.pop_front()),
            }
        }
    }
}

enum Turn {
    Take(Box<Member>),
    Over,
}

impl Share {
    /// `None` where nothing is queued.
    fn turn(&mut self) -> Option<Turn> {
        let Some(next) = self.queue.front().map(|member| member.bytes) else {
            self.deficit = 0;
            return None;
        };
        if next > self.deficit {
            self.deficit += QUANTUM;
            return Some(Turn::Over);
        }
        self.deficit -= next;
        self.queue.pop_front().map(|member| Turn::Take(Box::new(member)))
    }
}

impl Permit {
    /// Queues a message in this room.
    pub(super) fn push(mut self, message: Message, source: Source, reply: oneshot::Sender<Result<Accepted>>) {
        self.used = true;
        let mut state = self.window.state.lock();
        if state.closed {
            drop(state);
            self.used = false; // dropping `reply` tells the caller
            return;
        }
        let state = &mut *state;
        if let Some(share) = state.tenants.get_mut(&self.tenant) {
            if share.queue.is_empty() {
                state.ring.push_back(self.tenant.clone());
            }
            share.queue.push_back(Member { message, source, reply, bytes: self.bytes });
        }
        self.window.ready.notify_one();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.used {
            self.window.release([(self.tenant.clone(), self.bytes)]);
        }
    }
}

/// About what a message takes in memory, with its queue entry and its reply.
fn footprint(message: &Message) -> usize {
    const ENTRY: usize = size_of::<Member>() + 96; // the reply's shared cell
    const READING: usize = size_of::<weir_core::Reading>();
    const VALUE: usize = size_of::<(Arc<str>, Value)>();
    let heap = |value: &Value| match value {
        Value::String(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Double(_) | Value::Int64(_) | Value::Bool(_) => 0,
    };
    let values = message.readings.iter().flat_map(|reading| &reading.values);
    ENTRY
        + message.readings.len() * READING
        + values.map(|(name, value)| VALUE + name.len() + heap(value)).sum::<usize>()
}
