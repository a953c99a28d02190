//! `TestRule`: the same engine over stored readings, which acts on nothing.
//!
//! From a stored rule's start it applies the change lists of the partitions as their owners did, so it comes to what
//! fired. From any other start, or for a rule that is not stored, it is a simulation.

mod device;
mod plan;

use std::sync::Arc;

use tokio::sync::mpsc;
use weir_core::{DeviceId, Error, Result, TenantId, Timestamp, id::ResourceId};
use weir_rules::{Rule, Transition};

use crate::{Service, admission::Permit};

/// Answers that wait for a slow caller; then the test waits.
const QUEUE: usize = 16;
/// Transitions of one answer.
const BATCH: usize = 100;
/// Devices that a test may name.
pub(crate) const DEVICES_MAX: usize = 1_000;

/// Which rule.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    Stored(ResourceId),
    Given(Box<Rule>),
}

/// What to test.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) tenant: TenantId,
    pub(crate) subject: Subject,
    /// All that the rule selects, if empty.
    pub(crate) devices: Vec<DeviceId>,
    pub(crate) from: Option<Timestamp>,
    pub(crate) to: Option<Timestamp>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Summary {
    pub(crate) devices: u64,
    pub(crate) readings: u64,
    pub(crate) unknown: u64,
    pub(crate) exact: bool,
    pub(crate) note: String,
}

/// A part of the answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Transitions(Vec<Transition>),
    Summary(Summary),
}

/// Where answers go; ends the test when nobody takes them any more.
pub(super) struct Sink {
    answers: mpsc::Sender<Result<Answer>>,
    batch: Vec<Transition>,
}

impl Sink {
    async fn put(&mut self, transition: Transition) -> Result<()> {
        self.batch.push(transition);
        if self.batch.len() >= BATCH { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        self.send(Answer::Transitions(batch)).await
    }

    async fn send(&mut self, answer: Answer) -> Result<()> {
        self.answers.send(Ok(answer)).await.map_err(|_| {
            Error::new(weir_core::ErrorKind::Cancelled, "CANCELLED", "the caller of a test went away")
        })
    }
}

impl Service {
    /// Tests a rule; the answers end with a summary.
    pub(crate) async fn test_rule(
        self: &Arc<Self>,
        request: Request,
    ) -> Result<mpsc::Receiver<Result<Answer>>> {
        let permit: Permit = self.tests.enter(&request.tenant)?;
        let plan = self.plan_test(request).await?;
        let (answers, receiver) = mpsc::channel(QUEUE);
        let (service, closing) = (Arc::clone(self), self.closing.clone());
        self.tasks.spawn(async move {
            let _permit = permit;
            let mut sink = Sink { answers: answers.clone(), batch: Vec::new() };
            let run = async {
                let summary = service.run_test(plan, &mut sink).await?;
                sink.flush().await?;
                sink.send(Answer::Summary(summary)).await
            };
            let ended = closing.run_until_cancelled(run).await;
            let closed = || Err(Error::unavailable("this server is about to end; try another"));
            if let Err(error) = ended.unwrap_or_else(closed) {
                // The caller may be gone, or not read while this server ends.
                tokio::select! {
                    biased;
                    _ = answers.send(Err(error)) => {}
                    () = closing.cancelled() => {}
                }
            }
        });
        Ok(receiver)
    }
}
