//! MQTT sessions: what outlives a connection, and who is connected.
//!
//! A session is a record, written when it opens, subscribes and closes, each time only over what was read: so of two
//! connections of one client, wherever they are, the one that opened last has it, and the other changes nothing more. It
//! names the replica that holds the connection, by an id that is new at each start. A session is connected where its record
//! is not closed and that replica is there; so what a replica holds is offline as soon as the others see that it is gone,
//! and after a restart nothing counts as connected.
//!
//! `last_seen` is exact for the sessions of the replica that is asked, and [`keep::REFRESH`] behind at most for those of
//! others: each replica writes it for its own now and then, while it looks whether they are still its own.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Mutex, Notify, oneshot};
use weir_core::{
    Clock, DeviceId, Error, ErrorKind, Result, TenantId, Timestamp, Uid,
    command::DeviceKey,
    json,
    port::{Expect, KeyRange, Op, Records, Session, Signal, Signals, Write},
};

pub(crate) use self::replicas::Replicas;
use self::{
    live::{Entry, Left, Live, Owner},
    record::{Record, SESSIONS, SHARDS, key, of_device, partition, shard},
};

mod keep;
mod live;
mod record;
mod replicas;
#[cfg(test)]
mod tests;

/// Changes of one device's sessions come one after another; devices share this many locks, few enough to cost nothing and
/// enough that strangers seldom wait for each other.
const LOCKS: usize = 256;
/// More than a device may have, with those that have expired.
const OF_DEVICE_MAX: usize = 64;
/// Writers of one record meet rarely; a client whose connect loses so often in a row tries again.
const TRIES: usize = 8;
/// A replica that is not seen may be one that just came, or whose lease is late; what it left is removed no sooner than
/// this, above the 20 s after which a replica that lives is seen by all.
const UNSEEN: Duration = Duration::from_secs(30);

/// A client that connects.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    pub(crate) device: DeviceKey,
    /// At most 128 bytes; scoped to the device.
    pub(crate) client_id: String,
    /// `mqtt/3.1.1` or `mqtt/5`.
    pub(crate) protocol: &'static str,
    /// Address and port.
    pub(crate) remote: String,
    /// Whether the session starts anew.
    pub(crate) clean_start: bool,
    /// How long the session outlives its connection; already cut to the configured maximum.
    pub(crate) expiry: Duration,
}

/// Why a connection must end though its client did nothing wrong now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The same client connected again (MQTT 5: 0x8E).
    TakenOver,
    /// The device opened more sessions than it may have, and this was the oldest (0x8E).
    TooMany,
}

/// An open session. Dropped without [`Sessions::close`], it counts as disconnected now.
pub(crate) struct OpenSession {
    /// New at each connect; what the command queue knows it by.
    pub(crate) id: Session,
    /// Whether there was one to resume.
    pub(crate) present: bool,
    /// The filters of the resumed session.
    pub(crate) subscriptions: Vec<Subscription>,
    /// Resolves when the connection must end.
    pub(crate) ended: oneshot::Receiver<Ended>,
    entry: Entry,
}

/// A topic filter that a session subscribed to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Subscription {
    /// The topic filter.
    pub(crate) filter: String,
    /// The granted QoS, 0 or 1.
    pub(crate) qos: u8,
}

/// A session as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionInfo {
    pub(crate) device: DeviceId,
    pub(crate) client_id: String,
    pub(crate) connected: bool,
    pub(crate) protocol: String,
    pub(crate) remote: String,
    pub(crate) connected_at: Timestamp,
    pub(crate) last_seen: Timestamp,
    pub(crate) subscriptions: Vec<String>,
    /// Absent while connected.
    pub(crate) expires_at: Option<Timestamp>,
}

/// The sessions.
pub(crate) struct Sessions {
    records: Arc<dyn Records>,
    signals: Arc<dyn Signals>,
    clock: Arc<dyn Clock>,
    live: Arc<Live>,
    replicas: Arc<Replicas>,
    locks: Vec<Mutex<()>>,
    /// Rung where signals may have been lost.
    hurry: Notify,
    per_device: usize,
    started: Timestamp,
}

/// What opening a session writes, and what it finds.
struct Opening {
    record: Record,
    writes: Vec<Write>,
    present: bool,
    evicted: Vec<String>,
    /// Whether a connection at another replica must end.
    elsewhere: bool,
}

impl Sessions {
    pub(crate) fn new(
        records: Arc<dyn Records>,
        signals: Arc<dyn Signals>,
        clock: Arc<dyn Clock>,
        replicas: Arc<Replicas>,
        per_device: usize,
    ) -> Self {
        let started = clock.now();
        let locks = (0..LOCKS).map(|_| Mutex::default()).collect();
        let (live, hurry) = (Arc::default(), Notify::new());
        Self { records, signals, clock, live, replicas, locks, hurry, per_device, started }
    }

    /// Opens or resumes a session; an older connection of the same client ends, and so does the oldest session where the
    /// device would have more than it may, wherever they are.
    ///
    /// # Errors
    /// `Unavailable` of the store; `Aborted` where others of the device open all the time.
    pub(crate) async fn open(&self, connect: Connect) -> Result<OpenSession> {
        let DeviceKey { tenant, device, uid } = &connect.device;
        let _one = self.lock(*uid)?.lock().await;
        let place = partition(tenant, device);
        let owner = Arc::new(Owner { device: connect.device.clone(), client_id: connect.client_id.clone() });
        let mut tries = 0;
        let (Opening { record, present, evicted, elsewhere, .. }, opens) = loop {
            let mut opening = self.opening(&connect).await?;
            let writes = std::mem::take(&mut opening.writes);
            let opens = self.live.opens(&owner, opening.record.session, opening.record.connected_at);
            tries += 1;
            match self.records.commit(SESSIONS, &place, writes).await {
                Ok(_) => break (opening, opens),
                Err(error) if error.kind() == ErrorKind::Aborted => {
                    opens.settled();
                    if tries == TRIES {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        };
        let (entry, ended) = self.live.enter(owner, record.session, &evicted, record.connected_at);
        opens.settled();
        if elsewhere {
            let Record { session, client_id, .. } = record.clone();
            let DeviceKey { tenant, uid, .. } = connect.device;
            self.signals.publish(Signal::SessionOpened { tenant, uid, session, client_id, evicted }).await;
        }
        let (id, subscriptions) = (Session(record.session), record.subscriptions);
        Ok(OpenSession { id, present, subscriptions, ended, entry })
    }

    async fn opening(&self, connect: &Connect) -> Result<Opening> {
        let DeviceKey { tenant, device, uid } = &connect.device;
        let now = self.clock.now();
        let (mut writes, mut others) = (Vec::new(), Vec::new());
        let (mut own, mut known) = (Expect::Absent, None);
        let mut elsewhere = false;
        for (record, version) in self.of_device(tenant, device).await? {
            let ended = record.uid != *uid || self.has_ended(&record, now);
            if record.client_id == connect.client_id {
                own = Expect::Version(version);
                elsewhere |= self.is_held_elsewhere(&record);
                known = Some(record).filter(|_| !connect.clean_start && !ended);
            } else if record.uid != *uid || self.may_go(&record, now) {
                writes.push(delete(&record, version));
            } else if !ended {
                others.push((record, version));
            }
        }
        // Those that are not connected go first, then the one that connected first.
        others.sort_by_key(|(record, _)| (self.is_connected(record), record.connected_at));
        let excess = (others.len() + 1).saturating_sub(self.per_device);
        others.truncate(excess);
        elsewhere |= others.iter().any(|(record, _)| self.is_held_elsewhere(record));
        writes.extend(others.iter().map(|(record, version)| delete(record, *version)));
        let (present, subscriptions) = (known.is_some(), known.map(|r| r.subscriptions).unwrap_or_default());
        let record = Record {
            session: Uid::random(),
            device: device.clone(),
            uid: *uid,
            client_id: connect.client_id.clone(),
            protocol: connect.protocol.to_owned(),
            remote: connect.remote.clone(),
            connected_at: now,
            last_seen: now,
            disconnected_at: None,
            expiry_seconds: connect.expiry.as_secs(),
            subscriptions,
            subscribed_at: None,
            replica: Some(self.replicas.me()),
        };
        writes.push(Write { key: record.key(), expect: own, op: Op::Put(json::to_bytes(&record)?) });
        let evicted = others.into_iter().map(|(record, _)| record.client_id).collect();
        Ok(Opening { record, writes, present, evicted, elsewhere })
    }

    /// Records what the session is subscribed to now, all of it; durable when it returns. `anew` says that it subscribed to
    /// the device's own commands, which makes it the newest that wants them.
    ///
    /// # Errors
    /// `Unavailable` of the store.
    pub(crate) async fn subscribed(
        &self,
        session: &OpenSession,
        to: Vec<Subscription>,
        anew: bool,
    ) -> Result<()> {
        if !session.entry.is_current() {
            return Ok(()); // another connection has the session now
        }
        let now = self.clock.now();
        let change = |record: Record| {
            let subscribed_at = if anew { Some(now) } else { record.subscribed_at };
            Some(Record { subscriptions: to.clone(), subscribed_at, ..record })
        };
        self.change(session.entry.owner(), session.id.0, change).await
    }

    /// It was heard of. Costs nothing: call it for each packet.
    pub(crate) fn seen(&self, session: &OpenSession) {
        session.entry.seen(self.clock.now());
    }

    /// The connection ended; `expiry` overrides what the connect asked for (MQTT 5 DISCONNECT); zero forgets it.
    ///
    /// # Errors
    /// `Unavailable` of the store: the session then counts as disconnected here from now on, but keeps its old expiry; the
    /// store is told later.
    pub(crate) async fn close(&self, mut session: OpenSession, expiry: Option<Duration>) -> Result<()> {
        let _one = self.lock(session.entry.owner().device.uid)?.lock().await;
        self.record_end(&session.entry.left(), expiry).await?;
        session.entry.told = true;
        Ok(())
    }

    async fn record_end(&self, left: &Left, expiry: Option<Duration>) -> Result<()> {
        let now = self.clock.now();
        let change = |mut record: Record| {
            record.expiry_seconds = expiry.map_or(record.expiry_seconds, |expiry| expiry.as_secs());
            record.last_seen = left.last_seen;
            record.disconnected_at = Some(now);
            Some(record).filter(|record| record.expiry_seconds > 0)
        };
        self.change(&left.owner, left.session, change).await
    }

    /// Whether a device's session should have its commands now that nobody has them: no other that is connected subscribed
    /// to them later, by what `wants` says of its filters.
    ///
    /// # Errors
    /// `Unavailable` of the store.
    pub(crate) async fn is_next(
        &self,
        device: &DeviceKey,
        session: Session,
        wants: impl Fn(&[Subscription]) -> bool,
    ) -> Result<bool> {
        let of_device = self.of_device(&device.tenant, &device.device).await?.into_iter();
        let wanting = of_device.map(|(record, _)| record).filter(|record| {
            record.uid == device.uid && self.is_connected(record) && wants(&record.subscriptions)
        });
        let newest = wanting.max_by_key(|record| (record.wants_since(), record.session));
        Ok(newest.is_none_or(|newest| newest.session == session.0))
    }

    /// Whether another session of the device is connected.
    ///
    /// # Errors
    /// `Unavailable` of the store.
    pub(crate) async fn has_others(&self, device: &DeviceKey, session: Session) -> Result<bool> {
        let of_device = self.of_device(&device.tenant, &device.device).await?;
        Ok(of_device.iter().any(|(record, _)| {
            record.uid == device.uid && record.session != session.0 && self.is_connected(record)
        }))
    }

    /// How many replicas were lost since the start.
    pub(crate) fn replicas_lost(&self) -> u64 {
        self.replicas.lost()
    }

    /// The sessions of a device.
    ///
    /// # Errors
    /// `Unavailable` of the store.
    pub(crate) async fn of(&self, tenant: &TenantId, device: &DeviceId) -> Result<Vec<SessionInfo>> {
        let now = self.clock.now();
        let records = self.of_device(tenant, device).await?;
        Ok(records.into_iter().filter_map(|(record, _)| self.info(record, now)).collect())
    }

    /// A tenant's sessions, shard by shard in order of (device, client id), after what the page before gave: those of one page
    /// of records, and what the next page begins after, if any.
    ///
    /// # Errors
    /// `PAGE_TOKEN_INVALID` where no page gave `after`; `Unavailable` of the store.
    pub(crate) async fn list(
        &self,
        tenant: &TenantId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<(Vec<SessionInfo>, Option<Vec<u8>>)> {
        let now = self.clock.now();
        let (first, mut range) = match after.and_then(<[u8]>::split_first) {
            Some((first, key)) => (*first, KeyRange::all().after(key)),
            None => (0, KeyRange::all()),
        };
        if first >= SHARDS {
            return Err(Error::invalid(
                "page_token",
                "PAGE_TOKEN_INVALID",
                "page_token is not one that a page gave",
            ));
        }
        let (mut sessions, mut left) = (Vec::new(), limit);
        for at in first..SHARDS {
            let range = std::mem::replace(&mut range, KeyRange::all());
            let found = self.records.scan(SESSIONS, &shard(tenant, at), range, left).await?;
            for stored in &found {
                sessions.extend(self.info(Record::parse(stored)?, now));
            }
            left = left.saturating_sub(found.len());
            if let Some(last) = found.last().filter(|_| left == 0) {
                return Ok((sessions, Some([&[at], &last.key[..]].concat())));
            }
        }
        Ok((sessions, None))
    }

    fn lock(&self, uid: Uid) -> Result<&Mutex<()>> {
        let place = usize::try_from(uid.as_u128() % LOCKS as u128).unwrap_or(0);
        self.locks.get(place).ok_or_else(|| Error::internal("no lock for a session"))
    }

    /// Changes a session's record, unless another connection has the session now; `None` of `change` removes it.
    async fn change(
        &self,
        owner: &Owner,
        session: Uid,
        change: impl Fn(Record) -> Option<Record>,
    ) -> Result<()> {
        let place = partition(&owner.device.tenant, &owner.device.device);
        let key = key(&owner.device.device, &owner.client_id);
        let mut tries = 0;
        loop {
            let Some((record, version)) = self.own(owner, session).await? else { return Ok(()) };
            let op = match change(record) {
                Some(record) => Op::Put(json::to_bytes(&record)?),
                None => Op::Delete,
            };
            let write = Write { key: key.clone(), expect: Expect::Version(version), op };
            tries += 1;
            match self.records.commit(SESSIONS, &place, vec![write]).await {
                Err(error) if error.kind() == ErrorKind::Aborted && tries < TRIES => {}
                done => return done.map(drop),
            }
        }
    }

    /// A session's record, if no other connection has it now.
    async fn own(&self, owner: &Owner, session: Uid) -> Result<Option<(Record, u64)>> {
        let place = partition(&owner.device.tenant, &owner.device.device);
        let key = key(&owner.device.device, &owner.client_id);
        let Some(stored) = self.records.get(SESSIONS, &place, &key).await? else { return Ok(None) };
        let record = Record::parse(&stored)?;
        Ok((record.session == session).then_some((record, stored.version)))
    }

    async fn of_device(&self, tenant: &TenantId, device: &DeviceId) -> Result<Vec<(Record, u64)>> {
        let place = partition(tenant, device);
        let found = self.records.scan(SESSIONS, &place, of_device(device), OF_DEVICE_MAX).await?;
        found.iter().map(|stored| Ok((Record::parse(stored)?, stored.version))).collect()
    }

    /// When it was last heard of, if it is connected.
    fn connected(&self, record: &Record) -> Option<Timestamp> {
        if record.disconnected_at.is_some() {
            return None;
        }
        match record.replica? {
            replica if replica == self.replicas.me() => self.live.last_seen(record.uid, record.session),
            replica => self.replicas.is_there(replica).then_some(record.last_seen),
        }
    }

    fn is_connected(&self, record: &Record) -> bool {
        self.connected(record).is_some()
    }

    /// Whether another replica may hold its connection, seen or not.
    fn is_held_elsewhere(&self, record: &Record) -> bool {
        record.disconnected_at.is_none()
            && record.replica.is_some_and(|replica| replica != self.replicas.me())
    }

    /// Since when it is not connected, if it is not. One that was left without a disconnect counts from when its replica was
    /// seen to be gone, or from the start of this process: it could not come back before.
    fn gone_since(&self, record: &Record) -> Timestamp {
        record.disconnected_at.unwrap_or_else(|| {
            let left = record.replica.and_then(|replica| self.replicas.left_at(replica));
            record.last_seen.max(self.started).max(left.unwrap_or(record.last_seen))
        })
    }

    fn expires_at(&self, record: &Record) -> Timestamp {
        self.gone_since(record).saturating_add(record.expiry())
    }

    /// Whether nobody may resume it.
    fn has_ended(&self, record: &Record, now: Timestamp) -> bool {
        !self.is_connected(record) && self.expires_at(record) <= now
    }

    /// Whether it may be removed: it has ended, and nobody holds its connection unseen.
    fn may_go(&self, record: &Record, now: Timestamp) -> bool {
        let unseen = if self.is_held_elsewhere(record) { UNSEEN } else { Duration::ZERO };
        self.has_ended(record, now) && self.gone_since(record).saturating_add(unseen) <= now
    }

    fn info(&self, record: Record, now: Timestamp) -> Option<SessionInfo> {
        if self.has_ended(&record, now) {
            return None;
        }
        let connected = self.connected(&record);
        Some(SessionInfo {
            expires_at: connected.is_none().then(|| self.expires_at(&record)),
            connected: connected.is_some(),
            last_seen: connected.unwrap_or(record.last_seen),
            device: record.device,
            client_id: record.client_id,
            protocol: record.protocol,
            remote: record.remote,
            connected_at: record.connected_at,
            subscriptions: record.subscriptions.into_iter().map(|subscription| subscription.filter).collect(),
        })
    }
}

/// Deleted only as it was read: its client may be coming back right now.
fn delete(record: &Record, version: u64) -> Write {
    Write { key: record.key(), expect: Expect::Version(version), op: Op::Delete }
}
