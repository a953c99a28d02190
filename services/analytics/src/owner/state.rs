//! What an owner holds in memory of its partition: the rules of each tenant and the state of each device. It changes only
//! by frames and entries of the change list, so that whoever applies the same to the same checkpoint is where this is.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use weir_core::{
    Error, Partition, Position, Result, Stream, TenantId, Timestamp, Uid, device::Device, json, port::RuleRow,
};
use weir_frame::Frame;
use weir_rules::{Compiled, DeviceState, RuleSet, Transition};

use super::{
    change::{Change, Facts, RuleRef},
    checkpoint::Loaded,
};
use crate::{
    alarm::{Effect, Person, PersonKind},
    catalog::Catalog,
};

/// A device.
pub(crate) struct Tracked {
    /// Its facts as rules know them; without labels and attributes until a rule of its tenant could need them.
    pub(super) facts: Facts,
    device: Device,
    /// Whether its facts were recorded in the change list.
    pub(super) known: bool,
    pub(super) set: RuleSet,
    state: DeviceState,
    dirty: bool,
    /// When its facts were last compared with the registry's; none where they must be again.
    pub(super) checked: Option<Instant>,
}

impl Tracked {
    fn new(facts: Facts, listening_since: Timestamp) -> Self {
        let mut state = DeviceState::default();
        state.skip_outage(Timestamp::MIN, listening_since);
        Self {
            device: facts.device(),
            facts,
            known: false,
            set: RuleSet::default(),
            state,
            dirty: true,
            checked: None,
        }
    }

    pub(super) fn has_open_alarms(&self) -> bool {
        self.state.open_alarms().next().is_some()
    }

    fn select(&mut self, rules: Option<&BTreeMap<Uid, Arc<Compiled>>>) {
        self.set = match rules.filter(|_| self.known) {
            Some(rules) => RuleSet::selecting(rules.values(), &self.device),
            None => RuleSet::default(),
        };
    }

    fn effects(&self, transitions: Vec<Transition>) -> impl Iterator<Item = Effect> {
        transitions.into_iter().map(|transition| {
            let rule = self.set.iter().find(|compiled| compiled.rule().uid == transition.rule).cloned();
            Effect { transition, rule }
        })
    }

    /// Alarms of rules that do not select it any more are closed at once; everything else waits for its next reading.
    fn settle(&mut self, from: Position, out: &mut Vec<Effect>) {
        if self.has_open_alarms() {
            let transitions = self.state.sync(&self.set, &self.device, from);
            self.dirty |= !transitions.is_empty();
            out.extend(self.effects(transitions));
        }
    }
}

/// The rules of a tenant, as this partition applies them.
#[derive(Default)]
pub(crate) struct Tenant {
    pub(super) rules: BTreeMap<Uid, Arc<Compiled>>,
    /// As of which version of the stored rules; 0 where that is not known.
    pub(super) version: u64,
    dirty: bool,
}

/// A device's head in a checkpoint; its state follows.
#[derive(Serialize, Deserialize)]
struct Head {
    facts: Facts,
    known: bool,
}

/// What came of a frame.
pub(super) struct Fed {
    pub(super) effects: Vec<Effect>,
    pub(super) readings: u64,
    /// The newest event time among them.
    pub(super) newest: Option<Timestamp>,
}

/// Everything of a partition.
pub(crate) struct Memory {
    partition: Partition,
    pub(super) tenants: HashMap<TenantId, Tenant>,
    pub(super) devices: HashMap<Uid, Tracked>,
    /// Devices that are gone since the last checkpoint.
    removed: HashSet<Uid>,
    /// Whether there is something for a checkpoint.
    dirty: bool,
    /// Since when nobody listened, until that is an entry of the change list.
    pub(super) outage: Option<Timestamp>,
    /// When the last outage ended.
    listening_since: Timestamp,
}

impl Memory {
    /// Without anything.
    pub(crate) fn empty(partition: Partition) -> Self {
        Self {
            partition,
            tenants: HashMap::new(),
            devices: HashMap::new(),
            removed: HashSet::new(),
            dirty: false,
            outage: None,
            listening_since: Timestamp::default(),
        }
    }

    /// With one rule of one tenant, stored or not.
    pub(crate) fn with_rule(tenant: &TenantId, rule: &Arc<Compiled>) -> Self {
        let mut this = Self::empty(Partition(0));
        let rules = BTreeMap::from([(rule.rule().uid, Arc::clone(rule))]);
        this.tenants.insert(tenant.clone(), Tenant { rules, ..Tenant::default() });
        this
    }

    /// Evaluates a stored row of a device, as [`Memory::feed`] does its reading.
    pub(crate) fn feed_row(&mut self, device: Uid, row: &RuleRow) -> Vec<Effect> {
        let Some(tracked) = self.devices.get_mut(&device) else { return Vec::new() };
        let transitions = tracked.state.apply(&tracked.set, &tracked.device, row);
        tracked.effects(transitions).collect()
    }

    /// Whether any rule selects a device.
    pub(crate) fn selects(&self, device: Uid) -> bool {
        self.devices.get(&device).is_some_and(|tracked| !tracked.set.is_empty())
    }

    /// As a checkpoint has it; `alive_at`: when its owner was certainly alive.
    pub(super) async fn restore(
        partition: Partition,
        loaded: Loaded,
        alive_at: Option<Timestamp>,
        catalog: &Catalog,
    ) -> Result<Self> {
        let mut this = Self { outage: alive_at, ..Self::empty(partition) };
        for (name, bytes) in loaded {
            match name.split_first() {
                Some((b't', tenant)) => this.restore_tenant(tenant, &bytes, catalog).await?,
                Some((b'd', _)) => this.restore_device(&bytes)?,
                _ => return Err(Error::data_loss("a chunk of a checkpoint is of no known kind")),
            }
        }
        for tracked in this.devices.values_mut() {
            let tenant = this.tenants.get(&tracked.facts.key.tenant);
            tracked.select(tenant.map(|tenant| &tenant.rules));
        }
        Ok(this)
    }

    async fn restore_tenant(&mut self, tenant: &[u8], bytes: &[u8], catalog: &Catalog) -> Result<()> {
        let damaged = || Error::data_loss("the rules of a tenant in a checkpoint cannot be read");
        let tenant =
            std::str::from_utf8(tenant).ok().and_then(|text| TenantId::new(text).ok()).ok_or_else(damaged)?;
        let refs: Vec<RuleRef> =
            serde_json::from_slice(bytes).map_err(|source| damaged().with_source(source))?;
        self.put_rules(&tenant, &refs, catalog).await?;
        self.tenants.entry(tenant).or_default().dirty = false;
        Ok(())
    }

    fn restore_device(&mut self, bytes: &[u8]) -> Result<()> {
        let damaged = || Error::data_loss("the state of a device in a checkpoint cannot be read");
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
        let (head, state) =
            rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(damaged)?;
        let head: Head = serde_json::from_slice(head).map_err(|source| damaged().with_source(source))?;
        let mut tracked = Tracked::new(head.facts, Timestamp::default());
        tracked.known = head.known;
        tracked.state = DeviceState::from_bytes(state)?;
        tracked.dirty = false;
        self.listening_since = self.listening_since.max(tracked.state.listening_since());
        self.devices.insert(tracked.facts.key.uid, tracked);
        Ok(())
    }

    async fn put_rules(&mut self, tenant: &TenantId, put: &[RuleRef], catalog: &Catalog) -> Result<()> {
        for rule in put {
            let compiled = catalog.revision(tenant, rule.uid, rule.revision).await?;
            let rules = &mut self.tenants.entry(tenant.clone()).or_default().rules;
            match compiled {
                Some(compiled) => drop(rules.insert(rule.uid, compiled)),
                None => drop(rules.remove(&rule.uid)),
            }
        }
        Ok(())
    }

    /// Applies an entry of the change list.
    pub(crate) async fn apply(
        &mut self,
        change: Change,
        from: Position,
        catalog: &Catalog,
    ) -> Result<Vec<Effect>> {
        let mut out = Vec::new();
        self.dirty = true;
        let since = self.listening_since;
        match change {
            Change::Rules { tenant, put, gone } => {
                self.put_rules(&tenant, &put, catalog).await?;
                let entry = self.tenants.entry(tenant.clone()).or_default();
                entry.rules.retain(|uid, _| !gone.contains(uid));
                entry.dirty = true;
                let rules = &entry.rules;
                for tracked in self.devices.values_mut().filter(|tracked| tracked.facts.key.tenant == tenant)
                {
                    tracked.select(Some(rules));
                    tracked.settle(from, &mut out);
                }
            }
            Change::Device(facts) => {
                let rules = self.tenants.get(&facts.key.tenant).map(|tenant| &tenant.rules);
                self.removed.remove(&facts.key.uid);
                let tracked =
                    self.devices.entry(facts.key.uid).or_insert_with(|| Tracked::new(facts.clone(), since));
                tracked.device = facts.device();
                (tracked.facts, tracked.known, tracked.dirty) = (facts, true, true);
                tracked.select(rules);
                tracked.settle(from, &mut out);
            }
            Change::Removed { uid, .. } => {
                if let Some(mut tracked) = self.devices.remove(&uid) {
                    let transitions = tracked.state.remove_device(&tracked.device, from);
                    out.extend(tracked.effects(transitions));
                    self.removed.insert(uid);
                }
            }
            Change::Person(person) => self.person(&person, &mut out),
            Change::Outage { since, until } => {
                self.listening_since = self.listening_since.max(until);
                for tracked in self.devices.values_mut() {
                    tracked.state.skip_outage(since, until);
                    tracked.dirty |= tracked.set.uses_absent();
                }
            }
        }
        Ok(out)
    }

    fn person(&mut self, person: &Person, out: &mut Vec<Effect>) {
        let Some(tracked) = self.devices.get_mut(&person.device) else { return };
        // Where the engine has come to another alarm by now, the person did not mean that one.
        if !tracked.state.open_alarms().any(|open| open == (person.rule, person.alarm)) {
            return;
        }
        let (state, set, device) = (&mut tracked.state, &tracked.set, &tracked.device);
        let transitions = match person.kind {
            PersonKind::Acknowledge => state.acknowledge(set, device, person.rule, &person.request_id),
            PersonKind::Clear => state.clear(set, device, person.rule, &person.request_id),
        };
        tracked.dirty = true;
        out.extend(tracked.effects(transitions));
    }

    /// Evaluates a frame; gives what follows, how many readings there were and the newest event time among them.
    pub(super) fn feed(&mut self, frame: &Frame, generation: u32, sequence: u64) -> Fed {
        let (mut out, mut readings, mut newest) = (Vec::new(), 0, None);
        self.dirty = true;
        for message in frame.messages() {
            let Some(tracked) = self.devices.get_mut(&message.uid()) else { continue };
            for (index, reading) in message.readings() {
                let position = Position {
                    stream: Stream::Readings,
                    generation,
                    sequence,
                    index,
                    partition: self.partition,
                };
                let transitions = tracked.state.feed(&tracked.set, &tracked.device, position, &reading);
                out.extend(tracked.effects(transitions));
                readings += 1;
                newest = newest.max(Some(reading.ts));
            }
            tracked.dirty = true;
        }
        Fed { effects: out, readings, newest }
    }

    /// How many alarms are open.
    pub(super) fn open_alarms(&self) -> usize {
        self.devices.values().map(|tracked| tracked.state.open_alarms().count()).sum()
    }

    /// Begins to follow a device of which nothing is known but that it speaks.
    pub(super) fn track(&mut self, facts: Facts) {
        self.removed.remove(&facts.key.uid);
        let since = self.listening_since;
        self.devices.entry(facts.key.uid).or_insert_with(|| Tracked::new(facts, since));
    }

    /// Whether any device has rules for which silence matters.
    pub(super) fn uses_absent(&self) -> bool {
        self.devices.values().any(|tracked| tracked.set.uses_absent())
    }

    /// Evaluates silence at `now`; true where something changed that must be recorded.
    pub(crate) fn tick(&mut self, now: Timestamp) -> (Vec<Effect>, bool) {
        let (mut out, mut changed) = (Vec::new(), false);
        for tracked in self.devices.values_mut().filter(|tracked| tracked.set.uses_absent()) {
            let before = tracked.state.clone();
            let transitions = tracked.state.tick(&tracked.set, &tracked.device, now);
            if tracked.state != before {
                (tracked.dirty, changed) = (true, true);
            }
            out.extend(tracked.effects(transitions));
        }
        self.dirty |= changed;
        (out, changed)
    }

    /// Whether there is something for a checkpoint.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// What changed since the last call, as chunks of a checkpoint.
    pub(super) fn take_dirty(&mut self) -> Result<Vec<(Bytes, Option<Vec<u8>>)>> {
        let mut dirty = Vec::new();
        self.dirty = false;
        for (id, tenant) in self.tenants.iter_mut().filter(|(_, tenant)| tenant.dirty) {
            let refs: Vec<RuleRef> = tenant
                .rules
                .values()
                .map(|rule| RuleRef { uid: rule.rule().uid, revision: rule.rule().revision })
                .collect();
            let name = [b"t", id.as_str().as_bytes()].concat().into();
            dirty.push((name, if refs.is_empty() { None } else { Some(json::to_bytes(&refs)?.to_vec()) }));
            tenant.dirty = false;
        }
        for tracked in self.devices.values_mut().filter(|tracked| tracked.dirty) {
            let head = Head { facts: tracked.facts.clone(), known: tracked.known };
            let head = json::to_bytes(&head)?;
            let length = u32::try_from(head.len()).unwrap_or(u32::MAX).to_be_bytes();
            let chunk = [length.as_slice(), &head, &tracked.state.to_bytes()?].concat();
            dirty.push((name_of(tracked.facts.key.uid), Some(chunk)));
            tracked.dirty = false;
        }
        dirty.extend(self.removed.drain().map(|uid| (name_of(uid), None)));
        Ok(dirty)
    }
}

fn name_of(device: Uid) -> Bytes {
    [b"d".as_slice(), &device.to_bytes()].concat().into()
}
