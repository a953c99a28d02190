//! What a test has to do: which devices, under which rules and facts, over which rows.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use weir_core::{
    DeviceId, Partition, Position, Result, Stream, TenantId, Uid,
    progress::{Progress, all_progress},
};
use weir_rules::{Compiled, Rule};

use super::{
    Request, Sink, Subject, Summary,
    device::{DeviceRun, Totals},
};
use crate::{
    Service,
    catalog::Catalog,
    owner::{
        Memory, READER,
        change::{self, Change, Entry, Facts},
    },
    rules::{Record, check},
};

/// Devices that are asked of the registry at once.
const PAGE: usize = 100;

/// A test that is about to run.
pub(super) enum Plan {
    Exact {
        runs: Vec<DeviceRun>,
        rules: Vec<Arc<Compiled>>,
        catalog: Catalog,
        uses_absent: bool,
        open_ended: bool,
    },
    Simulation {
        request: Request,
        compiled: Arc<Compiled>,
        why: String,
    },
}

impl Service {
    pub(super) async fn plan_test(&self, request: Request) -> Result<Plan> {
        match &request.subject {
            Subject::Given(rule) => {
                let rule =
                    Rule { uid: Uid::hash(&[b"test", rule.id.as_str().as_bytes()]), ..(**rule).clone() };
                simulation(request, &rule, "the rule was given, not stored")
            }
            Subject::Stored(id) => {
                let record = self.get_rule(&request.tenant, id.as_str()).await?;
                if request.from.is_some() {
                    return simulation(request, &record.rule, "it has a start of its own, not the rule's");
                }
                match self.histories().await? {
                    Some(histories) => self.exact(&request, &record, histories).await,
                    None => simulation(
                        request,
                        &record.rule,
                        "the changes since the rule's start are not all kept any more",
                    ),
                }
            }
        }
    }

    /// The change lists of every partition.
    async fn histories(&self) -> Result<Option<Vec<(Partition, Vec<Entry>)>>> {
        let mut histories = Vec::new();
        for partition in self.alarms.every_partition() {
            match change::history(&*self.shared.records, partition).await? {
                Some(history) => histories.push((partition, history)),
                None => return Ok(None),
            }
        }
        Ok(Some(histories))
    }

    async fn exact(
        &self,
        request: &Request,
        record: &Record,
        histories: Vec<(Partition, Vec<Entry>)>,
    ) -> Result<Plan> {
        // A catalog of its own, so that a test does not count as evaluations of the rule.
        let catalog = Catalog::new(self.rules.clone());
        let (mut runs, mut rules) = (Vec::new(), Vec::new());
        let records = &*self.shared.records;
        let recorded = all_progress(records, Stream::Readings, &[READER], self.alarms.partitions).await?;
        for ((partition, history), recorded) in histories.into_iter().zip(recorded) {
            let through = self.evaluated_through(partition, &request.tenant, &recorded.progress).await?;
            let of_rule = of_rule(&request.tenant, record.rule.uid, history);
            for entry in &of_rule {
                if let Change::Rules { put, .. } = &entry.change {
                    for rule in put {
                        rules.extend(catalog.revision(&request.tenant, rule.uid, rule.revision).await?);
                    }
                }
            }
            for (uid, (device, entries)) in by_device(&of_rule) {
                if request.devices.is_empty() || request.devices.contains(&device) {
                    runs.extend(DeviceRun::exact(request, uid, device, entries, through));
                }
            }
        }
        runs.sort_by(|a, b| (&a.device, a.uid).cmp(&(&b.device, b.uid)));
        let uses_absent = rules.iter().any(|rule| rule.uses_absent());
        Ok(Plan::Exact { runs, rules, catalog, uses_absent, open_ended: request.to.is_none() })
    }

    /// Up to where a partition is certainly evaluated, at least to the last reading that made something fire: as its owner
    /// knows where that is this replica, else as far as is recorded. None where nothing ever was.
    async fn evaluated_through(
        &self,
        partition: Partition,
        tenant: &TenantId,
        recorded: &Progress,
    ) -> Result<Option<Position>> {
        let here = self.shared.evaluated.lock().get(&partition).copied();
        let (generation, sequence) = match here {
            Some(here) => here,
            None => {
                let fired = self.alarms.counter(partition, tenant).await?.through;
                let fired = fired.map(|fired| (fired.generation, fired.sequence)).unwrap_or_default();
                fired.max((recorded.generation, recorded.sequence))
            }
        };
        let through = Position { stream: Stream::Readings, generation, sequence, index: u32::MAX, partition };
        Ok((sequence > 0).then_some(through))
    }

    pub(super) async fn run_test(&self, plan: Plan, sink: &mut Sink) -> Result<Summary> {
        match plan {
            Plan::Exact { runs, rules, catalog, uses_absent, open_ended } => {
                let mut totals = Totals::default();
                let now = open_ended.then(|| self.clock.now());
                for run in runs {
                    totals.add(
                        run.run(Memory::empty(Partition(0)), &*self.telemetry, &catalog, now, sink).await?,
                    );
                }
                let note = if uses_absent {
                    "results of absent() are approximate: they depend on when readings arrived and on the wall clock"
                } else {
                    ""
                };
                Ok(totals.summary(&rules, true, note.to_owned()))
            }
            Plan::Simulation { request, compiled, why } => {
                self.simulate(&request, &compiled, &why, sink).await
            }
        }
    }

    async fn simulate(
        &self,
        request: &Request,
        compiled: &Arc<Compiled>,
        why: &str,
        sink: &mut Sink,
    ) -> Result<Summary> {
        let catalog = Catalog::new(self.rules.clone());
        let mut totals = Totals::default();
        let mut after: Option<DeviceId> = None;
        let mut named: VecDeque<DeviceId> = {
            let mut named = request.devices.clone();
            named.sort();
            named.dedup();
            named.into()
        };
        loop {
            let (page, last) = if request.devices.is_empty() {
                let page = self
                    .shared
                    .registry
                    .select(&request.tenant, &compiled.rule().selector, after.as_ref(), PAGE)
                    .await?;
                let last = page.len() < PAGE;
                (page, last)
            } else {
                let mut page = Vec::new();
                for id in named.drain(..named.len().min(PAGE)) {
                    page.push(self.shared.registry.device(&request.tenant, &id).await?);
                }
                page.retain(|device| compiled.rule().selector.matches(&device.labels));
                (page, named.is_empty())
            };
            after = page.last().map(|device| device.id.clone());
            for device in page {
                let run = DeviceRun::simulated(request, Facts::of(&device), compiled.warm_up());
                let memory = Memory::with_rule(&request.tenant, compiled);
                totals.add(run.run(memory, &*self.telemetry, &catalog, None, sink).await?);
            }
            if last {
                break;
            }
        }
        let warm = weir_rules::format_duration(compiled.warm_up());
        let start = request.from.map_or_else(|| "the first reading".to_owned(), |from| from.to_string());
        let note = format!("{why}; it begins at {start}, warmed over {warm} before that");
        Ok(totals.summary(std::slice::from_ref(compiled), false, note))
    }
}

fn simulation(request: Request, rule: &Rule, why: &str) -> Result<Plan> {
    let compiled = Arc::new(check(rule)?);
    Ok(Plan::Simulation { request, compiled, why: why.to_owned() })
}

/// The entries of a list that matter to one rule.
fn of_rule(tenant: &TenantId, rule: Uid, history: Vec<Entry>) -> Vec<Entry> {
    let matters = |entry: Entry| {
        let change = match entry.change {
            Change::Rules { tenant: of, put, gone } if of == *tenant => {
                let put: Vec<_> = put.into_iter().filter(|put| put.uid == rule).collect();
                let gone: Vec<_> = gone.into_iter().filter(|gone| *gone == rule).collect();
                if put.is_empty() && gone.is_empty() {
                    return None;
                }
                Change::Rules { tenant: of, put, gone }
            }
            Change::Device(facts) if facts.key.tenant == *tenant => Change::Device(facts),
            Change::Removed { tenant: of, uid } if of == *tenant => Change::Removed { tenant: of, uid },
            Change::Person(person) if person.rule == rule => Change::Person(person),
            outage @ Change::Outage { .. } => outage,
            _ => return None,
        };
        Some(Entry { change, ..entry })
    };
    history.into_iter().filter_map(matters).collect()
}

/// The entries of each device, those of the rule among them.
fn by_device(entries: &[Entry]) -> BTreeMap<Uid, (DeviceId, Vec<Entry>)> {
    let mut devices: BTreeMap<Uid, (DeviceId, Vec<Entry>)> = BTreeMap::new();
    for entry in entries {
        if let Change::Device(facts) = &entry.change {
            devices.entry(facts.key.uid).or_insert_with(|| (facts.key.device.clone(), Vec::new()));
        }
    }
    for entry in entries {
        let of = match &entry.change {
            Change::Device(facts) => Some(facts.key.uid),
            Change::Removed { uid, .. } => Some(*uid),
            Change::Person(person) => Some(person.device),
            Change::Rules { .. } | Change::Outage { .. } => None,
        };
        match of {
            Some(uid) => devices.get_mut(&uid).into_iter().for_each(|(_, list)| list.push(entry.clone())),
            None => devices.values_mut().for_each(|(_, list)| list.push(entry.clone())),
        }
    }
    devices
}
