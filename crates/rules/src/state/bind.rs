//! Which rules a device has: bringing the state into step with a [`RuleSet`].

use std::{collections::BTreeMap, sync::Arc};

use weir_core::{Position, Timestamp, device::Device};

use super::{ClearReason, DeviceState, Transition, rule::RuleState};
use crate::{Compiled, RuleSet, eval::Binding, series::Series};

impl DeviceState {
    /// Takes over the rules that select the device from `position` on: a new rule or revision starts cold there, an open
    /// alarm of an edited one stays open, that of one which is gone is closed with `RULE_REMOVED`. [`DeviceState::apply`]
    /// does this by itself; call it where a rule was removed or a label was changed, so that alarms close at once.
    pub fn sync(&mut self, rules: &RuleSet, device: &Device, position: Position) -> Vec<Transition> {
        let current = |(compiled, state): (&Arc<Compiled>, &RuleState)| {
            compiled.rule().uid == state.rule && compiled.rule().revision == state.revision
        };
        if self.bound
            && rules.iter().count() == self.rules.len()
            && rules.iter().zip(&self.rules).all(current)
        {
            return Vec::new();
        }
        let ts = self.seen.map_or(Timestamp::default(), |seen| seen.ts);
        let mut known: BTreeMap<_, _> =
            std::mem::take(&mut self.rules).into_iter().map(|state| (state.rule, state)).collect();
        for compiled in rules.iter() {
            let rule = compiled.rule();
            let state = match known.remove(&rule.uid) {
                Some(state) if state.revision == rule.revision => state,
                before => RuleState::cold(compiled, before, &self.series),
            };
            self.rules.push(state);
        }
        self.bind(rules);
        known
            .into_values()
            .filter_map(|mut gone| gone.close(device, position, ts, ClearReason::RuleRemoved))
            .collect()
    }

    /// Gives every rule its metrics and windows, and drops what no rule looks at.
    fn bind(&mut self, rules: &RuleSet) {
        let now = self.seen.map_or(Timestamp::MIN, |seen| seen.ts);
        let mut old: BTreeMap<Arc<str>, Series> = std::mem::take(&mut self.series)
            .into_iter()
            .map(|series| (Arc::clone(&series.name), series))
            .collect();
        for (compiled, state) in rules.iter().zip(&mut self.rules) {
            state.binding = Binding::default();
            if compiled.rule().disabled {
                continue;
            }
            for name in compiled.metrics() {
                let at = match self.series.iter().position(|series| series.name == *name) {
                    Some(at) => at,
                    None => {
                        let mut series = old.remove(name).unwrap_or_else(|| Series::new(Arc::clone(name)));
                        series.close_windows();
                        self.series.push(series);
                        self.series.len() - 1
                    }
                };
                let floor = state.floors.iter().find(|(known, _)| known == name).map(|(_, floor)| *floor);
                state.binding.metrics.push((at, floor.unwrap_or(Timestamp::MIN)));
            }
            for spec in &compiled.tables.windows {
                let (at, floor) =
                    state.binding.metrics.get(spec.metric).copied().unwrap_or((usize::MAX, Timestamp::MIN));
                let window = self
                    .series
                    .get_mut(at)
                    .map_or(usize::MAX, |series| series.open_window(spec.duration, floor, spec.needs, now));
                state.binding.windows.push((at, window));
            }
        }
        for series in &mut self.series {
            series.advance(now);
        }
        self.bound = true;
    }
}
