//! Messages to the log, in frames.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot;
use weir_core::{Error, Message, Position, Result};

/// The log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Of the message's last reading.
    pub(crate) position: Position,
}

/// A message under way; resolves when the log has it or it is refused. Dropping it does not take the message back.
pub(crate) struct Pending(oneshot::Receiver<Result<Accepted>>);

impl Future for Pending {
    type Output = Result<Accepted>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|answer| answer.unwrap_or_else(|_| Err(Error::unavailable("ingest is stopping"))))
    }
}

/// The frame path: one frame in flight for each partition.
pub(crate) struct Intake {}

impl Intake {
    /// Waits for room in the window, then for the log: for callers that can wait.
    pub(crate) async fn submit(&self, message: Message) -> Result<Accepted> {
        self.enqueue(message).await?.await
    }

    /// Waits for room in the window (that is the backpressure: stop reading meanwhile); what it returns resolves with the
    /// log's ack. Messages of one caller keep their order.
    pub(crate) async fn enqueue(&self, _message: Message) -> Result<Pending> {
        Err(Error::internal("skeleton"))
    }

    /// As [`Intake::enqueue`], but at the bound it is refused with `INTAKE_FULL` and a time to retry.
    pub(crate) fn try_submit(&self, _message: Message) -> Result<Pending> {
        Err(Error::internal("skeleton"))
    }
}
