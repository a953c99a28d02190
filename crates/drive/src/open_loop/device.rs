//! One device of the load: its schedule, its window, and what it does where an answer does not come.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_core::{Error, Result};

use super::{Felt, Options, Sender};
use crate::{
    Edge,
    edge::{Refused, answer},
    ledger::Gaps,
    random::Random,
};

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// A fleet that comes back must find its server within seconds, and not hammer one that is down.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// A message that finds no place in the connection for so long is on a connection that is dead.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// A late message is overtaken by at most so many.
const HELD_MAX: u64 = 200;
/// Corrections that wait; past it none are made.
const CORRECTIONS_MAX: usize = 1_000;

/// What the devices of one load share.
pub(super) struct Shared {
    pub(super) felt: Arc<Felt>,
    pub(super) gaps: Arc<Gaps>,
    pub(super) stop: CancellationToken,
}

/// Some consecutive readings in one version.
#[derive(Debug, Clone, Copy)]
struct Message {
    first: u32,
    count: u32,
    version: u8,
}

type Answered = (Message, Result<Refused>);

/// One device under way.
pub(super) struct Runner {
    sender: Sender,
    options: Options,
    random: Random,
    shared: Shared,
    begin: Instant,
    period: Duration,
    /// Messages of the schedule that have left or are held.
    scheduled: u64,
    next_sequence: u32,
    /// To be sent again, or as a correction.
    backlog: VecDeque<Message>,
    /// Held back, until the schedule has come so far.
    held: VecDeque<(u64, Message)>,
    under_way: FuturesUnordered<BoxFuture<'static, Answered>>,
    settle_until: Option<Instant>,
}

impl Runner {
    pub(super) fn new(sender: Sender, options: Options, number: u64, begin: Instant, shared: Shared) -> Self {
        Self {
            random: Random::fork(options.seed, number),
            period: Duration::from_secs_f64(1.0 / options.rate.max(0.001)),
            sender,
            options,
            shared,
            begin,
            scheduled: 0,
            next_sequence: 0,
            backlog: VecDeque::new(),
            held: VecDeque::new(),
            under_way: FuturesUnordered::new(),
            settle_until: None,
        }
    }

    pub(super) async fn run(mut self) {
        let (mut backoff, mut turn) = (BACKOFF_FIRST, self.random.below(64) as usize);
        while !self.is_done() {
            let place = turn.checked_rem(self.sender.places.len()).and_then(|at| self.sender.places.get(at));
            let Some(place) = place else { return };
            let (via, account) = (self.sender.via, &self.sender.account);
            let ended = match Edge::open(place, via, account.device(), &self.sender.token).await {
                Ok(edge) => self.pump(&edge, &mut backoff).await,
                Err(error) => Err(error),
            };
            let Err(error) = ended else { return };
            self.shared.felt.complain(&error);
            self.shared.felt.reconnects.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let jitter = Duration::from_millis(self.random.below(50));
            tokio::time::sleep(error.retry_after().unwrap_or(backoff).min(BACKOFF_MAX) + jitter).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
            turn += 1;
            self.observe_stop();
        }
    }

    /// Whether the schedule has ended and nothing is left to do, or no time to do it.
    fn is_done(&self) -> bool {
        self.settle_until.is_some_and(|until| {
            Instant::now() > until || self.under_way.is_empty() && self.backlog.is_empty()
        })
    }

    fn observe_stop(&mut self) {
        if self.settle_until.is_some() || !self.shared.stop.is_cancelled() {
            return;
        }
        self.settle_until = Some(Instant::now() + self.options.settle);
        self.backlog.extend(self.held.drain(..).map(|(_, message)| message));
        let due = self.begin.elapsed().div_duration_f64(self.period) as u64;
        let behind = due.saturating_sub(self.scheduled);
        self.shared.felt.behind.fetch_add(behind, std::sync::atomic::Ordering::Relaxed);
    }

    /// Sends by the schedule and takes answers until everything is done, or the connection fails; then every message that
    /// was under way has its answer, or is known to have none.
    async fn pump(&mut self, edge: &Edge, backoff: &mut Duration) -> Result<()> {
        let mut broken: Option<Error> = None;
        loop {
            self.observe_stop();
            if let Some(error) = broken.take_if(|_| self.under_way.is_empty()) {
                return Err(error);
            }
            if self.is_done() {
                return Ok(());
            }
            let room = broken.is_none() && self.under_way.len() < self.options.window.max(1);
            let scheduling = self.settle_until.is_none() && self.sender.account.has_room(self.next_sequence);
            let due = self.begin + self.period.mul_f64(self.scheduled as f64);
            let stop = self.shared.stop.clone();
            let stopping = self.settle_until.is_some();
            let sent = tokio::select! {
                biased;
                Some((message, outcome)) = self.under_way.next() => {
                    match self.answered(message, outcome) {
                        Some(error) => broken = broken.or(Some(error)),
                        None => *backoff = BACKOFF_FIRST,
                    }
                    Ok(())
                }
                () = std::future::ready(()), if room && !self.backlog.is_empty() => match self.backlog.pop_front() {
                    Some(message) => self.send(edge, message).await,
                    None => Ok(()),
                },
                () = tokio::time::sleep_until(due), if room && scheduling => {
                    self.shared.felt.left(due.elapsed());
                    match self.next_message() {
                        Some(message) => self.send(edge, message).await,
                        None => Ok(()), // it is held back
                    }
                }
                () = stop.cancelled(), if !stopping => Ok(()),
                // Without anything to wait for, only the end of the time to settle is left.
                () = tokio::time::sleep(BACKOFF_MAX) => Ok(()),
            };
            if let Err(error) = sent {
                broken = broken.or(Some(error));
            }
        }
    }

    /// The next message of the schedule: a held one whose time has come, else a new one, unless that is held back.
    fn next_message(&mut self) -> Option<Message> {
        self.scheduled += 1;
        if self.held.front().is_some_and(|(until, _)| *until <= self.scheduled) {
            return self.held.pop_front().map(|(_, message)| message);
        }
        let message = Message { first: self.next_sequence, count: self.options.batch.max(1), version: 0 };
        self.next_sequence = self.next_sequence.saturating_add(message.count);
        if self.options.late_one_in > 0 && self.random.once_in(self.options.late_one_in) {
            self.held.push_back((self.scheduled + 1 + self.random.below(HELD_MAX), message));
            return None;
        }
        Some(message)
    }

    async fn send(&mut self, edge: &Edge, message: Message) -> Result<()> {
        let account = &self.sender.account;
        let readings = account.attempt(message.first, message.count, message.version);
        self.shared.felt.tally.sent(readings.len());
        match tokio::time::timeout(SEND_TIMEOUT, edge.send(&readings)).await {
            Ok(Ok(mut pending)) => {
                self.under_way.push(async move { (message, answer(&mut pending).await) }.boxed());
                Ok(())
            }
            Ok(Err(error)) => {
                self.unanswered(message);
                Err(error)
            }
            Err(_) => {
                self.unanswered(message);
                Err(Error::unavailable("the connection took no message for too long"))
            }
        }
    }

    /// Notes an answer; gives the error after which the connection is not to be used any more.
    fn answered(&mut self, message: Message, outcome: Result<Refused>) -> Option<Error> {
        match outcome {
            Ok(refused) => {
                for sequence in message.first..message.first.saturating_add(message.count) {
                    let index = (sequence - message.first) as usize;
                    match refused.iter().find(|(refused, _)| *refused == index) {
                        None => self.acked(sequence, message.version),
                        Some((_, error)) => {
                            self.refused(Message { first: sequence, count: 1, ..message }, error)
                        }
                    }
                }
                None
            }
            Err(error) => {
                self.refused(message, &error);
                error.kind().retryable().then_some(error)
            }
        }
    }

    fn acked(&mut self, sequence: u32, version: u8) {
        self.sender.account.ack(sequence, version);
        self.shared.felt.tally.acknowledged(1);
        self.shared.gaps.acked(self.sender.via);
        let correct = self.options.correct_one_in > 0 && self.random.once_in(self.options.correct_one_in);
        if correct
            && self.settle_until.is_none()
            && self.backlog.len() < CORRECTIONS_MAX
            && self.sender.account.entry(sequence).correctable()
        {
            self.backlog.push_back(Message { first: sequence, count: 1, version: version + 1 });
        }
    }

    fn refused(&mut self, message: Message, error: &Error) {
        self.shared.felt.complain(error);
        if error.kind().retryable() {
            // "Not now" is not "never": an engine that did not answer in time may still have it.
            self.unanswered(message);
            return;
        }
        self.shared.felt.tally.refused(error);
        for sequence in message.first..message.first.saturating_add(message.count) {
            self.sender.account.refuse(sequence);
        }
    }

    fn unanswered(&mut self, message: Message) {
        self.sender.account.lose_answer(message.first, message.count);
        let abandon = self.options.abandon_one_in > 0 && self.random.once_in(self.options.abandon_one_in);
        if !abandon {
            self.backlog.push_back(message);
        }
    }
}
