//! The loop of an owner.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_core::{
    Error, Position, Result, Timestamp,
    port::{Batch, LogReader},
};

use super::{change::Change, checkpoint::Pointer, recover::Owned};

/// Bytes of frames of one read: a full frame or two.
const READ_BYTES: usize = 512 * 1024;
/// How long a read waits for a frame.
const READ_WAIT: Duration = Duration::from_secs(1);
/// Progress of a partition without anything new: the log keeps an hour, so there is no hurry.
const IDLE_EVERY: Duration = Duration::from_secs(5);
/// Silence is measured so often.
const TICK_EVERY: Duration = Duration::from_secs(1);
/// Signals are hints: what none told is found out within this.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// How exactly the time is known in which nobody listened, where silence matters.
const ALIVE_EVERY: Duration = Duration::from_secs(30);
/// A checkpoint is at most one part in so many of the time.
const CHECKPOINT_SHARE: u32 = 20;
/// What a start after a crash reads again at most.
const CHECKPOINT_MAX: Duration = Duration::from_secs(60);

type Reading = BoxFuture<'static, (Box<dyn LogReader>, Result<Batch>)>;

impl Owned {
    /// Evaluates until it is stopped, then records its state.
    ///
    /// # Errors
    /// Whatever goes wrong: begin again from the checkpoint.
    pub(super) async fn run(&mut self, stop: &CancellationToken) -> Result<()> {
        let shared = std::sync::Arc::clone(&self.shared);
        let reader = self.reader.take().ok_or_else(|| Error::internal("an owner runs once"))?;
        // A read is never dropped while it is under way, so an engine need not care.
        let mut reading = read(reader, Duration::ZERO);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                (reader, batch) = &mut reading => {
                    let batch = batch?;
                    let end = batch.end;
                    let stored_at = batch.records.last().map(|last| last.stored_at);
                    if batch.records.is_empty() {
                        self.idle(batch.end).await?;
                    } else {
                        self.take(batch.records).await?;
                    }
                    self.tell_lag(end, stored_at);
                    // Only a read that comes back empty at once says that nothing is unread.
                    reading = read(reader, if self.caught_up { READ_WAIT } else { Duration::ZERO });
                }
                () = shared.bells.wait(self.partition), if self.settled() => self.look(false).await?,
                () = tokio::time::sleep_until(self.due()), if self.caught_up => {}
            }
            self.do_due().await?;
        }
        self.checkpoint().await
    }

    /// `stored_at`: when the log stored the last of what was just evaluated; none where nothing was unread.
    fn tell_lag(&self, end: u64, stored_at: Option<Timestamp>) {
        let behind = &self.shared.metrics.behind;
        behind.reached(self.partition, stored_at.unwrap_or_else(|| self.shared.clock.now()));
        let reached = self.next_position().sequence.saturating_sub(1);
        let behind = i64::try_from(end.saturating_sub(reached)).unwrap_or(i64::MAX);
        self.shared.metrics.lag.with_label_values(&[&self.partition.to_string()]).set(behind);
    }

    /// Nothing is unread.
    async fn idle(&mut self, end: u64) -> Result<()> {
        self.follows(end)?;
        self.apply_pending(None).await?;
        self.caught_up = true;
        self.horizons.clear();
        self.end_outage(self.next_position()).await?;
        let generation = self.follows(end)?;
        self.progress.idle_through(generation, end);
        Ok(())
    }

    /// Records, for whoever reads again, until when nobody listened: from `from` on, where nothing was evaluated before.
    pub(super) async fn end_outage(&mut self, from: Position) -> Result<()> {
        let Some(since) = self.memory.outage.take().filter(|_| self.memory.uses_absent()) else {
            return Ok(());
        };
        let until = self.shared.clock.now();
        self.record(from, vec![Change::Outage { since, until }]).await
    }

    /// Whether everything that was recorded before is applied again, so that changes can be taken in at any time.
    fn settled(&self) -> bool {
        self.list.pending.is_empty() && self.horizons.is_empty()
    }

    fn due(&self) -> Instant {
        let times = &self.times;
        let mut due = times.tick_due.min(times.sweep_due);
        if self.memory.is_dirty() {
            due = due.min(times.checkpoint_due);
        }
        due
    }

    async fn do_due(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.settled() && now >= self.times.sweep_due {
            self.times.sweep_due = now + SWEEP_EVERY;
            self.look(true).await?;
            self.sweep().await?;
        }
        if self.caught_up && now >= self.times.tick_due {
            self.times.tick_due = now + TICK_EVERY;
            self.tick(now).await?;
        }
        let moved = self.progress != *self.claim.progress();
        if (self.memory.is_dirty() && now >= self.times.checkpoint_due)
            || (moved && now >= self.times.idle_due)
        {
            self.checkpoint().await?;
        }
        Ok(())
    }

    async fn tick(&mut self, now: Instant) -> Result<()> {
        if !self.memory.uses_absent() {
            return Ok(());
        }
        let (effects, changed) = self.memory.tick(self.shared.clock.now());
        self.effect(effects).await?;
        // What silence did is not in the log: it must be recorded before anything else happens.
        if changed || now >= self.times.alive_due {
            self.times.alive_due = now + ALIVE_EVERY;
            self.checkpoint().await?;
        }
        Ok(())
    }

    /// Records the state and moves progress over what was evaluated.
    async fn checkpoint(&mut self) -> Result<()> {
        let began = Instant::now();
        let _timed = self.shared.metrics.checkpoint.start_timer();
        let pointer = Pointer {
            number: 0,
            applied: self.applied,
            alive_at: self.shared.clock.now(),
            evaluated: self.evaluated,
        };
        let surplus = self.list.surplus(self.checkpoints.pointer.applied);
        let dirty = self.memory.take_dirty()?;
        self.shared.metrics.holds(self.partition, self.memory.open_alarms(), self.memory.devices.len());
        self.checkpoints.save(&mut self.claim, self.progress.clone(), pointer, dirty, surplus).await?;
        let took = began.elapsed();
        let pause = (took * CHECKPOINT_SHARE).clamp(
            self.shared.config.checkpoint_interval,
            CHECKPOINT_MAX.max(self.shared.config.checkpoint_interval),
        );
        let now = Instant::now();
        (self.times.checkpoint_due, self.times.idle_due) = (now + pause, now + pause.max(IDLE_EVERY));
        Ok(())
    }
}

fn read(mut reader: Box<dyn LogReader>, wait: Duration) -> Reading {
    Box::pin(async move {
        let batch = reader.next(READ_BYTES, wait).await;
        (reader, batch)
    })
}
