//! Watch: what has not ended, then every change.
//!
//! A cursor is an instant: whoever resumes gets each command that changed since, less a margin for commits that were under
//! way, so a change may be told twice but is never missed; the store is enough for it, also after a restart.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{
    sync::{
        broadcast::{Receiver, error::RecvError},
        mpsc,
    },
    time::Instant,
};
use weir_core::{
    DeviceId, Error, ErrorKind, Result, TenantId, Timestamp, Uid, command::Command, port::KeyRange,
};

use crate::{
    Service,
    hub::{Change, Heard},
    list::Cursor as ListCursor,
    store::{Entry, OPEN, day_of, position_key},
};

/// Messages that wait for a reader, each up to 256 KiB; behind them changes wait where they take next to nothing.
const QUEUE: usize = 16;
/// A reader that takes nothing for so long is gone.
const SEND_MAX: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Longer than a commit takes and clocks differ.
const MARGIN: Duration = Duration::from_secs(5);
/// Commands that a resumed stream looks at; with more a new snapshot is cheaper.
const RESUME_MAX: usize = 20_000;
const PAGE: usize = 256;

/// What a reader is told.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// A command as it is now.
    Command(Box<Command>),
    /// The snapshot is complete.
    Synced,
    /// Nothing happened.
    Heartbeat,
}

/// Where a stream can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cursor {
    /// Inside of the snapshot: from its beginning.
    Snapshot,
    /// After the changes until then.
    After(Timestamp),
}

impl Cursor {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Snapshot => Vec::new(),
            Self::After(at) => at.as_micros().to_be_bytes().to_vec(),
        }
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        match (bytes.is_empty(), <[u8; 8]>::try_from(bytes)) {
            (true, _) => Ok(Self::Snapshot),
            (false, Ok(micros)) => Ok(Self::After(Timestamp::from_micros(i64::from_be_bytes(micros)))),
            (false, Err(_)) => Err(Error::invalid(
                "resume_cursor",
                "CURSOR_INVALID",
                "resume_cursor is not one that a stream gave",
            )),
        }
    }
}

/// What is told, and the cursor after it; an error is the last.
pub(crate) type Item = std::result::Result<(Told, Cursor), (Error, Cursor)>;

/// Which commands a reader watches.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) tenant: TenantId,
    pub(crate) device: Option<DeviceId>,
}

impl Scope {
    fn has(&self, to: &weir_core::command::DeviceKey) -> bool {
        to.tenant == self.tenant && self.device.as_ref().is_none_or(|device| to.device == *device)
    }
}

impl Service {
    /// Starts a stream; it ends with its reader, or with the service.
    pub(crate) fn watch(self: &Arc<Self>, scope: Scope, resume: Cursor) -> mpsc::Receiver<Item> {
        let (sender, reader) = mpsc::channel(QUEUE + 1);
        let service = Arc::clone(self);
        self.tasks.spawn(async move {
            let last_word = sender.clone().reserve_owned().await; // always room to say why it ends
            let changes = service.hub.listen_to(&scope.tenant);
            let mut feed = Feed { changes, service, scope, sender, cursor: resume, told_at: Instant::now() };
            if let (Err(error), Ok(last_word)) = (feed.run(resume).await, last_word) {
                last_word.send(Err((error, feed.cursor)));
            }
        });
        reader
    }
}

struct Feed {
    service: Arc<Service>,
    scope: Scope,
    changes: Receiver<Heard>,
    sender: mpsc::Sender<Item>,
    cursor: Cursor,
    told_at: Instant,
}

impl Feed {
    async fn run(&mut self, resume: Cursor) -> Result<()> {
        let began = self.service.clock.now();
        match resume {
            Cursor::Snapshot => self.snapshot().await?,
            Cursor::After(at) => self.changed_since(at.saturating_sub(MARGIN)).await?,
        }
        self.tell(Told::Synced, Cursor::After(began)).await?;
        let stop = self.service.stop_intake.clone();
        loop {
            let change = tokio::select! {
                () = stop.cancelled() => return Err(Error::unavailable("this process ends; go on at another with the cursor")),
                () = self.sender.closed() => return Ok(()),
                change = tokio::time::timeout_at(self.told_at + HEARTBEAT, self.changes.recv()) => change,
            };
            match change {
                Ok(Ok(Some(change))) => self.tell_change(&change).await?,
                Ok(Ok(None)) => self.look_again(began).await?,
                Ok(Err(RecvError::Lagged(missed))) => return Err(slow(missed)),
                Ok(Err(RecvError::Closed)) => return Ok(()),
                Err(_) => self.tell(Told::Heartbeat, Cursor::After(self.service.clock.now())).await?,
            }
        }
    }

    /// Every command that has not ended, oldest first.
    async fn snapshot(&mut self) -> Result<()> {
        let mut range = KeyRange::all();
        loop {
            let tenant = self.scope.tenant.clone();
            let found: Vec<(_, Entry)> =
                self.service.store.scan(OPEN, tenant.as_str().as_bytes(), range.clone(), PAGE).await?;
            let Some((_, last)) = found.last() else { return Ok(()) };
            range = range.after(&position_key(last.position));
            let entries = found.into_iter().map(|(_, entry)| entry).filter(|entry| self.scope.has(&entry.to));
            for (_, command) in self.service.load(entries.collect()).await? {
                if !command.state.is_final() {
                    self.tell(Told::Command(Box::new(command)), Cursor::Snapshot).await?;
                }
            }
        }
    }

    /// Every command that changed since, oldest first.
    async fn changed_since(&mut self, since: Timestamp) -> Result<()> {
        let (mut changed, mut before, mut read) = (Vec::new(), None, 0);
        loop {
            let entries = self.service.daily_entries(&self.scope.tenant, before, PAGE).await?;
            let Some(last) = entries.last() else { break };
            before = Some(ListCursor { day: day_of(last.created_at), position: last.position });
            read += entries.len();
            if read > RESUME_MAX {
                return Err(Error::new(
                    ErrorKind::FailedPrecondition,
                    "CURSOR_TOO_OLD",
                    format!("more than {RESUME_MAX} commands would have to be looked at; start without resume_cursor"),
                )
                .with_field("resume_cursor")
                .with_limit(RESUME_MAX));
            }
            let entries = entries.into_iter().filter(|entry| self.scope.has(&entry.to)).collect();
            let loaded = self.service.load(entries).await?;
            changed.extend(
                loaded
                    .into_iter()
                    .filter(|(_, command)| changed_at(command) >= since)
                    .map(|(entry, _)| entry),
            );
        }
        let mut told: HashSet<Uid> = HashSet::new();
        while let Some(entry) = changed.pop() {
            for (entry, command) in self.service.load(vec![entry]).await? {
                if told.insert(entry.id) {
                    self.tell(Told::Command(Box::new(command)), self.cursor).await?;
                }
            }
        }
        Ok(())
    }

    /// Changes may be missing: tells everything since the last that was told for certain.
    async fn look_again(&mut self, began: Timestamp) -> Result<()> {
        let since = match self.cursor {
            Cursor::After(at) => at,
            Cursor::Snapshot => began,
        };
        self.changed_since(since.saturating_sub(MARGIN)).await
    }

    async fn tell_change(&mut self, change: &Change) -> Result<()> {
        if !self.scope.has(&change.to) {
            return Ok(());
        }
        match self.service.store.command(&change.to, change.id).await? {
            Some(found) => self.tell(Told::Command(Box::new(found.value)), Cursor::After(change.at)).await,
            None => Ok(()),
        }
    }

    async fn tell(&mut self, told: Told, cursor: Cursor) -> Result<()> {
        match tokio::time::timeout(SEND_MAX, self.sender.send(Ok((told, cursor)))).await {
            Ok(_) => {
                self.told_at = Instant::now();
                self.cursor = cursor; // a reader that went away is seen by the loop
                Ok(())
            }
            Err(_) => Err(slow(0)),
        }
    }
}

fn slow(missed: u64) -> Error {
    Error::new(
        ErrorKind::ResourceExhausted,
        "SLOW_READER",
        format!("the reader is too slow, {missed} changes were passed over; go on with the cursor"),
    )
}

fn changed_at(command: &Command) -> Timestamp {
    [command.sent_at, command.delivered_at, command.finished_at]
        .into_iter()
        .flatten()
        .fold(command.request.created_at, Timestamp::max)
}
