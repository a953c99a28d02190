//! One device of a test.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::StreamExt as _;
use weir_core::{
    DeviceId, Position, Result, TenantId, Timestamp, Uid,
    port::{RuleScan, TelemetryReader},
};
use weir_rules::Compiled;

use super::{Request, Sink, Summary};
use crate::{
    alarm::Effect,
    catalog::Catalog,
    owner::{
        Memory,
        change::{Change, Entry, Facts},
    },
};

/// What is done with one device.
pub(super) struct DeviceRun {
    pub(super) device: DeviceId,
    pub(super) uid: Uid,
    tenant: TenantId,
    /// Changes in their order.
    entries: VecDeque<Entry>,
    /// Facts to begin with, where there is no list.
    facts: Option<Facts>,
    after: Option<Position>,
    through: Option<Position>,
    from: Timestamp,
    to: Timestamp,
    /// Before this everything is warming up.
    told_from: Timestamp,
    /// Whether changes after the last row count.
    open_ended: bool,
}

impl DeviceRun {
    /// As it was; none where the rule never began for it.
    pub(super) fn exact(
        request: &Request,
        uid: Uid,
        device: DeviceId,
        entries: Vec<Entry>,
        through: Option<Position>,
    ) -> Option<Self> {
        let first = entries
            .iter()
            .find(|entry| matches!(&entry.change, Change::Rules { put, .. } if !put.is_empty()))?;
        let start =
            Position { sequence: first.from.sequence.saturating_sub(1), index: u32::MAX, ..first.from };
        Some(Self {
            device,
            uid,
            tenant: request.tenant.clone(),
            after: Some(start),
            entries: entries.into(),
            facts: None,
            through,
            from: Timestamp::MIN,
            to: request.to.unwrap_or(Timestamp::MAX),
            told_from: Timestamp::MIN,
            open_ended: request.to.is_none(),
        })
    }

    /// As it would be.
    pub(super) fn simulated(request: &Request, facts: Facts, warm_up: Duration) -> Self {
        let from = request.from.unwrap_or(Timestamp::MIN);
        Self {
            device: facts.key.device.clone(),
            uid: facts.key.uid,
            tenant: request.tenant.clone(),
            entries: VecDeque::new(),
            facts: Some(facts),
            after: None,
            through: None,
            from: from.saturating_sub(warm_up),
            to: request.to.unwrap_or(Timestamp::MAX),
            told_from: from,
            open_ended: false,
        }
    }

    /// Runs it. `now`: where silence is measured to after the last row.
    pub(super) async fn run(
        mut self,
        mut memory: Memory,
        telemetry: &dyn TelemetryReader,
        catalog: &Catalog,
        now: Option<Timestamp>,
        sink: &mut Sink,
    ) -> Result<Totals> {
        let mut totals = Totals { devices: 0, readings: 0 };
        if let Some(facts) = self.facts.take() {
            let start = Position { sequence: 0, ..nowhere() };
            memory.apply(Change::Device(facts), start, catalog).await?;
        }
        let scan = RuleScan {
            tenant: self.tenant.clone(),
            uid: self.uid,
            after: self.after,
            through: self.through,
            from: self.from,
            to: self.to,
        };
        let mut selected = memory.selects(self.uid);
        let mut rows = telemetry.scan_for_rules(scan).await?;
        while let Some(row) = rows.next().await {
            let row = row?;
            let effects = self.apply_entries(&mut memory, Some(row.position), catalog).await?;
            self.tell(effects, sink).await?;
            selected |= memory.selects(self.uid);
            totals.readings += u64::from(memory.selects(self.uid));
            let effects = memory.feed_row(self.uid, &row);
            self.tell(effects, sink).await?;
        }
        if self.open_ended {
            let effects = self.apply_entries(&mut memory, None, catalog).await?;
            self.tell(effects, sink).await?;
            selected |= memory.selects(self.uid);
        }
        if let Some(now) = now {
            let (effects, _) = memory.tick(now);
            self.tell(effects, sink).await?;
        }
        totals.devices = u64::from(selected);
        Ok(totals)
    }

    async fn apply_entries(
        &mut self,
        memory: &mut Memory,
        through: Option<Position>,
        catalog: &Catalog,
    ) -> Result<Vec<Effect>> {
        let mut effects = Vec::new();
        while let Some(entry) = self.entries.front() {
            let from = (entry.from.generation, entry.from.sequence);
            if through.is_some_and(|through| from > (through.generation, through.sequence)) {
                break;
            }
            let Some(entry) = self.entries.pop_front() else { break };
            effects.extend(memory.apply(entry.change, entry.from, catalog).await?);
        }
        Ok(effects)
    }

    async fn tell(&self, effects: Vec<Effect>, sink: &mut Sink) -> Result<()> {
        for effect in effects {
            if effect.transition.ts >= self.told_from {
                sink.put(effect.transition).await?;
            }
        }
        Ok(())
    }
}

fn nowhere() -> Position {
    Position {
        stream: weir_core::Stream::Readings,
        generation: 0,
        sequence: 0,
        index: 0,
        partition: weir_core::Partition(0),
    }
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    devices: u64,
    readings: u64,
}

impl Totals {
    pub(super) fn add(&mut self, other: Self) {
        self.devices += other.devices;
        self.readings += other.readings;
    }

    pub(super) fn summary(self, rules: &[Arc<Compiled>], exact: bool, note: String) -> Summary {
        Summary {
            devices: self.devices,
            readings: self.readings,
            unknown: rules.iter().map(|rule| rule.unknown()).sum(),
            exact,
            note,
        }
    }
}
