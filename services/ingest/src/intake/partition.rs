//! One partition's task: fill a frame, publish it, answer its members, and again.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use weir_core::{
    Error, ErrorKind, Partition, Result, Stream, TenantId, Timestamp, Uid,
    port::{LOG_FAILED, Log},
};
use weir_frame::Encoder;

use super::{Accepted, Source, generations::Numbering, tally::Tally, window::Window};
use crate::{config::IntakeConfig, metrics::Metrics};

/// The first pause before a frame is published again: about a broker's election heartbeat.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest such pause, so that a log that comes back is used within it: an attempt costs a log that is away nothing.
const RETRY_MAX: Duration = Duration::from_millis(500);
/// When a caller that was refused because the log did not answer may come again.
const AWAY_RETRY_AFTER: Duration = Duration::from_secs(5);
/// A full log has room again after the next trim at the earliest.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(10);

/// How long members of a durable frame wait for its generation: many times what reading it takes.
const RENUMBER_MAX: Duration = Duration::from_secs(1);
/// Then it is left alone for this, so that a store that is away does not hold up frame after frame.
const RENUMBER_PAUSE: Duration = Duration::from_secs(5);

/// Publishes the frames of one partition, one at a time.
pub(super) struct Publisher {
    pub(super) partition: Partition,
    pub(super) window: Arc<Window>,
    pub(super) log: Arc<dyn Log>,
    pub(super) numbering: Arc<Numbering>,
    pub(super) config: IntakeConfig,
    pub(super) metrics: Arc<Metrics>,
    /// Ends retries: a process that stops does not wait for a log that is away.
    pub(super) stop: CancellationToken,
    /// The log was away since the generations were read.
    pub(super) stale: bool,
    /// The newest event time that the log has from here.
    pub(super) event_time: Timestamp,
    /// Not before this they are read again.
    pub(super) renumber_at: Instant,
}

/// A frame that is ready to leave.
struct Frame {
    bytes: Bytes,
    readings: u32,
    members: Vec<Waiting>,
    /// The newest event time in it.
    event_time: Timestamp,
}

/// Who waits for a member of a frame.
struct Waiting {
    reply: oneshot::Sender<Result<Accepted>>,
    /// Index in the frame of the message's last reading.
    last: u32,
    tenant: TenantId,
    bytes: usize,
    source: Source,
    readings: u64,
}

impl Publisher {
    /// Runs until the window is closed and empty.
    pub(super) async fn run(mut self) {
        loop {
            let closed = self.window.is_closed(); // read before the fill: what came before the close is in the frame
            match self.fill() {
                Some(frame) => {
                    let outcome = self.publish(&frame).await;
                    self.answer(frame.members, outcome);
                }
                None if closed => return,
                None => self.window.ready().await,
            }
        }
    }

    /// All that waits, up to a full frame.
    fn fill(&self) -> Option<Frame> {
        let mut encoder = Encoder::new();
        let mut members: Vec<Waiting> = Vec::new();
        let mut event_time = Timestamp::MIN;
        while !encoder.is_full()
            && let Some(member) = self.window.pop()
        {
            match encoder.push(&member.message) {
                Ok(first) => {
                    let readings = &member.message.readings;
                    event_time = readings.iter().map(|reading| reading.ts).fold(event_time, Timestamp::max);
                    members.push(Waiting {
                        reply: member.reply,
                        last: first + u32::try_from(readings.len().saturating_sub(1)).unwrap_or(0),
                        readings: readings.len() as u64,
                        tenant: member.message.tenant,
                        bytes: member.bytes,
                        source: member.source,
                    });
                }
                Err(error) => {
                    drop(member.reply.send(Err(error))); // the caller may be gone
                    self.window.release([(member.message.tenant, member.bytes)]);
                }
            }
        }
        let readings = encoder.readings();
        let oldest = members.iter().map(|member| member.source.at).min()?;
        self.metrics.frames.wait.observe(oldest.elapsed().as_secs_f64());
        Some(Frame { bytes: encoder.finish(), readings, members, event_time })
    }

    /// Publishes a frame under one id until the log has it, refuses it, or the time is up.
    async fn publish(&mut self, frame: &Frame) -> Result<u64> {
        let id = Uid::random();
        let began = Instant::now();
        let mut pause = RETRY_MIN;
        loop {
            match self.attempt(id, frame.bytes.clone()).await {
                Ok(sequence) => {
                    self.count(frame, began.elapsed());
                    self.renumber().await;
                    return Ok(sequence);
                }
                Err(error) if !retryable(&error) => return Err(refusal(error)),
                Err(error) => {
                    self.stale = true;
                    self.metrics.frames.retries.inc();
                    if pause == RETRY_MIN {
                        tracing::warn!(partition = %self.partition, %error, "the log is away; publishing again");
                    }
                    if began.elapsed() + pause > self.config.retry_for || self.stop.is_cancelled() {
                        tracing::error!(partition = %self.partition, %error, "a frame is refused: the log is away");
                        return Err(error.context("the log is away"));
                    }
                }
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.stop.cancelled() => {} // one last attempt
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// The log has a frame.
    fn count(&mut self, frame: &Frame, took: Duration) {
        let frames = &self.metrics.frames;
        frames.published.inc();
        frames.readings.inc_by(u64::from(frame.readings));
        frames.bytes.observe(frame.bytes.len() as f64);
        frames.members.observe(frame.members.len() as f64);
        frames.publish.observe(took.as_secs_f64());
        if frame.event_time > self.event_time {
            self.event_time = frame.event_time;
            let newest = frames.event_time.with_label_values(&[&self.partition.to_string()]);
            newest.set(frame.event_time.as_micros() as f64 / 1e6);
        }
    }

    async fn attempt(&self, id: Uid, bytes: Bytes) -> Result<u64> {
        let limit = self.config.publish_timeout;
        match timeout(limit, self.log.publish(Stream::Readings, self.partition, id, bytes)).await {
            Ok(done) => done,
            Err(_) => Err(Error::unavailable(format!("the log did not answer within {} s", limit.as_secs()))
                .with_retry_after(AWAY_RETRY_AFTER)),
        }
    }

    /// Reads the generations again where the log was away. Where that fails, or takes long because the store is away, the
    /// frame is durable all the same: its members are answered by what is known, and a later frame asks again.
    async fn renumber(&mut self) {
        if !self.stale || Instant::now() < self.renumber_at {
            return;
        }
        match timeout(RENUMBER_MAX, self.numbering.refresh()).await {
            Ok(Ok(())) => {
                self.stale = false;
                return;
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot read the generations again"),
            Err(_) => tracing::warn!("the generations cannot be read in time"),
        }
        self.renumber_at = Instant::now() + RENUMBER_PAUSE;
    }

    fn answer(&self, members: Vec<Waiting>, outcome: Result<u64>) {
        let mut released = Vec::with_capacity(members.len());
        if outcome.is_ok() {
            let mut tally = Tally::new(&self.metrics);
            members.iter().for_each(|member| tally.acked(&member.tenant, &member.source, member.readings));
            tally.add();
        }
        for member in members {
            let answer = match &outcome {
                Ok(sequence) => {
                    Ok(Accepted { position: self.numbering.position(self.partition, *sequence, member.last) })
                }
                Err(error) => Err(error.clone()),
            };
            drop(member.reply.send(answer)); // the caller may be gone
            released.push((member.tenant, member.bytes));
        }
        self.window.release(released);
    }
}

/// Whether the same frame may be published again. A full log is not waited for: its callers can wait better. Nor is one
/// that has stopped: only a restart makes it go on.
fn retryable(error: &Error) -> bool {
    error.reason() != LOG_FAILED
        && matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::DeadlineExceeded | ErrorKind::Aborted)
}

/// What the members of a frame that the log refuses are told.
fn refusal(error: Error) -> Error {
    match error.reason() {
        "LOG_FULL" if error.retry_after().is_none() => error.with_retry_after(FULL_RETRY_AFTER),
        _ => error,
    }
}
