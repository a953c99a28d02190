//! Ends commands whose time is over, and later removes them: driven by an index in the order of those times, so that
//! neither a restart nor an absent device matters.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use weir_core::{
    Error, ErrorKind, Partition, Position, Result, Timestamp, Uid, json,
    port::{KeyRange, Write},
};
use weir_runtime::marks::Mark;

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

/// What this process knows of the timers of each partition.
pub(crate) struct Timers {
    known: Mutex<Vec<Known>>,
    lowered: Notify,
}

/// Of a partition.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// When the next one is due.
    next: Timestamp,
    /// Before it there is none: a look begins there. What was handled leaves a trail of deletions behind, which an engine
    /// may have to step over one by one; the CQL servers refuse to after 100,000.
    low: Timestamp,
}

impl Known {
    const NOTHING: Self = Self { next: Timestamp::MIN, low: Timestamp::MIN };
}

impl Timers {
    /// Looks at every partition first.
    pub(crate) fn new(partitions: u16) -> Self {
        Self { known: Mutex::new(vec![Known::NOTHING; usize::from(partitions)]), lowered: Notify::new() }
    }

    /// Looks at every partition again: what was taken as due may not have been handled.
    fn forget(&self) {
        self.known.lock().fill(Known::NOTHING);
    }

    /// Something is due at `due`; it is in the store already.
    pub(crate) fn lower(&self, partition: Partition, due: Timestamp) {
        let mut known = self.known.lock();
        let Some(known) = known.get_mut(usize::from(partition.0)) else { return };
        known.low = known.low.min(due);
        if due < known.next {
            known.next = due;
            self.lowered.notify_one();
        }
    }

    /// Where a look at a partition begins. Whatever comes meanwhile lowers it for the next look.
    fn begin(&self, partition: Partition) -> Timestamp {
        let mut known = self.known.lock();
        known
            .get_mut(usize::from(partition.0))
            .map_or(Timestamp::MIN, |known| std::mem::replace(&mut known.low, Timestamp::MAX))
    }

    /// A look at a partition found that there is none before `low`, except what came meanwhile.
    fn end(&self, partition: Partition, low: Timestamp) {
        if let Some(known) = self.known.lock().get_mut(usize::from(partition.0)) {
            known.low = known.low.min(low);
        }
    }

    /// The partitions where something is due, of those that `owns` says are this replica's; until they are lowered again,
    /// nothing is. Whoever becomes the owner of one lowers it.
    fn take_due(&self, now: Timestamp, owns: impl Fn(Partition) -> bool) -> Vec<Partition> {
        let mut due = Vec::new();
        for (partition, known) in (0..).map(Partition).zip(self.known.lock().iter_mut()) {
            if known.next <= now {
                known.next = Timestamp::MAX;
                due.push(partition);
            }
        }
        due.retain(|partition| owns(*partition));
        due
    }
}

/// What became of a timer.
enum Fired {
    Done,
    /// Its command is on its way into the store.
    NotCopied,
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
                let from = self.timers.begin(partition);
                let (low, next) = match self.sweep_partition(partition, from).await {
                    Ok(swept) => swept,
                    Err(error) => {
                        tracing::warn!(%partition, %error, "cannot end commands whose time is over; will try again");
                        (from, Some(self.clock.now().saturating_add(RETRY_AFTER)))
                    }
                };
                self.timers.end(partition, low);
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

    /// Handles what is due since `from`, at most a page, and tells how far it came and when the next one is.
    async fn sweep_partition(
        &self,
        partition: Partition,
        from: Timestamp,
    ) -> Result<(Timestamp, Option<Timestamp>)> {
        let range = KeyRange { from: timer_key(from, Uid::from_u128(0)), ..KeyRange::all() };
        let timers: Vec<(_, Timer)> = self.store.scan(TIMERS, &timer_place(partition), range, PAGE).await?;
        let now = self.clock.now();
        let full = timers.len() == PAGE;
        let (due, later): (Vec<_>, Vec<_>) =
            timers.into_iter().map(|(_, timer)| timer).partition(|timer| timer.due <= now);
        let low = due.last().map_or(from, |last| last.due);
        let fired = stream::iter(due).map(|timer| self.fire(partition, timer)).buffer_unordered(WIDTH);
        let (mut failed, mut waits) = (None, false);
        for done in fired.collect::<Vec<_>>().await {
            match done {
                Ok(Fired::Done) => {}
                Ok(Fired::NotCopied) => waits = true,
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if waits {
            return Ok((from, Some(now.saturating_add(RETRY_AFTER))));
        }
        Ok((low, later.first().map(|timer| timer.due).or(full.then_some(now))))
    }

    async fn fire(&self, partition: Partition, timer: Timer) -> Result<Fired> {
        let place = timer_place(partition);
        let done = Write::delete(timer_key(timer.due, timer.entry.id));
        // Before the command is looked for: else it may be copied in between.
        let copied = self.is_copied(partition, timer.entry.position);
        let there = !timer.remove && self.expire(&timer).await?;
        if !there && !timer.remove && !copied {
            return Ok(Fired::NotCopied);
        }
        if !there {
            self.remove(&timer).await?;
            return self.store.commit(TIMERS, &place, vec![done]).await.map(|()| Fired::Done);
        }
        let due = timer.due.saturating_add(self.config.retention);
        let id = timer.entry.id;
        let removal = Timer { due, remove: true, ..timer };
        let writes = vec![done, Write::put(timer_key(due, id), json::to_bytes(&removal)?)];
        self.store.commit(TIMERS, &place, writes).await?;
        self.timers.lower(partition, due);
        Ok(Fired::Done)
    }

    /// Whether some owner has copied the log up to there. Until then a command that is not in the store is about to be: what
    /// leads to it is written first.
    fn is_copied(&self, partition: Partition, position: Position) -> bool {
        let mark = self.marks.watch(partition).map(|mark| *mark.borrow()).unwrap_or_default();
        mark >= Mark { generation: position.generation, sequence: position.sequence }
    }

    /// Ends a command, if it has not ended. False where there is none: a crash left its index without it, or it is being
    /// copied.
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

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: Partition = Partition(1);

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn a_look_begins_where_the_last_one_came_to_and_before_whatever_came_since() {
        let timers = Timers::new(2);
        assert_eq!(timers.begin(PARTITION), Timestamp::MIN, "the first look begins at the beginning");
        timers.end(PARTITION, at(10));
        assert_eq!(timers.begin(PARTITION), at(10));
        timers.lower(PARTITION, at(5)); // during the look, which may have passed it
        timers.end(PARTITION, at(20));
        assert_eq!(timers.begin(PARTITION), at(5));
        timers.end(PARTITION, at(20));
        timers.lower(PARTITION, at(30));
        assert_eq!(timers.begin(PARTITION), at(20), "what comes later does not raise it");
        timers.end(PARTITION, at(20));
        timers.lower(PARTITION, at(7));
        assert_eq!(timers.begin(PARTITION), at(7));
        timers.end(PARTITION, at(7)); // a look that failed

        assert_eq!(timers.begin(PARTITION), at(7));
        timers.end(PARTITION, at(40));
        timers.lower(PARTITION, Timestamp::MIN); // it has a new owner
        assert_eq!(timers.begin(PARTITION), Timestamp::MIN);
        timers.end(PARTITION, at(40));
        timers.forget();
        assert_eq!(timers.begin(PARTITION), Timestamp::MIN);
        assert_eq!(timers.begin(Partition(0)), Timestamp::MIN, "partitions are apart");
    }
}
