//! Ends commands whose time is over, and later removes them: driven by an index in the order of those times, so that
//! neither a restart nor an absent device matters.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::ready, stream};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use weir_core::{
    Error, ErrorKind, Partition, Result, Timestamp, json,
    port::{KeyRange, Write},
};

use crate::{
    Service,
    machine::Event,
    store::{
        DEVICES, NAMES, TENANTS, TIMERS, TO, Timer, command_key, day_of, day_place, device_place, listed_key,
        name_place, pending_key, position_key, timer_key, timer_place,
    },
};

/// Timers that one look at a partition takes.
const PAGE: usize = 256;
/// Commands that are ended at once: an engine syncs them together.
const WIDTH: usize = 32;
/// How often the clock is looked at; no store is asked before something is due.
const TICK: Duration = Duration::from_millis(250);
/// How long a partition rests after the store failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// First and longest pause after everything failed: quick for a blip, and no storm.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// When the next timer of each partition is due, as far as this process knows.
pub(crate) struct Timers {
    next: Mutex<Vec<Timestamp>>,
    lowered: Notify,
}

impl Timers {
    /// Looks at every partition first.
    pub(crate) fn new(partitions: u16) -> Self {
        Self { next: Mutex::new(vec![Timestamp::MIN; usize::from(partitions)]), lowered: Notify::new() }
    }

    /// Looks at every partition again: what was taken as due may not have been handled.
    fn forget(&self) {
        self.next.lock().fill(Timestamp::MIN);
    }

    /// Something is due at `due`.
    pub(crate) fn lower(&self, partition: Partition, due: Timestamp) {
        let mut next = self.next.lock();
        if let Some(known) = next.get_mut(usize::from(partition.0))
            && due < *known
        {
            *known = due;
            self.lowered.notify_one();
        }
    }

    /// The partitions where something is due, of those that `owns` says are this replica's; until they are lowered again,
    /// nothing is. Whoever becomes the owner of one lowers it.
    fn take_due(&self, now: Timestamp, owns: impl Fn(Partition) -> bool) -> Vec<Partition> {
        let mut due = Vec::new();
        for (partition, next) in (0..).map(Partition).zip(self.next.lock().iter_mut()) {
            if *next <= now {
                *next = Timestamp::MAX;
                due.push(partition);
            }
        }
        due.retain(|partition| owns(*partition));
        due
    }
}

impl Service {
    /// Ends what is over until the service stops. A panic is a failure like any other, not work that nobody does.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut pause = BACKOFF.0;
        while !self.stop.is_cancelled() {
            let began = Instant::now();
            let ended = AssertUnwindSafe(self.sweep_all()).catch_unwind().await;
            let Err(error) = ended.unwrap_or_else(|_| Err(Error::internal("it panicked"))) else { return };
            tracing::error!(error = ?error, "ending commands whose time is over failed and begins anew");
            *self.not_swept.lock() = Some(error.to_string());
            if began.elapsed() > BACKOFF.1 {
                pause = BACKOFF.0; // it went well for a while
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(BACKOFF.1),
            }
        }
    }

    async fn sweep_all(&self) -> Result<()> {
        self.timers.forget();
        loop {
            let owns = |partition| self.ownership.owns(partition);
            for partition in self.timers.take_due(self.clock.now(), owns) {
                let next = match self.sweep_partition(partition).await {
                    Ok(next) => next,
                    Err(error) => {
                        tracing::warn!(%partition, %error, "cannot end commands whose time is over; will try again");
                        Some(self.clock.now().saturating_add(RETRY_AFTER))
                    }
                };
                if let Some(next) = next {
                    self.timers.lower(partition, next);
                }
            }
            *self.not_swept.lock() = None;
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = self.timers.lowered.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// Handles what is due, at most a page, and tells when the next one is.
    async fn sweep_partition(&self, partition: Partition) -> Result<Option<Timestamp>> {
        let timers: Vec<(_, Timer)> =
            self.store.scan(TIMERS, &timer_place(partition), KeyRange::all(), PAGE).await?;
        let now = self.clock.now();
        let full = timers.len() == PAGE;
        let (due, later): (Vec<_>, Vec<_>) =
            timers.into_iter().map(|(_, timer)| timer).partition(|timer| timer.due <= now);
        let fired = stream::iter(due).map(|timer| self.fire(partition, timer)).buffer_unordered(WIDTH);
        let failed = fired.filter_map(|done| ready(done.err())).collect::<Vec<_>>().await;
        if let Some(error) = failed.into_iter().next() {
            return Err(error);
        }
        Ok(later.first().map(|timer| timer.due).or(full.then_some(now)))
    }

    async fn fire(&self, partition: Partition, timer: Timer) -> Result<()> {
        let place = timer_place(partition);
        let done = Write::delete(timer_key(timer.due, timer.entry.id));
        let gone = timer.remove || !self.expire(&timer).await?;
        if gone {
            self.remove(&timer).await?;
            return self.store.commit(TIMERS, &place, vec![done]).await;
        }
        let due = timer.due.saturating_add(self.config.retention);
        let id = timer.entry.id;
        let removal = Timer { due, remove: true, ..timer };
        let writes = vec![done, Write::put(timer_key(due, id), json::to_bytes(&removal)?)];
        self.store.commit(TIMERS, &place, writes).await?;
        self.timers.lower(partition, due);
        Ok(())
    }

    /// Ends a command, if it has not ended. False where there is none: a crash left its index without it.
    async fn expire(&self, timer: &Timer) -> Result<bool> {
        match self.transition(&timer.entry.to, timer.entry.id, None, Event::Expired).await {
            Ok(_) => {
                self.close(&timer.entry).await?;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a command and everything that leads to it.
    async fn remove(&self, timer: &Timer) -> Result<()> {
        let entry = &timer.entry;
        let (to, position) = (&entry.to, entry.position);
        let writes = vec![
            Write::delete(command_key(entry.id)),
            Write::delete(pending_key(position)),
            Write::delete(listed_key(position)),
        ];
        self.store.commit(DEVICES, &device_place(to), writes).await?;
        let day = day_place(&to.tenant, day_of(entry.created_at));
        self.store.commit(TENANTS, &day, vec![Write::delete(position_key(position))]).await?;
        self.close(entry).await?;
        self.store.commit(NAMES, &name_place(&to.tenant, entry.id), vec![Write::delete(TO)]).await
    }
}
