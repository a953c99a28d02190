//! One device's readings, in order, until each is answered: what is not acknowledged is sent again over a new connection.
//!
//! Readings carry their own time, so sending one again is the same reading to the server.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use weir_core::{Error, ErrorKind, Result};

use crate::{
    Edge, Place, Reading, Tally, Via,
    edge::{Pending, answer},
};

/// Batches that wait for their lane; past it whoever reads the file waits.
const QUEUE: usize = 4;
/// Messages of one device under way.
const WINDOW: usize = 16;
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Who sends, and over what.
#[derive(Clone)]
pub struct Sender {
    /// Where to.
    pub place: Place,
    /// Over what.
    pub via: Via,
    /// The device's id.
    pub device: String,
    /// The device's token (not used over gRPC).
    pub token: String,
    /// How long to go on trying while nobody answers.
    pub patience: Duration,
}

/// A lane that takes batches.
pub struct Lane {
    batches: mpsc::Sender<Vec<Reading>>,
    task: JoinHandle<Result<()>>,
}

impl Lane {
    /// Opens a lane.
    pub fn open(sender: Sender, tally: Arc<Tally>) -> Self {
        let (batches, receiver) = mpsc::channel(QUEUE);
        let runner = Runner { sender, tally, backlog: VecDeque::new(), under_way: VecDeque::new() };
        Self { batches, task: tokio::spawn(runner.run(receiver)) }
    }

    /// Puts a batch into the lane; waits while it is full. A lane that has given up takes no more.
    pub async fn send(&self, batch: Vec<Reading>) -> bool {
        self.batches.send(batch).await.is_ok()
    }

    /// Waits until everything is answered.
    ///
    /// # Errors
    /// Why it gave up; what was not answered is in the tally as lost.
    pub async fn finish(self) -> Result<()> {
        drop(self.batches);
        self.task.await.map_err(|source| Error::internal("a lane panicked").with_source(source))?
    }
}

/// Does something that can be done twice until it succeeds, for as long as `patience` lasts.
///
/// # Errors
/// What cannot succeed by trying again, or the last failure when patience is over.
pub async fn patiently<T>(patience: Duration, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let mut patience = Patience::new(patience);
    loop {
        match attempt().await {
            Err(error) => patience.again(error).await?,
            done => return done,
        }
    }
}

/// Counts the waits between attempts; what [`patiently`] is made of, for tasks that are spawned.
pub struct Patience {
    until: Instant,
    backoff: Duration,
}

impl Patience {
    /// Lasts so long from now on.
    pub fn new(length: Duration) -> Self {
        Self { until: Instant::now() + length, backoff: BACKOFF_FIRST }
    }

    /// Waits before the next attempt after this failure.
    ///
    /// # Errors
    /// The failure itself, where another attempt cannot help or patience is over.
    pub async fn again(&mut self, error: Error) -> Result<()> {
        if !error.kind().retryable() || Instant::now() > self.until {
            return Err(error);
        }
        tokio::time::sleep(error.retry_after().unwrap_or(self.backoff)).await;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        Ok(())
    }
}

struct Runner {
    sender: Sender,
    tally: Arc<Tally>,
    /// To be sent, again or for the first time.
    backlog: VecDeque<Vec<Reading>>,
    under_way: VecDeque<(Vec<Reading>, Pending)>,
}

impl Runner {
    async fn run(mut self, mut batches: mpsc::Receiver<Vec<Reading>>) -> Result<()> {
        let (mut backoff, mut since) = (BACKOFF_FIRST, Instant::now());
        loop {
            let before = self.tally.acknowledged_count();
            let ended = match Edge::open(
                &self.sender.place,
                self.sender.via,
                &self.sender.device,
                &self.sender.token,
            )
            .await
            {
                Ok(edge) => self.pump(&edge, &mut batches).await,
                Err(error) => Err(error),
            };
            let Err(error) = ended else { return Ok(()) };
            if self.tally.acknowledged_count() > before {
                (backoff, since) = (BACKOFF_FIRST, Instant::now()); // it goes forward
            }
            if !error.kind().retryable() || since.elapsed() > self.sender.patience {
                self.give_up(&mut batches).await;
                return Err(error);
            }
            while let Some((batch, _)) = self.under_way.pop_back() {
                self.backlog.push_front(batch);
            }
            tokio::time::sleep(error.retry_after().unwrap_or(backoff)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Sends and takes answers until everything is answered, or the connection fails.
    async fn pump(&mut self, edge: &Edge, batches: &mut mpsc::Receiver<Vec<Reading>>) -> Result<()> {
        let mut more = true;
        loop {
            while self.under_way.len() < WINDOW
                && let Some(batch) = self.backlog.pop_front()
            {
                match edge.send(&batch).await {
                    Ok(pending) => self.under_way.push_back((batch, pending)),
                    Err(error) => {
                        self.backlog.push_front(batch);
                        return Err(error);
                    }
                }
            }
            let room = self.under_way.len() < WINDOW;
            match self.under_way.front_mut() {
                None if !more => return Ok(()),
                None => match batches.recv().await {
                    Some(batch) => self.accept(batch),
                    None => more = false,
                },
                Some((_, pending)) => {
                    tokio::select! {
                        biased;
                        batch = batches.recv(), if room && more => match batch {
                            Some(batch) => self.accept(batch),
                            None => more = false,
                        },
                        outcome = answer(pending) => self.answered(outcome)?,
                    }
                }
            }
        }
    }

    fn accept(&mut self, batch: Vec<Reading>) {
        self.tally.sent(batch.len());
        self.backlog.push_back(batch);
    }

    fn answered(&mut self, outcome: Result<crate::edge::Refused>) -> Result<()> {
        match outcome {
            Ok(refused) => {
                if let Some((batch, _)) = self.under_way.pop_front() {
                    self.tally.acknowledged(batch.len() - refused.len());
                    refused.iter().for_each(|(_, error)| self.tally.refused(error));
                }
                Ok(())
            }
            Err(error) if error.kind().retryable() || error.kind() == ErrorKind::Unauthenticated => {
                Err(error)
            }
            Err(error) => {
                // The whole message was refused for some of it: one by one shows for which.
                match self.under_way.pop_front() {
                    Some((batch, _)) if batch.len() > 1 => {
                        batch.into_iter().rev().for_each(|one| self.backlog.push_front(vec![one]));
                    }
                    Some(_) => self.tally.refused(&error),
                    None => {}
                }
                Ok(())
            }
        }
    }

    async fn give_up(&mut self, batches: &mut mpsc::Receiver<Vec<Reading>>) {
        batches.close();
        let known: usize =
            self.backlog.iter().chain(self.under_way.iter().map(|(batch, _)| batch)).map(Vec::len).sum();
        self.tally.lost(known);
        while let Some(batch) = batches.recv().await {
            self.tally.sent(batch.len());
            self.tally.lost(batch.len());
        }
    }
}
