//! Finding changes: what rules, devices and people did since the last look, compared with what the partition applies.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;
use weir_core::{
    DeviceId, ErrorKind, Position, Result, TenantId, Uid, json,
    port::{KeyRange, Registry},
};

use super::{
    change::{Change, Facts, RuleRef},
    recover::Owned,
    state::Tracked,
};
use crate::alarm::{ALARMS, Effect, Op, Person, key};

/// Facts of a device are compared with the registry's at least so often.
const FACTS_AGE_MAX: Duration = Duration::from_secs(30);
/// Lookups under way at once.
const LOOKUPS: usize = 16;
/// Devices whose absence from the registry is remembered.
const STRANGERS_MAX: usize = 10_000;
/// Devices of a partition that are looked for in the registry at each sweep: 62,500 take about two hours, and 16
/// partitions ask for some 130 a second.
const SWEEP_PAGE: usize = 250;
/// Requests of people that are taken over at once.
const INBOX_PAGE: usize = 100;

/// Devices that speak: (public id, tenant) by uid.
pub(super) type Speakers = BTreeMap<Uid, (TenantId, DeviceId)>;

impl Owned {
    /// Takes in what changed for `tenants` and for `speakers`, from the next frame on.
    pub(super) async fn take_changes(
        &mut self,
        tenants: &HashSet<TenantId>,
        speakers: &Speakers,
        from: Position,
    ) -> Result<()> {
        let mut changes = Vec::new();
        for tenant in tenants {
            changes.extend(self.changed_rules(tenant).await?);
        }
        self.record(from, changes).await?;
        let changes = self.changed_devices(speakers).await?;
        self.record(from, changes).await
    }

    /// Appends changes to the list, then applies them.
    pub(super) async fn record(&mut self, from: Position, changes: Vec<Change>) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut effects = Vec::new();
        for entry in self.list.append(&mut self.claim, from, changes).await? {
            effects.extend(self.memory.apply(entry.change, entry.from, &self.shared.catalog).await?);
            self.applied = entry.number;
        }
        self.effect(effects).await
    }

    /// How the rules of a tenant differ from those that are applied.
    async fn changed_rules(&mut self, tenant: &TenantId) -> Result<Option<Change>> {
        let current = self.shared.catalog.current(tenant).await?;
        let known = self.memory.tenants.get(tenant);
        if known.map_or(0, |known| known.version) == current.version {
            return Ok(None);
        }
        let refs = |uid: Uid, revision: u64| RuleRef { uid, revision };
        let new: BTreeMap<Uid, u64> =
            current.rules.iter().map(|rule| (rule.rule().uid, rule.rule().revision)).collect();
        let old: BTreeMap<Uid, u64> = known
            .map(|known| known.rules.iter().map(|(uid, rule)| (*uid, rule.rule().revision)).collect())
            .unwrap_or_default();
        let put: Vec<RuleRef> = new
            .iter()
            .filter(|(uid, at)| old.get(uid) != Some(at))
            .map(|(uid, at)| refs(*uid, *at))
            .collect();
        let gone: Vec<Uid> = old.keys().filter(|uid| !new.contains_key(uid)).copied().collect();
        self.memory.tenants.entry(tenant.clone()).or_default().version = current.version;
        let changed = !put.is_empty() || !gone.is_empty();
        Ok(changed.then(|| Change::Rules { tenant: tenant.clone(), put, gone }))
    }

    /// How devices differ from what rules know of them. Those of tenants without rules are not looked up.
    async fn changed_devices(&mut self, speakers: &Speakers) -> Result<Vec<Change>> {
        let now = Instant::now();
        let fresh = |at: &Instant| now.duration_since(*at) < FACTS_AGE_MAX;
        let mut due = Vec::new();
        for (uid, (tenant, id)) in speakers {
            let tracked = self.memory.devices.get(uid);
            let has_rules = self.memory.tenants.get(tenant).is_some_and(|tenant| !tenant.rules.is_empty());
            if !has_rules {
                if tracked.is_none() {
                    self.memory.track(Facts::unknown(tenant, id, *uid));
                }
                continue;
            }
            let checked =
                tracked.is_some_and(|tracked| tracked.known && tracked.checked.as_ref().is_some_and(fresh));
            if !checked && !self.strangers.get(uid).is_some_and(fresh) {
                due.push((*uid, tenant.clone(), id.clone()));
            }
        }
        let found = look_up(&*self.shared.registry, due).await?;
        Ok(found
            .into_iter()
            .filter_map(|(uid, tenant, facts)| self.compare(uid, tenant, facts, now))
            .collect())
    }

    /// Drops what is held of those of `devices` that the registry does not know any more, with or without rules.
    async fn forget_deleted(&mut self, devices: &[Uid]) -> Result<()> {
        let due = devices.iter().filter_map(|uid| {
            let key = &self.memory.devices.get(uid)?.facts.key;
            Some((*uid, key.tenant.clone(), key.device.clone()))
        });
        let found = match look_up(&*self.shared.registry, due.collect()).await {
            Ok(found) => found,
            // No rule waits for this, so it is no reason to begin again: the sweep comes back to them.
            Err(error) => {
                tracing::warn!(partition = %self.partition, %error, "cannot look for deleted devices");
                return Ok(());
            }
        };
        let gone = found.into_iter().filter(|(.., facts)| facts.is_none());
        let gone = gone.map(|(uid, tenant, _)| Change::Removed { tenant, uid }).collect();
        self.record(self.next_position(), gone).await
    }

    /// Looks whether the next page of devices is still there: a deletion of which nobody was told, since no signal came
    /// or nobody listened, would be held for ever.
    pub(super) async fn sweep(&mut self) -> Result<()> {
        if self.unswept.is_empty() {
            self.unswept = self.memory.devices.keys().copied().collect();
        }
        let page = self.unswept.split_off(self.unswept.len().saturating_sub(SWEEP_PAGE));
        self.forget_deleted(&page).await
    }

    fn compare(&mut self, uid: Uid, tenant: TenantId, facts: Option<Facts>, now: Instant) -> Option<Change> {
        let tracked = self.memory.devices.get_mut(&uid);
        match (facts, tracked) {
            (Some(facts), Some(tracked)) => {
                tracked.checked = Some(now);
                (!tracked.known || tracked.facts != facts).then_some(Change::Device(facts))
            }
            (Some(facts), None) => Some(Change::Device(facts)),
            (None, tracked) => {
                if self.strangers.len() >= STRANGERS_MAX {
                    self.strangers.clear();
                }
                self.strangers.insert(uid, now);
                tracked.map(|_| Change::Removed { tenant, uid })
            }
        }
    }

    /// Looks at what the bell has rung for; `all`: at everything that is known.
    pub(super) async fn look(&mut self, all: bool) -> Result<()> {
        let mut rung = self.shared.bells.take(self.partition);
        rung.all |= all;
        if rung.is_empty() {
            return Ok(());
        }
        for uid in &rung.devices {
            self.strangers.remove(uid);
            self.memory.devices.get_mut(uid).into_iter().for_each(|tracked| tracked.checked = None);
        }
        let at = self.next_position();
        let mut tenants = std::mem::take(&mut rung.tenants);
        if rung.all {
            self.memory.devices.values_mut().for_each(|tracked| tracked.checked = None);
            tenants.extend(self.memory.tenants.keys().cloned());
            tenants.extend(self.horizons.keys().cloned());
            tenants.extend(self.memory.devices.values().map(|tracked| tracked.facts.key.tenant.clone()));
        }
        // Devices without open alarms are looked at when they speak.
        let watched =
            |uid: &Uid, known: bool, open: bool| (rung.all && open) || (rung.devices.contains(uid) && known);
        let speakers: Speakers = self
            .memory
            .devices
            .iter()
            .filter(|(uid, tracked)| watched(uid, tracked.known, tracked.has_open_alarms()))
            .map(|(uid, tracked)| {
                (*uid, (tracked.facts.key.tenant.clone(), tracked.facts.key.device.clone()))
            })
            .collect();
        self.take_changes(&tenants, &speakers, at).await?;
        // Nothing is compared for those that no rule needs, but they may be gone.
        let has_rules = |tracked: &Tracked| {
            let tenant = self.memory.tenants.get(&tracked.facts.key.tenant);
            tracked.known && tenant.is_some_and(|tenant| !tenant.rules.is_empty())
        };
        let without = |uid: &&Uid| self.memory.devices.get(*uid).is_some_and(|tracked| !has_rules(tracked));
        let without: Vec<Uid> = rung.devices.iter().filter(without).copied().collect();
        self.forget_deleted(&without).await?;
        for tenant in &tenants {
            self.take_inbox(tenant).await?;
        }
        Ok(())
    }

    /// Takes over what people did with a tenant's alarms.
    async fn take_inbox(&mut self, tenant: &TenantId) -> Result<()> {
        let place = key::place(self.partition, tenant);
        loop {
            let range = KeyRange::prefix(key::INBOX);
            let page = self.shared.records.scan(ALARMS, place.as_bytes(), range, INBOX_PAGE).await?;
            if page.is_empty() {
                return Ok(());
            }
            let people = page.iter().map(json::from_stored).collect::<Result<Vec<Person>>>()?;
            self.record(self.next_position(), people.into_iter().map(Change::Person).collect()).await?;
            let taken: Vec<Op> = page.iter().map(|stored| Op::Taken(stored.key.clone())).collect();
            self.shared.alarms.apply_as(self.claim.epoch(), self.partition, tenant, &taken).await?;
            if page.len() < INBOX_PAGE {
                return Ok(());
            }
        }
    }

    /// Makes effects durable, then hands their actions over.
    pub(super) async fn effect(&mut self, effects: Vec<Effect>) -> Result<()> {
        let mut of_tenant: HashMap<TenantId, Vec<Op>> = HashMap::new();
        for effect in effects {
            self.shared.metrics.transition(effect.transition.kind.as_str());
            of_tenant
                .entry(effect.transition.device.tenant.clone())
                .or_default()
                .push(Op::Transition(effect));
        }
        for (tenant, ops) in of_tenant {
            if !self.fenced.contains(&tenant) {
                // A tenant's first alarms here: no owner has come by before, so only the claim knows of a newer one.
                self.claim.commit_fenced(vec![]).await?;
            }
            let epoch = self.claim.epoch();
            let applied = self.shared.alarms.apply_as(epoch, self.partition, &tenant, &ops).await?;
            self.shared.dispatcher.take(self.partition, applied.rows);
            self.fenced.insert(tenant);
        }
        Ok(())
    }
}

/// Asks the registry; without facts where it does not know a device.
async fn look_up(
    registry: &dyn Registry,
    due: Vec<(Uid, TenantId, DeviceId)>,
) -> Result<Vec<(Uid, TenantId, Option<Facts>)>> {
    stream::iter(due)
        .map(|(uid, tenant, id)| async move {
            match registry.device(&tenant, &id).await {
                Ok(device) if device.uid == uid => Ok((uid, tenant, Some(Facts::of(&device)))),
                Ok(_) => Ok((uid, tenant, None)), // made anew under the old id
                Err(error) if error.kind() == ErrorKind::NotFound => Ok((uid, tenant, None)),
                Err(error) => Err(error.context("looking up a device")),
            }
        })
        .buffered(LOOKUPS)
        .try_collect()
        .await
}
