//! Changing alarms: each commit moves the counter of its record partition, so that every change has a place in one order
//! and nobody writes over what they have not seen.
//!
//! The counter also knows the newest owner of the partition that has come by, by the epoch of its claim. What an owner
//! makes of readings is written only where no newer one has: a stalled owner that wakes up would judge readings by rules
//! that have changed since.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_core::{
    DeviceId, Error, ErrorKind, Partition, Result, TenantId, Timestamp, Uid, Value, json,
    port::{Expect, Op as Doing, Signal, Write},
};
use weir_rules::{ClearReason, Compiled, Transition, TransitionKind};

use super::{ALARMS, Alarm, Alarms, Counter, Event, State, key};
use crate::outbox::{self, Outcome, Row};

/// Past these a commit is closed: the port takes 1,000 writes and 1 MiB, and one operation adds at most some 40 writes
/// and [`crate::outbox::PAYLOAD_MAX`] for each of 16 actions.
const WRITES_CLOSE: usize = 400;
const BYTES_CLOSE: usize = 128 * 1024;
/// Who loses a race so often in a row is told.
const TRIES: usize = 16;
/// History beyond this keeps its first and its newest.
const HISTORY_MAX: usize = 256;
/// Values of an alarm, and the bytes of each: enough to see why, not a copy of a message.
const VALUES_MAX: usize = 64;
const VALUE_BYTES_MAX: usize = 256;

/// A transition, and the rule that made it as far as it is still there.
#[derive(Debug, Clone)]
pub(crate) struct Effect {
    pub(crate) transition: Transition,
    pub(crate) rule: Option<Arc<Compiled>>,
}

/// What a person can do with an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PersonKind {
    Acknowledge,
    Clear,
}

/// What a person did: the alarm changes at once, and the partition's owner is told, so that the engine knows and the
/// actions that it sets off are due.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Person {
    pub(crate) kind: PersonKind,
    pub(crate) alarm: Uid,
    pub(crate) request_id: String,
    pub(crate) actor: String,
    pub(crate) comment: String,
    /// Of the alarm's rule and device; filled in when it is recorded.
    #[serde(default = "nobody")]
    pub(crate) rule: Uid,
    #[serde(default = "nobody")]
    pub(crate) device: Uid,
    #[serde(default)]
    pub(crate) device_id: Option<DeviceId>,
}

impl Person {
    /// What the caller says; the rest is known when it is recorded.
    pub(crate) fn new(
        kind: PersonKind,
        alarm: Uid,
        request_id: String,
        actor: String,
        comment: String,
    ) -> Self {
        Self { kind, alarm, request_id, actor, comment, rule: nobody(), device: nobody(), device_id: None }
    }
}

fn nobody() -> Uid {
    Uid::from_u128(0)
}

/// One change of a tenant's alarms in one partition.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// The engine says so. Once written, writing it again does nothing.
    Transition(Effect),
    /// A person says so.
    Person(Person),
    /// The owner has taken over what stood under this key of the inbox.
    Taken(Bytes),
    /// A try of an action ended.
    Tried { row: Row, outcome: Outcome },
    /// A cleared alarm is too old.
    Forget(Uid),
}

/// What a series of operations did.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// The alarms that were looked at, as they are now.
    pub(crate) alarms: HashMap<Uid, Alarm>,
    /// New outbox rows.
    pub(crate) rows: Vec<Row>,
}

impl Alarms {
    /// Does `ops` in order, in as few commits as they fit in; durable when it returns. For whoever may do so without
    /// owning the partition.
    ///
    /// # Errors
    /// `Unavailable` of the store; `NotFound` or `FailedPrecondition` for what a person may not do.
    pub(crate) async fn apply(&self, partition: Partition, tenant: &TenantId, ops: &[Op]) -> Result<Applied> {
        self.apply_by(None, partition, tenant, ops).await
    }

    /// The same by the owner of the partition, whose claim has this epoch.
    ///
    /// # Errors
    /// `Unavailable` of the store; `Aborted` where a newer owner has come here.
    pub(crate) async fn apply_as(
        &self,
        epoch: u64,
        partition: Partition,
        tenant: &TenantId,
        ops: &[Op],
    ) -> Result<Applied> {
        self.apply_by(Some(epoch), partition, tenant, ops).await
    }

    /// From when this returns, no owner with a lower epoch changes a tenant's alarms in a partition.
    ///
    /// # Errors
    /// As of [`Alarms::apply_as`].
    pub(crate) async fn fence(&self, epoch: u64, partition: Partition, tenant: &TenantId) -> Result<Counter> {
        let place = key::place(partition, tenant);
        let lock = self.lock(&place);
        let _writing = lock.lock().await;
        let mut lost = 0;
        loop {
            let transaction = Transaction::begin(self, &place, tenant, Some(epoch)).await?;
            let counter = transaction.counter.clone();
            match transaction.commit(&mut Applied::default()).await {
                Ok(()) => return Ok(counter),
                Err(error) if error.kind() == ErrorKind::Aborted && lost < TRIES => lost += 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn apply_by(
        &self,
        epoch: Option<u64>,
        partition: Partition,
        tenant: &TenantId,
        ops: &[Op],
    ) -> Result<Applied> {
        let place = key::place(partition, tenant);
        let lock = self.lock(&place);
        let _writing = lock.lock().await;
        let mut applied = Applied::default();
        let (mut done, mut lost) = (0, 0);
        while done < ops.len() {
            let mut transaction = Transaction::begin(self, &place, tenant, epoch).await?;
            let mut next = done;
            while let Some(op) = ops.get(next) {
                if transaction.is_full() {
                    break;
                }
                transaction.run(op).await?;
                next += 1;
            }
            match transaction.commit(&mut applied).await {
                Ok(()) => (done, lost) = (next, 0),
                Err(error) if error.kind() == ErrorKind::Aborted && lost < TRIES => lost += 1,
                Err(error) => return Err(error),
            }
        }
        self.waiting.add_all(&applied.rows);
        self.signals.publish(Signal::AlarmsChanged { tenant: tenant.clone() }).await;
        Ok(applied)
    }
}

struct Loaded {
    alarm: Alarm,
    /// As it is stored: its last change and whether it was open.
    stored: Option<(u64, bool)>,
    changed: bool,
}

struct Transaction<'a> {
    alarms: &'a Alarms,
    place: &'a str,
    tenant: &'a TenantId,
    now: Timestamp,
    counter: Counter,
    expect: Expect,
    loaded: BTreeMap<Uid, Loaded>,
    writes: BTreeMap<Vec<u8>, Doing>,
    rows: Vec<Row>,
    bytes: usize,
    moved: bool,
}

impl<'a> Transaction<'a> {
    async fn begin(
        alarms: &'a Alarms,
        place: &'a str,
        tenant: &'a TenantId,
        epoch: Option<u64>,
    ) -> Result<Self> {
        let stored = alarms.records.get(ALARMS, place.as_bytes(), key::COUNTER).await?;
        let (mut counter, expect): (Counter, _) = match &stored {
            Some(stored) => (json::from_stored(stored)?, Expect::Version(stored.version)),
            None => (Counter::default(), Expect::Absent),
        };
        let newest = epoch.unwrap_or(counter.epoch);
        if newest < counter.epoch {
            let (by, now) = (newest, counter.epoch);
            return Err(Error::aborted(format!("alarms of {place} are owned under epoch {now}, not {by}")));
        }
        let moved = newest > counter.epoch;
        counter.epoch = newest;
        Ok(Self {
            alarms,
            place,
            tenant,
            now: alarms.clock.now(),
            counter,
            expect,
            loaded: BTreeMap::new(),
            writes: BTreeMap::new(),
            rows: Vec::new(),
            bytes: 0,
            moved,
        })
    }

    fn is_full(&self) -> bool {
        self.writes.len() + 8 * self.loaded.len() >= WRITES_CLOSE || self.bytes >= BYTES_CLOSE
    }

    async fn run(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::Transition(effect) => self.transition(effect).await,
            Op::Person(person) => self.person(person).await,
            Op::Taken(key) => {
                self.writes.insert(key.to_vec(), Doing::Delete);
                Ok(())
            }
            Op::Tried { row, outcome } => self.tried(row, outcome).await,
            Op::Forget(uid) => self.forget(*uid).await,
        }
    }

    /// Loads an alarm into the transaction; false where there is none.
    async fn load(&mut self, uid: Uid) -> Result<bool> {
        if self.loaded.contains_key(&uid) {
            return Ok(true);
        }
        let stored = self.alarms.records.get(ALARMS, self.place.as_bytes(), &key::alarm(uid)).await?;
        let Some(stored) = stored else { return Ok(false) };
        let alarm: Alarm = json::from_stored(&stored)?;
        self.bytes += stored.value.len();
        let stored = Some((alarm.change, alarm.is_open()));
        self.loaded.insert(uid, Loaded { alarm, stored, changed: false });
        Ok(true)
    }

    /// An alarm that was loaded.
    fn look(&self, uid: Uid) -> Result<&Alarm> {
        self.loaded.get(&uid).map(|loaded| &loaded.alarm).ok_or_else(|| missing(self.tenant, uid))
    }

    /// An alarm that was loaded, to be changed.
    fn change(&mut self, uid: Uid) -> Result<&mut Alarm> {
        let loaded = self.loaded.get_mut(&uid).ok_or_else(|| missing(self.tenant, uid))?;
        loaded.changed = true;
        Ok(&mut loaded.alarm)
    }

    async fn transition(&mut self, effect: &Effect) -> Result<()> {
        let transition = &effect.transition;
        // What people did and what was removed stands in the change list.
        let by_reading = matches!(transition.reason, None | Some(ClearReason::Condition))
            && transition.kind != TransitionKind::Acknowledged;
        if by_reading && self.counter.through.is_none_or(|through| through < transition.position) {
            (self.counter.through, self.moved) = (Some(transition.position), true);
        }
        let known = self.load(transition.alarm).await?;
        let fresh = match transition.kind {
            TransitionKind::Raised => !known && self.raise(effect),
            _ if !known => {
                tracing::warn!(alarm = %transition.alarm, kind = transition.kind.as_str(), "an alarm that is gone changed");
                false
            }
            TransitionKind::Acknowledged => true,
            TransitionKind::Cleared if transition.reason == Some(ClearReason::Manual) => true,
            TransitionKind::Escalated | TransitionKind::Cleared => self.follow(transition)?,
        };
        if fresh { self.act(effect) } else { Ok(()) }
    }

    fn raise(&mut self, effect: &Effect) -> bool {
        let (transition, Some(compiled)) = (&effect.transition, &effect.rule) else { return false };
        let rule = compiled.rule();
        let alarm = Alarm {
            uid: transition.alarm,
            rule: rule.id.clone(),
            rule_uid: transition.rule,
            revision: transition.revision,
            device: transition.device.clone(),
            severity: transition.severity,
            state: State::Raised,
            raised_at: transition.ts,
            acknowledged_at: None,
            cleared_at: None,
            clear_reason: None,
            labels: rule.labels.clone(),
            values: texts(&transition.values),
            history: vec![self.event(transition)],
            actions: Vec::new(),
            recorded_at: self.now,
            change: 0,
        };
        self.alarms_bytes(&alarm);
        self.loaded.insert(alarm.uid, Loaded { alarm, stored: None, changed: true });
        true
    }

    fn alarms_bytes(&mut self, alarm: &Alarm) {
        let values: usize = alarm.values.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.bytes += 1_024 + values;
    }

    /// What the engine says of an alarm that is there; false where it is written already, or the alarm is closed.
    fn follow(&mut self, transition: &Transition) -> Result<bool> {
        let event = self.event(transition);
        let known = self.look(transition.alarm)?;
        if known.history.iter().any(|known| known.id == transition.id) {
            return Ok(false);
        }
        if !known.is_open() {
            // A person was quicker. The alarm stays as it is, but what clearing it sets off is due.
            return Ok(transition.kind == TransitionKind::Cleared);
        }
        let alarm = self.change(transition.alarm)?;
        match transition.kind {
            TransitionKind::Cleared => {
                alarm.state = State::Cleared;
                alarm.cleared_at = Some(transition.ts);
                alarm.clear_reason = transition.reason;
            }
            _ => alarm.severity = transition.severity,
        }
        note(alarm, event);
        Ok(true)
    }

    fn event(&self, transition: &Transition) -> Event {
        let by_engine = matches!(transition.reason, None | Some(ClearReason::Condition));
        Event {
            id: transition.id,
            kind: transition.kind,
            event_time: Some(transition.ts),
            record_time: self.now,
            actor: if by_engine { "rule" } else { "system" }.to_owned(),
            comment: String::new(),
            severity: transition.severity,
            position: transition.position.to_string(),
        }
    }

    /// The actions that a transition sets off: their results on the alarm, their rows in the outbox.
    fn act(&mut self, effect: &Effect) -> Result<()> {
        for due in &effect.transition.actions {
            let rule = effect.transition.rule;
            let new = self.rows.iter().filter(|row| row.rule_uid == rule && row.job.is_webhook()).count();
            let room = self.alarms.waiting.of(rule) + new < self.alarms.waiting_per_rule as usize;
            let alarm = self.look(effect.transition.alarm)?;
            if alarm.actions.iter().any(|known| known.key == due.key) {
                continue;
            }
            let (result, row) = outbox::plan(effect, due, alarm, self.now, room)?;
            self.change(effect.transition.alarm)?.actions.push(result);
            if let Some(row) = row {
                let value = json::to_bytes(&row)?;
                self.bytes += value.len();
                self.writes.insert(key::outbox(row.key), Doing::Put(value));
                self.rows.push(row);
            }
        }
        Ok(())
    }

    async fn person(&mut self, person: &Person) -> Result<()> {
        if !self.load(person.alarm).await? {
            return Err(missing(self.tenant, person.alarm));
        }
        let now = self.now;
        let kind = match (person.kind, self.look(person.alarm)?.state) {
            (PersonKind::Acknowledge, State::Raised) => TransitionKind::Acknowledged,
            (PersonKind::Clear, State::Raised | State::Acknowledged) => TransitionKind::Cleared,
            (PersonKind::Acknowledge, State::Acknowledged) | (PersonKind::Clear, State::Cleared) => {
                return Ok(());
            }
            (PersonKind::Acknowledge, State::Cleared) => {
                let text = format!("alarm {} is cleared, it cannot be acknowledged any more", person.alarm);
                return Err(Error::new(ErrorKind::FailedPrecondition, "ALARM_CLEARED", text));
            }
        };
        let alarm = self.change(person.alarm)?;
        match kind {
            TransitionKind::Acknowledged => {
                alarm.state = State::Acknowledged;
                alarm.acknowledged_at = Some(now);
            }
            _ => {
                alarm.state = State::Cleared;
                alarm.cleared_at = Some(now);
                alarm.clear_reason = Some(ClearReason::Manual);
            }
        }
        let id = Uid::hash(&[
            b"person",
            &alarm.uid.to_bytes(),
            kind.as_str().as_bytes(),
            person.request_id.as_bytes(),
        ]);
        note(
            alarm,
            Event {
                id,
                kind,
                event_time: None,
                record_time: now,
                actor: person.actor.clone(),
                comment: person.comment.clone(),
                severity: alarm.severity,
                position: String::new(),
            },
        );
        let request = Person {
            rule: alarm.rule_uid,
            device: alarm.device.uid,
            device_id: Some(alarm.device.device.clone()),
            ..person.clone()
        };
        self.writes.insert(key::inbox(now, id), Doing::Put(json::to_bytes(&request)?));
        Ok(())
    }

    async fn tried(&mut self, row: &Row, outcome: &Outcome) -> Result<()> {
        // Done by another owner meanwhile, or recorded already: it must not wait anew.
        if self.alarms.records.get(ALARMS, self.place.as_bytes(), &key::outbox(row.key)).await?.is_none() {
            return Ok(());
        }
        let next = outcome.next(row);
        match &next {
            Some(row) => self.writes.insert(key::outbox(row.key), Doing::Put(json::to_bytes(row)?)),
            None => self.writes.insert(key::outbox(row.key), Doing::Delete),
        };
        if self.load(row.alarm).await?
            && let Some(result) =
                self.change(row.alarm)?.actions.iter_mut().find(|known| known.key == row.key)
        {
            outcome.write(row, result);
        }
        Ok(())
    }

    async fn forget(&mut self, uid: Uid) -> Result<()> {
        if !self.load(uid).await? {
            return Ok(());
        }
        let Some(Loaded { alarm, stored, .. }) = self.loaded.remove(&uid) else { return Ok(()) };
        if alarm.is_open() {
            return Ok(());
        }
        for key in key::lasting(&alarm).into_iter().chain([key::alarm(uid)]) {
            self.writes.insert(key, Doing::Delete);
        }
        if let Some((change, _)) = stored {
            self.writes.insert(key::change(change), Doing::Delete);
        }
        Ok(())
    }

    async fn commit(mut self, applied: &mut Applied) -> Result<()> {
        for loaded in self.loaded.values_mut().filter(|loaded| loaded.changed) {
            self.counter.change += 1;
            self.moved = true;
            loaded.alarm.change = self.counter.change;
            let alarm = &loaded.alarm;
            self.writes.insert(key::alarm(alarm.uid), Doing::Put(json::to_bytes(alarm)?));
            self.writes.insert(key::change(alarm.change), Doing::Put(alarm.uid.to_bytes().to_vec().into()));
            match loaded.stored {
                Some((change, _)) => drop(self.writes.insert(key::change(change), Doing::Delete)),
                None => {
                    for key in key::lasting(alarm) {
                        self.writes.insert(key, Doing::Put(Bytes::new()));
                    }
                }
            }
            let was_open = loaded.stored.is_some_and(|(_, open)| open);
            for key in key::open(alarm).into_iter().filter(|_| was_open != alarm.is_open()) {
                let doing = if was_open { Doing::Delete } else { Doing::Put(Bytes::new()) };
                self.writes.insert(key, doing);
            }
        }
        if !self.writes.is_empty() || self.moved {
            let counter = Write {
                key: Bytes::from_static(key::COUNTER),
                expect: self.expect,
                op: Doing::Put(json::to_bytes(&self.counter)?),
            };
            let others =
                self.writes.into_iter().map(|(key, op)| Write { key: key.into(), expect: Expect::Any, op });
            let writes = std::iter::once(counter).chain(others).collect();
            self.alarms.records.commit(ALARMS, self.place.as_bytes(), writes).await?;
        }
        applied.alarms.extend(self.loaded.into_iter().map(|(uid, loaded)| (uid, loaded.alarm)));
        applied.rows.extend(self.rows);
        Ok(())
    }
}

fn missing(tenant: &TenantId, alarm: Uid) -> Error {
    Error::not_found(weir_core::name::child(tenant, "alarms", alarm))
}

fn note(alarm: &mut Alarm, event: Event) {
    if alarm.history.len() >= HISTORY_MAX {
        alarm.history.remove(1);
    }
    alarm.history.push(event);
}

fn texts(values: &[(String, Value)]) -> BTreeMap<String, String> {
    values.iter().take(VALUES_MAX).map(|(name, value)| (name.clone(), text(value))).collect()
}

/// A value for people, at most [`VALUE_BYTES_MAX`] bytes of it.
pub(crate) fn text(value: &Value) -> String {
    let mut text = match value {
        Value::Double(value) => value.to_string(),
        Value::Int64(value) => value.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::String(value) => value.clone(),
        Value::Bytes(value) => format!("{} bytes", value.len()),
    };
    if text.len() > VALUE_BYTES_MAX {
        text.truncate(boundary(&text, VALUE_BYTES_MAX - 3));
        text.push('…');
    }
    text
}

/// The last place at or before `max` where `text` can be cut.
pub(crate) fn boundary(text: &str, max: usize) -> usize {
    (0..=max.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use weir_core::{SystemClock, port::Records};
    use weir_log_embedded::LocalSignals;
    use weir_store_embedded::EmbeddedStore;

    use super::*;

    #[tokio::test]
    async fn what_an_owner_makes_of_readings_is_not_taken_once_a_newer_one_has_come_by() {
        let dir = tempfile::tempdir().unwrap();
        let records: Arc<dyn Records> = EmbeddedStore::open(dir.path(), Default::default()).unwrap();
        let alarms = Alarms::new(records, Arc::new(LocalSignals::new()), Arc::new(SystemClock), 4, 10);
        let (partition, tenant) = (Partition(3), TenantId::new("acme").unwrap());
        let ops = [Op::Taken(Bytes::from_static(b"i/nothing"))];
        alarms.apply_as(1, partition, &tenant, &ops).await.unwrap();
        assert_eq!(alarms.fence(2, partition, &tenant).await.unwrap().epoch, 2);
        let refused = alarms.apply_as(1, partition, &tenant, &ops).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Aborted);
        assert_eq!(alarms.fence(1, partition, &tenant).await.unwrap_err().kind(), ErrorKind::Aborted);
        alarms.apply_as(2, partition, &tenant, &ops).await.unwrap();
        // Whoever is no owner may write at any time, and takes nothing from the newest.
        alarms.apply(partition, &tenant, &ops).await.unwrap();
        assert_eq!(alarms.counter(partition, &tenant).await.unwrap().epoch, 2);
    }
}
