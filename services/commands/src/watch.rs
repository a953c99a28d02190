//! Watch: what has not ended, then every change.
//!
//! A cursor is an instant up to which everything was told for certain: whoever resumes gets each command that changed since,
//! less a margin for commits that were under way, so a change may be told twice but is never missed; the store is enough for
//! it, also after a restart.
//!
//! Signals are hints, and some are lost without a word. So only a complete reading of the store moves the cursor: one at the
//! beginning, one at each gap that is seen, and one each [`LOOK_EVERY`]. What a stream knows to be open keeps such a reading
//! small: nothing else can have changed but what was created since.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{
        broadcast::{Receiver, error::RecvError},
        mpsc,
    },
    time::Instant,
};
use weir_core::{
    DeviceId, Error, ErrorKind, Position, Result, TenantId, Timestamp, Uid,
    command::{Command, State},
    port::KeyRange,
};

use crate::{
    Service,
    hub::{Change, Heard},
    list::{Cursor as ListCursor, TTL_MAX},
    store::{Entry, OPEN, day_of, position_key},
};

/// Messages that wait for a reader, each up to 256 KiB; behind them changes wait where they take next to nothing.
const QUEUE: usize = 16;
/// A reader that takes nothing for so long is gone.
const SEND_MAX: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Longer than a commit takes and clocks differ.
const MARGIN: Duration = Duration::from_secs(5);
/// A change of which no signal told is told within this time.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Changes that one reading tells at about 200 bytes each until they are told; with more a new snapshot is cheaper.
const CHANGED_MAX: usize = 20_000;
/// Commands that a stream remembers, at about 250 bytes each: 8 MiB. Those that have ended, remembered until the next reading
/// so that it does not tell them again, take half of it at most. Where more are open, each reading looks at all that may
/// have been open.
const KNOWN_MAX: usize = 32_768;
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
            let mut feed = Feed::new(service, scope, changes, sender, resume);
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
    /// Moved by complete readings only.
    cursor: Cursor,
    told_at: Instant,
    looked_at: Instant,
    /// Those that are open, and those that ended since the last reading.
    known: HashMap<Uid, Known>,
    /// Whether every command that was open at the last reading is known.
    knows_open: bool,
    /// One that is open could not be remembered.
    overflowed: bool,
}

/// A command as it was told last, or found and not told.
struct Known {
    entry: Entry,
    version: Version,
}

/// What changes with a command: when it changed last, and into which state.
type Version = (Timestamp, State);

impl Feed {
    fn new(
        service: Arc<Service>,
        scope: Scope,
        changes: Receiver<Heard>,
        sender: mpsc::Sender<Item>,
        cursor: Cursor,
    ) -> Self {
        let now = Instant::now();
        Self {
            service,
            scope,
            changes,
            sender,
            cursor,
            told_at: now,
            looked_at: now,
            known: HashMap::new(),
            knows_open: false,
            overflowed: false,
        }
    }

    async fn run(&mut self, resume: Cursor) -> Result<()> {
        let began = self.service.clock.now();
        match resume {
            Cursor::Snapshot => self.snapshot().await?,
            Cursor::After(at) => self.changed_since(at.saturating_sub(MARGIN)).await?,
        }
        self.is_certain(began);
        self.tell(Told::Synced).await?;
        let stop = self.service.stop_intake.clone();
        loop {
            if self.looked_at.elapsed() >= LOOK_EVERY {
                self.look_again().await?;
            }
            let wake = (self.told_at + HEARTBEAT).min(self.looked_at + LOOK_EVERY);
            let change = tokio::select! {
                () = stop.cancelled() => return Err(Error::unavailable("this process ends; go on at another with the cursor")),
                () = self.sender.closed() => return Ok(()),
                change = tokio::time::timeout_at(wake, self.changes.recv()) => change,
            };
            match change {
                Ok(Ok(Some(change))) => self.tell_change(&change).await?,
                Ok(Ok(None)) => self.look_again().await?,
                Ok(Err(RecvError::Lagged(missed))) => return Err(slow(missed)),
                Ok(Err(RecvError::Closed)) => return Ok(()),
                Err(_) if self.told_at.elapsed() >= HEARTBEAT => self.tell(Told::Heartbeat).await?,
                Err(_) => {}
            }
        }
    }

    /// Every command that has not ended, oldest first.
    async fn snapshot(&mut self) -> Result<()> {
        let mut range = KeyRange::all();
        while let Some((entries, next)) = self.open_page(range).await? {
            range = next;
            for (entry, command) in self.service.load(entries).await? {
                if !command.state.is_final() {
                    self.tell_command(entry, command).await?;
                }
            }
        }
        Ok(())
    }

    /// A page of what is open in this scope, and the range after it.
    async fn open_page(&self, range: KeyRange) -> Result<Option<(Vec<Entry>, KeyRange)>> {
        let place = self.scope.tenant.as_str().as_bytes();
        let found: Vec<(_, Entry)> = self.service.store.scan(OPEN, place, range.clone(), PAGE).await?;
        let Some((_, last)) = found.last() else { return Ok(None) };
        let next = range.after(&position_key(last.position));
        let entries = found.into_iter().map(|(_, entry)| entry).filter(|entry| self.scope.has(&entry.to));
        Ok(Some((entries.collect(), next)))
    }

    /// Signals may have been lost: tells everything that changed since the last complete reading.
    async fn look_again(&mut self) -> Result<()> {
        let Cursor::After(certain) = self.cursor else { return Ok(()) };
        let began = self.service.clock.now();
        self.changed_since(certain.saturating_sub(MARGIN)).await?;
        self.is_certain(began);
        Ok(())
    }

    /// Everything that changed before `began` is told.
    fn is_certain(&mut self, began: Timestamp) {
        let since = began.saturating_sub(MARGIN);
        self.known.retain(|_, known| !known.version.1.is_final() || known.version.0 >= since);
        self.knows_open = !std::mem::take(&mut self.overflowed);
        self.cursor = Cursor::After(began);
        self.looked_at = Instant::now();
    }

    /// Every command that changed since and was not told, oldest first. What changed was open then, or was created since;
    /// where it is not known what was open, everything that may have been is looked at.
    async fn changed_since(&mut self, since: Timestamp) -> Result<()> {
        let mut changed = BTreeMap::new();
        let known: Vec<Entry> = self.known.values().map(|known| known.entry.clone()).collect();
        for page in known.chunks(PAGE) {
            self.look_at(page.to_vec(), since, &mut changed).await?;
        }
        let mut range = KeyRange::all();
        while let Some((entries, next)) = self.open_page(range).await? {
            range = next;
            self.look_at(self.unknown(entries), since, &mut changed).await?;
        }
        let from = if self.knows_open { since } else { since.saturating_sub(TTL_MAX) };
        let mut before = None;
        loop {
            let entries =
                self.service.daily_entries(&self.scope.tenant, before, Some(day_of(from)), PAGE).await?;
            let Some(last) = entries.last() else { break };
            before = Some(ListCursor { day: day_of(last.created_at), position: last.position });
            // Their order is that of the log, which is nearly that of their times: a page tells, one command does not.
            let newer = entries.iter().any(|entry| entry.created_at >= from);
            let entries = entries.into_iter().filter(|entry| self.scope.has(&entry.to)).collect();
            self.look_at(self.unknown(entries), since, &mut changed).await?;
            if !newer {
                break;
            }
        }
        for entry in changed.into_values() {
            for (entry, command) in self.service.load(vec![entry]).await? {
                self.tell_command(entry, command).await?;
            }
        }
        Ok(())
    }

    fn unknown(&self, mut entries: Vec<Entry>) -> Vec<Entry> {
        entries.retain(|entry| !self.known.contains_key(&entry.id));
        entries
    }

    /// Finds what of these must be told; remembers what is open.
    async fn look_at(
        &mut self,
        entries: Vec<Entry>,
        since: Timestamp,
        changed: &mut BTreeMap<Position, Entry>,
    ) -> Result<()> {
        for (entry, command) in self.service.load(entries).await? {
            let version = version_of(&command);
            let is_news = match self.known.get(&entry.id) {
                Some(known) => known.version != version,
                // One that is copied long after it was sent is older than it looks.
                None => version.0 >= since || (self.knows_open && !command.state.is_final()),
            };
            if !is_news {
                self.remember(entry, version);
            } else if changed.len() < CHANGED_MAX {
                changed.insert(entry.position, entry);
            } else {
                return Err(too_old());
            }
        }
        Ok(())
    }

    fn remember(&mut self, entry: Entry, version: Version) {
        let is_final = version.1.is_final();
        let room = if is_final { KNOWN_MAX / 2 } else { KNOWN_MAX };
        if self.known.len() < room || self.known.contains_key(&entry.id) {
            self.known.insert(entry.id, Known { entry, version });
        } else {
            self.overflowed |= !is_final;
        }
    }

    async fn tell_change(&mut self, change: &Change) -> Result<()> {
        if !self.scope.has(&change.to) {
            return Ok(());
        }
        match self.service.store.command(&change.to, change.id).await? {
            Some(found) => self.tell_command(Entry::of(&found.value), found.value).await,
            None => Ok(()),
        }
    }

    async fn tell_command(&mut self, entry: Entry, command: Command) -> Result<()> {
        let version = version_of(&command);
        self.tell(Told::Command(Box::new(command))).await?;
        self.remember(entry, version);
        Ok(())
    }

    async fn tell(&mut self, told: Told) -> Result<()> {
        match tokio::time::timeout(SEND_MAX, self.sender.send(Ok((told, self.cursor)))).await {
            Ok(_) => {
                self.told_at = Instant::now(); // a reader that went away is seen by the loop
                Ok(())
            }
            Err(_) => Err(slow(0)),
        }
    }
}

fn too_old() -> Error {
    Error::new(
        ErrorKind::FailedPrecondition,
        "CURSOR_TOO_OLD",
        format!("more than {CHANGED_MAX} commands changed since; start without resume_cursor"),
    )
    .with_field("resume_cursor")
    .with_limit(CHANGED_MAX)
}

fn slow(missed: u64) -> Error {
    Error::new(
        ErrorKind::ResourceExhausted,
        "SLOW_READER",
        format!("the reader is too slow, {missed} changes were passed over; go on with the cursor"),
    )
}

fn version_of(command: &Command) -> Version {
    let changed_at = [command.sent_at, command.delivered_at, command.finished_at]
        .into_iter()
        .flatten()
        .fold(command.request.created_at, Timestamp::max);
    (changed_at, command.state)
}
