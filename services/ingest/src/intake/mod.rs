//! Messages to the log, in frames: one frame in flight for each partition.
//!
//! The next frame of a partition leaves when the ack of the one before returns, with all that came meanwhile: no timer,
//! the log's own latency is the batching. What waits is bounded ([`window`]); at the bound a caller waits
//! ([`Intake::enqueue`]), or for a while and is then refused ([`Intake::enqueue_within`]).

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_core::{
    Error, ErrorKind, Message, Partition, Position, Result, TenantId, Timestamp,
    port::{Log, Records},
};

use self::{
    generations::Numbering,
    partition::Publisher,
    window::{Admission, Permit, Window},
};
use crate::{
    config::IntakeConfig,
    metrics::{Metrics, Protocol},
};

mod generations;
mod partition;
mod tally;
#[cfg(test)]
mod tests;
mod window;

/// An owner may raise a generation at any time; positions follow within this.
const RENUMBER_EVERY: Duration = Duration::from_secs(30);
/// How full the windows are is counted so often: between two scrapes.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A frame's time on a slow log.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Of the message's last reading.
    pub(crate) position: Position,
}

/// How a message came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    /// Over what.
    pub(crate) protocol: Protocol,
    /// As how many bytes of payload.
    pub(crate) bytes: u64,
    /// When it was taken in.
    pub(crate) at: Instant,
}

impl Source {
    /// A message that is taken in now.
    pub(crate) fn now(protocol: Protocol, bytes: usize) -> Self {
        Self { protocol, bytes: bytes as u64, at: Instant::now() }
    }
}

/// A message under way; resolves when the log has it or it is refused. Dropping it does not take the message back.
#[derive(Debug)]
pub(crate) struct Pending(oneshot::Receiver<Result<Accepted>>);

impl Future for Pending {
    type Output = Result<Accepted>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or_else(|_| Err(stopping())))
    }
}

/// The frame path.
pub(crate) struct Intake {
    windows: Vec<Arc<Window>>,
    window_bytes: usize,
    metrics: Arc<Metrics>,
    publishers: TaskTracker,
    stop: CancellationToken,
}

impl Intake {
    /// Starts one task for each partition.
    ///
    /// # Errors
    /// `FailedPrecondition` for a changed partition count; `Unavailable` of store or log.
    pub(crate) async fn start(
        config: &IntakeConfig,
        log: Arc<dyn Log>,
        records: Arc<dyn Records>,
        partitions: u16,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let numbering = Arc::new(Numbering::open(records, Arc::clone(&log), partitions).await?);
        let window_bytes = config.window.as_usize();
        let intake = Self {
            windows: (0..partitions).map(|_| Arc::new(Window::new(window_bytes))).collect(),
            window_bytes,
            metrics: Arc::clone(&metrics),
            publishers: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        intake.tell_capacity();
        for (partition, window) in (0..partitions).map(Partition).zip(&intake.windows) {
            let publisher = Publisher {
                partition,
                window: Arc::clone(window),
                log: Arc::clone(&log),
                numbering: Arc::clone(&numbering),
                config: config.clone(),
                metrics: Arc::clone(&metrics),
                stop: intake.stop.clone(),
                stale: false,
                event_time: Timestamp::MIN,
                renumber_at: Instant::now(),
            };
            intake.publishers.spawn(publisher.run());
        }
        let (stop, windows) = (intake.stop.clone(), intake.windows.clone());
        let may_wait = window_bytes.saturating_mul(windows.len()).max(1) as f64;
        intake.publishers.spawn(async move {
            while tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
                let waits: usize = windows.iter().map(|window| window.bytes()).sum();
                metrics.window.used.set(waits as f64 / may_wait);
            }
        });
        let stop = intake.stop.clone();
        intake.publishers.spawn(async move {
            while tokio::time::timeout(RENUMBER_EVERY, stop.cancelled()).await.is_err() {
                if let Err(error) = numbering.refresh().await {
                    tracing::warn!(%error, "cannot read the generations again");
                }
            }
        });
        Ok(intake)
    }

    /// What may wait, and how what does is read.
    fn tell_capacity(&self) {
        let window = &self.metrics.window;
        let may_wait = self.window_bytes.saturating_mul(self.windows.len());
        window.capacity.set(i64::try_from(may_wait).unwrap_or(i64::MAX));
        let windows = self.windows.clone();
        window.bytes.by(move || windows.iter().map(|window| window.bytes()).sum::<usize>() as f64);
    }

    /// Waits for room in the window (that is the backpressure: stop reading meanwhile); what it returns resolves with the
    /// log's ack. Messages of one caller keep their order.
    ///
    /// # Errors
    /// `MESSAGE_TOO_LARGE`; `Unavailable` while ingest stops. The [`Pending`] fails with what the log says:
    /// `ResourceExhausted` (`LOG_FULL`) with a time to retry, `Unavailable` where it was away for too long.
    pub(crate) async fn enqueue(&self, message: Message, source: Source) -> Result<Pending> {
        weir_frame::check(&message)?;
        let window = self.window(&message)?;
        let permit = match window.admit(&message.tenant, window.cost(&message)) {
            Admission::Admitted(permit) => permit,
            Admission::Full(admitted) => {
                self.metrics.window.waits.inc();
                admitted.await.map_err(|_| stopping())?
            }
            Admission::Closed => return Err(stopping()),
        };
        Ok(push(permit, message, source))
    }

    /// As [`Intake::enqueue`], for callers whose protocol can say "later": waits no longer than `patience` for room.
    ///
    /// # Errors
    /// As [`Intake::enqueue`]; at the bound `ResourceExhausted` (`INTAKE_FULL`) with a time to retry.
    pub(crate) async fn enqueue_within(
        &self,
        message: Message,
        source: Source,
        patience: Duration,
    ) -> Result<Pending> {
        let tenant = message.tenant.clone();
        match tokio::time::timeout(patience, self.enqueue(message, source)).await {
            Ok(done) => done,
            Err(_) => Err(full(&tenant, self.window_bytes)),
        }
    }

    /// No more waiting for a log that is away: each frame has one more attempt.
    pub(crate) fn hurry(&self) {
        self.stop.cancel();
    }

    /// Takes nothing more, and returns when all that was taken is answered.
    pub(crate) async fn drain(&self) {
        self.windows.iter().for_each(|window| window.close());
        self.hurry();
        self.publishers.close();
        self.publishers.wait().await;
    }

    /// What waits for the log, in bytes.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.windows.iter().map(|window| window.bytes()).sum()
    }

    fn window(&self, message: &Message) -> Result<&Arc<Window>> {
        let partitions = u16::try_from(self.windows.len()).unwrap_or(u16::MAX);
        let partition = Partition::of(message.uid, partitions);
        self.windows
            .get(usize::from(partition.0))
            .ok_or_else(|| Error::internal(format!("partition {partition} has no window")))
    }
}

fn push(permit: Permit, message: Message, source: Source) -> Pending {
    let (reply, answer) = oneshot::channel();
    permit.push(message, source, reply);
    Pending(answer)
}

fn stopping() -> Error {
    Error::unavailable("ingest is stopping")
}

fn full(tenant: &TenantId, window_bytes: usize) -> Error {
    Error::new(
        ErrorKind::ResourceExhausted,
        "INTAKE_FULL",
        format!(
            "tenants/{tenant} has filled its share of the {window_bytes} bytes that may wait for a partition of the log"
        ),
    )
    .with_limit(window_bytes)
    .with_retry_after(FULL_RETRY_AFTER)
}
