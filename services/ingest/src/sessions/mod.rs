//! MQTT sessions: what outlives a connection, and who is connected.
//!
//! A session is a record, written when it opens, subscribes and closes; whether it is connected is known only to the
//! replica that holds the connection, in memory, so that after a crash nothing counts as connected.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Mutex, oneshot};
use weir_core::{
    Clock, DeviceId, Error, Result, TenantId, Timestamp, Uid,
    command::DeviceKey,
    json,
    port::{KeyRange, Records, Session, Write},
};

use self::{
    live::{Entry, Live},
    record::{Record, SESSIONS, key, of_device},
};

mod live;
mod record;
#[cfg(test)]
mod tests;

/// Changes of one device's sessions come one after another; devices share this many locks, few enough to cost nothing and
/// enough that strangers seldom wait for each other.
const LOCKS: usize = 256;
/// More than a device may have, with those that have expired.
const OF_DEVICE_MAX: usize = 64;
/// Records that a sweep looks at in one step.
const SWEEP_PAGE: usize = 500;

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
    tenant: TenantId,
    device: DeviceId,
    uid: Uid,
    client_id: String,
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
    clock: Arc<dyn Clock>,
    live: Arc<Live>,
    locks: Vec<Mutex<()>>,
    per_device: usize,
    started: Timestamp,
}

impl Sessions {
    pub(crate) fn new(records: Arc<dyn Records>, clock: Arc<dyn Clock>, per_device: usize) -> Self {
        let started = clock.now();
        let locks = (0..LOCKS).map(|_| Mutex::default()).collect();
        Self { records, clock, live: Arc::default(), locks, per_device, started }
    }

    /// Opens or resumes a session; an older connection of the same client ends, and so does the oldest session where the
    /// device would have more than it may.
    ///
    /// # Errors
    /// `Unavailable` of the store.
    pub(crate) async fn open(&self, connect: Connect) -> Result<OpenSession> {
        let DeviceKey { tenant, device, uid } = &connect.device;
        let _one = self.lock(*uid)?.lock().await;
        let now = self.clock.now();
        let mut writes = Vec::new();
        let (mut others, mut known) = (Vec::new(), None);
        for record in self.of_device(tenant, device).await? {
            if record.uid != *uid || self.is_expired(&record, now) {
                writes.push(Write::delete(record.key()));
            } else if record.client_id == connect.client_id {
                known = Some(record).filter(|_| !connect.clean_start);
            } else {
                others.push(record);
            }
        }
        // Those that are not connected go first, then the one that connected first.
        others.sort_by_key(|record| (self.connected(record).is_some(), record.connected_at));
        let excess = (others.len() + 1).saturating_sub(self.per_device);
        let evicted: Vec<String> = others.into_iter().take(excess).map(|record| record.client_id).collect();
        writes.extend(evicted.iter().map(|client_id| Write::delete(key(device, client_id))));
        let (present, subscriptions) = (known.is_some(), known.map(|r| r.subscriptions).unwrap_or_default());
        let record = Record {
            session: Uid::random(),
            device: device.clone(),
            uid: *uid,
            client_id: connect.client_id.clone(),
            protocol: connect.protocol.to_owned(),
            remote: connect.remote,
            connected_at: now,
            last_seen: now,
            disconnected_at: None,
            expiry_seconds: connect.expiry.as_secs(),
            subscriptions: subscriptions.clone(),
        };
        writes.retain(|write| write.key != record.key());
        writes.push(Write::put(record.key(), json::to_bytes(&record)?));
        self.records.commit(SESSIONS, tenant.as_str().as_bytes(), writes).await?;
        let (entry, ended) = self.live.enter(*uid, record.session, &connect.client_id, &evicted, now);
        let id = Session(record.session);
        let DeviceKey { tenant, device, uid } = connect.device;
        Ok(OpenSession {
            id,
            present,
            subscriptions,
            ended,
            tenant,
            device,
            uid,
            client_id: connect.client_id,
            entry,
        })
    }

    /// Records what the session is subscribed to now, all of it; durable when it returns.
    ///
    /// # Errors
    /// `Unavailable` of the store.
    pub(crate) async fn subscribed(&self, session: &OpenSession, to: Vec<Subscription>) -> Result<()> {
        let _one = self.lock(session.uid)?.lock().await;
        match self.own(session).await? {
            Some(record) => self.put(&session.tenant, &Record { subscriptions: to, ..record }).await,
            None => Ok(()), // another connection has the session now
        }
    }

    /// It was heard of. Costs nothing: call it for each packet.
    pub(crate) fn seen(&self, session: &OpenSession) {
        session.entry.seen(self.clock.now());
    }

    /// The connection ended; `expiry` overrides what the connect asked for (MQTT 5 DISCONNECT); zero forgets it.
    ///
    /// # Errors
    /// `Unavailable` of the store: the session then counts as disconnected from now on, but keeps its old expiry.
    pub(crate) async fn close(&self, session: OpenSession, expiry: Option<Duration>) -> Result<()> {
        let _one = self.lock(session.uid)?.lock().await;
        let Some(mut record) = self.own(&session).await? else { return Ok(()) };
        let now = self.clock.now();
        record.expiry_seconds = expiry.map_or(record.expiry_seconds, |expiry| expiry.as_secs());
        record.last_seen = session.entry.last_seen();
        record.disconnected_at = Some(now);
        if record.expiry_seconds > 0 {
            return self.put(&session.tenant, &record).await;
        }
        let partition = session.tenant.as_str().as_bytes();
        self.records.commit(SESSIONS, partition, vec![Write::delete(record.key())]).await.map(drop)
    }

    /// The sessions of a device.
    ///
    /// # Errors
    /// `Unavailable` of the store.
    pub(crate) async fn of(&self, tenant: &TenantId, device: &DeviceId) -> Result<Vec<SessionInfo>> {
        let now = self.clock.now();
        let records = self.of_device(tenant, device).await?;
        Ok(records.into_iter().filter_map(|record| self.info(record, now)).collect())
    }

    /// A tenant's sessions in order of (device, client id), after the key `after`: those of one page of records, and the key
    /// after which the next page begins, if any.
    ///
    /// # Errors
    /// `Unavailable` of the store.
    pub(crate) async fn list(
        &self,
        tenant: &TenantId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<(Vec<SessionInfo>, Option<Vec<u8>>)> {
        let now = self.clock.now();
        let range = after.map_or_else(KeyRange::all, |after| KeyRange::all().after(after));
        let found = self.records.scan(SESSIONS, tenant.as_str().as_bytes(), range, limit).await?;
        let next = found.last().filter(|_| found.len() == limit).map(|last| last.key.to_vec());
        let records = found.iter().map(Record::parse).collect::<Result<Vec<_>>>()?;
        Ok((records.into_iter().filter_map(|record| self.info(record, now)).collect(), next))
    }

    /// Removes what has expired: sessions of devices that do not come back.
    ///
    /// # Errors
    /// `Unavailable` of the store; what remains is for the next sweep.
    pub(crate) async fn sweep(&self) -> Result<()> {
        let mut tenant: Option<Vec<u8>> = None;
        while let Some(next) =
            self.records.partitions(SESSIONS, tenant.as_deref(), 1).await?.into_iter().next()
        {
            let mut range = KeyRange::all();
            loop {
                let page = self.records.scan(SESSIONS, &next, range, SWEEP_PAGE).await?;
                let now = self.clock.now();
                let mut writes = Vec::new();
                for stored in &page {
                    if self.is_expired(&Record::parse(stored)?, now) {
                        // Deleted only as it was read: a client may be coming back right now.
                        writes.push(Write {
                            key: stored.key.clone(),
                            expect: weir_core::port::Expect::Version(stored.version),
                            op: weir_core::port::Op::Delete,
                        });
                    }
                }
                if !writes.is_empty() {
                    match self.records.commit(SESSIONS, &next, writes).await {
                        Err(error) if error.kind() != weir_core::ErrorKind::Aborted => return Err(error),
                        _ => {}
                    }
                }
                match page.last().filter(|_| page.len() == SWEEP_PAGE) {
                    Some(last) => range = KeyRange::all().after(&last.key),
                    None => break,
                }
            }
            tenant = Some(next.to_vec());
        }
        Ok(())
    }

    fn lock(&self, uid: Uid) -> Result<&Mutex<()>> {
        let place = usize::try_from(uid.as_u128() % LOCKS as u128).unwrap_or(0);
        self.locks.get(place).ok_or_else(|| Error::internal("no lock for a session"))
    }

    /// The record of an open session, if no other connection has it now.
    async fn own(&self, session: &OpenSession) -> Result<Option<Record>> {
        if !session.entry.is_current() {
            return Ok(None);
        }
        let (partition, key) = (session.tenant.as_str().as_bytes(), key(&session.device, &session.client_id));
        let stored = self.records.get(SESSIONS, partition, &key).await?;
        let record = stored.as_ref().map(Record::parse).transpose()?;
        Ok(record.filter(|record| record.session == session.id.0))
    }

    async fn put(&self, tenant: &TenantId, record: &Record) -> Result<()> {
        let write = Write::put(record.key(), json::to_bytes(record)?);
        self.records.commit(SESSIONS, tenant.as_str().as_bytes(), vec![write]).await.map(drop)
    }

    async fn of_device(&self, tenant: &TenantId, device: &DeviceId) -> Result<Vec<Record>> {
        let partition = tenant.as_str().as_bytes();
        let found = self.records.scan(SESSIONS, partition, of_device(device), OF_DEVICE_MAX).await?;
        found.iter().map(Record::parse).collect()
    }

    /// When it was last heard of, if it is connected.
    fn connected(&self, record: &Record) -> Option<Timestamp> {
        self.live.last_seen(record.uid, record.session)
    }

    fn is_expired(&self, record: &Record, now: Timestamp) -> bool {
        self.connected(record).is_none() && record.expires_at(self.started) <= now
    }

    fn info(&self, record: Record, now: Timestamp) -> Option<SessionInfo> {
        if self.is_expired(&record, now) {
            return None;
        }
        let connected = self.connected(&record);
        Some(SessionInfo {
            expires_at: connected.is_none().then(|| record.expires_at(self.started)),
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
