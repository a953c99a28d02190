//! The registry and the command queue of these tests: in memory, with the behaviour that their ports promise.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use weir_core::{
    Clock, DeviceId, Error, ErrorKind, Partition, Position, Result, Stream, SystemClock, TenantId, Timestamp,
    Uid,
    command::{Answer, Command, DeviceKey, Order, Request, State},
    device::{Device, Profile},
    port::{
        Batch, Bounds, CommandQueue, Log, LogIdentity, LogReader, Queued, Registry, SESSION_ENDED,
        SESSION_ENDING, Session, SessionEpoch,
    },
    principal::Principal,
    selector::Selector,
};

/// A registry.
#[derive(Default)]
pub(crate) struct People {
    devices: Mutex<HashMap<(TenantId, DeviceId), Arc<Device>>>,
    tokens: Mutex<HashMap<String, (TenantId, DeviceId)>>,
    away: AtomicBool,
}

impl People {
    /// A device `id` whose token is `token-of-<id>`.
    pub(crate) fn add(&self, tenant: &str, id: &str, gateway: bool) -> DeviceKey {
        let (tenant, id) = (TenantId::new(tenant).unwrap(), DeviceId::new(id).unwrap());
        let now = SystemClock.now();
        let device = Device {
            tenant: tenant.clone(),
            id: id.clone(),
            uid: Uid::random(),
            profile: Profile::DEFAULT_ID.to_owned(),
            labels: BTreeMap::new(),
            attributes: BTreeMap::new(),
            enabled: true,
            gateway,
            created_at: now,
            updated_at: now,
        };
        let key = DeviceKey { tenant: tenant.clone(), device: id.clone(), uid: device.uid };
        self.devices.lock().insert((tenant.clone(), id.clone()), Arc::new(device));
        self.tokens.lock().insert(format!("token-of-{id}"), (tenant, id));
        key
    }

    /// It cannot be asked any more.
    pub(crate) fn leave(&self) {
        self.away.store(true, Ordering::SeqCst);
    }

    fn is_there(&self) -> Result<()> {
        if self.away.load(Ordering::SeqCst) {
            Err(Error::unavailable("the registry is away"))
        } else {
            Ok(())
        }
    }

    pub(crate) fn revoke(&self, token: &str) {
        self.tokens.lock().remove(token);
    }

    pub(crate) fn delete(&self, key: &DeviceKey) {
        self.devices.lock().remove(&(key.tenant.clone(), key.device.clone()));
    }

    pub(crate) fn change(&self, key: &DeviceKey, change: impl FnOnce(&mut Device)) {
        let mut devices = self.devices.lock();
        let device = devices.get_mut(&(key.tenant.clone(), key.device.clone())).unwrap();
        change(Arc::make_mut(device));
    }
}

#[async_trait]
impl Registry for People {
    async fn authenticate(&self, token: &str) -> Result<Principal> {
        self.is_there()?;
        if token == "an-api-token" {
            return Ok(Principal::Token { id: "1".to_owned(), tenant: None, scopes: Vec::new() });
        }
        let bad = || Error::unauthenticated("the token is not valid");
        let (tenant, id) = self.tokens.lock().get(token).cloned().ok_or_else(bad)?;
        let device = self.devices.lock().get(&(tenant.clone(), id.clone())).cloned().ok_or_else(bad)?;
        Ok(Principal::Device { tenant, device: id, uid: device.uid, credential: token.to_owned() })
    }

    async fn device(&self, tenant: &TenantId, device: &DeviceId) -> Result<Arc<Device>> {
        self.is_there()?;
        let found = self.devices.lock().get(&(tenant.clone(), device.clone())).cloned();
        found.ok_or_else(|| Error::not_found(format!("tenants/{tenant}/devices/{device}")))
    }

    async fn profile(&self, _: &TenantId, _: &str) -> Result<Arc<Profile>> {
        Ok(Arc::new(Profile::default()))
    }

    async fn select(
        &self,
        _: &TenantId,
        _: &Selector,
        _: Option<&DeviceId>,
        _: usize,
    ) -> Result<Vec<Arc<Device>>> {
        Ok(self.devices.lock().values().cloned().collect())
    }
}

/// A command queue.
#[derive(Default)]
pub(crate) struct Queue {
    devices: Mutex<HashMap<Uid, Waiting>>,
}

#[derive(Default)]
struct Waiting {
    epoch: u64,
    /// The newest session is gone, or has said that it will be.
    ended: Option<&'static str>,
    /// The epoch in which each was sent.
    commands: VecDeque<(Command, Option<u64>)>,
}

impl Queue {
    pub(crate) fn send(&self, to: &DeviceKey, name: &str, payload: &str) -> Uid {
        let now = SystemClock.now();
        let id = Uid::random();
        let request = Request {
            id,
            to: to.clone(),
            name: name.to_owned(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            order: Order::OnDelivery,
            created_at: now,
            expires_at: now.saturating_add(Duration::from_secs(3_600)),
            request_id: id.to_string(),
            actor: "token:1".to_owned(),
        };
        let position = Position {
            stream: Stream::Commands,
            generation: 1,
            sequence: 1,
            index: 0,
            partition: Partition(0),
        };
        let command = Command {
            request,
            position,
            state: State::Queued,
            sent_at: None,
            delivered_at: None,
            finished_at: None,
            answer: None,
            delivery_unknown: false,
        };
        self.devices.lock().entry(to.uid).or_default().commands.push_back((command, None));
        id
    }

    pub(crate) fn get(&self, to: &DeviceKey, id: Uid) -> Command {
        let devices = self.devices.lock();
        let mut commands = devices[&to.uid].commands.iter();
        commands.find(|(command, _)| command.request.id == id).unwrap().0.clone()
    }

    /// How many times a session of the device has attached.
    pub(crate) fn epoch(&self, to: &DeviceKey) -> u64 {
        self.devices.lock().get(&to.uid).map_or(0, |waiting| waiting.epoch)
    }

    fn with<T>(
        &self,
        device: &DeviceKey,
        epoch: Option<SessionEpoch>,
        change: impl FnOnce(&mut Waiting) -> Result<T>,
    ) -> Result<T> {
        let mut devices = self.devices.lock();
        let waiting = devices.entry(device.uid).or_default();
        if epoch.is_some_and(|epoch| epoch.0 != waiting.epoch) {
            let reason = waiting.ended.unwrap_or("SESSION_REPLACED");
            return Err(Error::new(ErrorKind::Aborted, reason, "a newer session attached"));
        }
        change(waiting)
    }
}

impl Waiting {
    fn find(&mut self, id: Uid) -> Result<&mut (Command, Option<u64>)> {
        let found = self.commands.iter_mut().find(|(command, _)| command.request.id == id);
        found.ok_or_else(|| Error::not_found(format!("command {id}")))
    }

    /// The oldest that is not delivered; one that was sent in this epoch is only passed where it cannot be acknowledged,
    /// and then only once it is answered.
    fn next(&self) -> Option<Queued> {
        let open = |state| matches!(state, State::Queued | State::Sent);
        let (command, sent_in) = self.commands.iter().find(|(command, _)| open(command.state))?;
        if *sent_in == Some(self.epoch) {
            return None;
        }
        Some(Queued { command: command.clone(), again: sent_in.is_some() })
    }
}

#[async_trait]
impl CommandQueue for Queue {
    async fn attach(&self, device: &DeviceKey, _: Session) -> Result<SessionEpoch> {
        self.with(device, None, |waiting| {
            waiting.epoch += 1;
            waiting.ended = None;
            Ok(SessionEpoch(waiting.epoch))
        })
    }

    async fn detach(&self, device: &DeviceKey, epoch: SessionEpoch, after: Duration) -> Result<()> {
        self.with(device, None, |waiting| {
            if epoch.0 == waiting.epoch {
                let first = waiting.ended.unwrap_or(SESSION_ENDING);
                waiting.ended = Some(if after.is_zero() { SESSION_ENDED } else { first });
            }
            Ok(())
        })
    }

    async fn next(&self, device: &DeviceKey, epoch: SessionEpoch) -> Result<Option<Queued>> {
        self.with(device, Some(epoch), |waiting| Ok(waiting.next()))
    }

    async fn sent(&self, device: &DeviceKey, epoch: SessionEpoch, command: Uid) -> Result<()> {
        self.with(device, Some(epoch), |waiting| {
            let (command, sent_in) = waiting.find(command)?;
            if command.state.is_final() {
                return Err(Error::new(ErrorKind::FailedPrecondition, "ENDED", "the command has ended"));
            }
            command.state = State::Sent;
            *sent_in = Some(epoch.0);
            Ok(())
        })
    }

    async fn delivered(&self, device: &DeviceKey, epoch: SessionEpoch, command: Uid) -> Result<()> {
        self.with(device, Some(epoch), |waiting| {
            let (command, _) = waiting.find(command)?;
            if command.state == State::Sent {
                command.state = State::Delivered;
            }
            Ok(())
        })
    }

    async fn answered(&self, device: &DeviceKey, command: Uid, answer: Answer) -> Result<()> {
        self.with(device, None, |waiting| {
            let (command, _) = waiting.find(command)?;
            if !command.state.is_final() {
                command.state = if answer.ok { State::Succeeded } else { State::Failed };
                command.answer = Some(answer);
            }
            Ok(())
        })
    }
}

/// How a [`GatedLog`] treats what is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// Publishing waits.
    Closed,
    /// Publishing is refused.
    Full,
    /// Publishing fails, as where the way to the log is cut.
    Away,
}

/// A log that can be made to wait, or to be full.
pub(crate) struct GatedLog {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) gate: watch::Sender<Gate>,
}

#[async_trait]
impl Log for GatedLog {
    async fn publish(&self, stream: Stream, partition: Partition, id: Uid, bytes: Bytes) -> Result<u64> {
        let mut gate = self.gate.subscribe();
        let gate = *gate.wait_for(|gate| *gate != Gate::Closed).await.unwrap();
        if gate == Gate::Away {
            return Err(Error::unavailable("the log is away"));
        }
        if gate == Gate::Full {
            return Err(Error::new(ErrorKind::ResourceExhausted, "LOG_FULL", "the log is full at 7 bytes"));
        }
        self.log.publish(stream, partition, id, bytes).await
    }
    async fn read_from(&self, stream: Stream, partition: Partition, from: u64) -> Result<Box<dyn LogReader>> {
        self.log.read_from(stream, partition, from).await
    }
    async fn trim(&self, stream: Stream, through: u64) -> Result<()> {
        self.log.trim(stream, through).await
    }
    async fn sequence_before(&self, stream: Stream, instant: Timestamp) -> Result<u64> {
        self.log.sequence_before(stream, instant).await
    }
    async fn identity(&self, stream: Stream) -> Result<LogIdentity> {
        self.log.identity(stream).await
    }
    async fn bounds(&self, stream: Stream) -> Result<Bounds> {
        self.log.bounds(stream).await
    }
    async fn ids(&self, stream: Stream, sequences: &[u64]) -> Result<Vec<Option<Uid>>> {
        self.log.ids(stream, sequences).await
    }
    async fn writable(&self) -> Result<()> {
        self.log.writable().await
    }
}

/// Everything that a partition holds.
pub(crate) async fn read_all(log: &dyn Log, partition: Partition) -> Vec<Bytes> {
    let mut reader = log.read_from(Stream::Readings, partition, 0).await.unwrap();
    let mut all = Vec::new();
    loop {
        let Batch { records, .. } = reader.next(1 << 20, Duration::ZERO).await.unwrap();
        if records.is_empty() {
            return all;
        }
        all.extend(records.into_iter().map(|record| record.bytes));
    }
}
