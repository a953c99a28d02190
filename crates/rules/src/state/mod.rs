//! The engine: what the rules of one device remember, and what follows from the next reading.
//!
//! Deterministic: transitions follow from the rows, the changes and their order alone, not from ticks, checkpoints or how
//! often something is fed again. Only rules with `absent` depend on when rows arrived and on outages, and may be raised earlier by a tick.

mod bind;
mod codec;
mod emit;
mod rule;
mod transition;

use weir_core::{
    Position, Reading, Result, Timestamp, Uid, Value, device::Device, event_clock::EventClock, port::RuleRow,
};

pub use transition::{ClearReason, Due, Transition, TransitionKind};

use crate::{
    RuleSet,
    eval::TEXT_MAX,
    series::{Last, Series},
    simulate::rule_row,
};
use rule::{Moment, RuleState, Step};

/// Most samples of all metrics of a device: at 24 bytes each, 5 MB. At the bound the oldest sample of the metric with the
/// most is dropped, and the windows that would hold it are unknown until it has left them.
pub const MAX_SAMPLES_PER_DEVICE: usize = 200_000;

/// What the rules of one device remember. Written to a checkpoint by [`DeviceState::to_bytes`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeviceState {
    clock: EventClock,
    /// The last position that was fed; anything up to it is skipped.
    position: Option<Position>,
    /// The last reading that rules saw.
    seen: Option<Seen>,
    /// The latest arrival so far.
    received: Timestamp,
    /// When the last outage ended: what arrived before, and is read after, counts as heard then.
    listening_since: Timestamp,
    series: Vec<Series>,
    /// In order of the rules' uids.
    rules: Vec<RuleState>,
    /// Whether series and rules point at each other; not so after a restore.
    bound: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    position: Position,
    ts: Timestamp,
}

impl DeviceState {
    /// The last position that was fed.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// The device's clock.
    pub fn clock(&self) -> &EventClock {
        &self.clock
    }

    /// The open alarms: (rule uid, alarm uid), in order of the rules' uids.
    pub fn open_alarms(&self) -> impl Iterator<Item = (Uid, Uid)> {
        self.rules.iter().filter_map(|state| state.open.as_ref().map(|open| (state.rule, open.alarm)))
    }

    /// Samples that are kept for windows: what dominates the size of the state.
    pub fn samples(&self) -> usize {
        self.series.iter().map(|series| series.samples().len()).sum()
    }

    /// Takes the reading at `position` of the log: moves the device's clock, leaves out what is late, and applies the
    /// rest. A position that was fed before does nothing.
    pub fn feed(
        &mut self,
        rules: &RuleSet,
        device: &Device,
        position: Position,
        reading: &Reading,
    ) -> Vec<Transition> {
        if self.position.is_some_and(|last| position <= last) {
            return Vec::new();
        }
        let row = rule_row(&mut self.clock, position, reading);
        self.apply(rules, device, &row)
    }

    /// Takes a row that has no late values, as [`weir_core::port::TelemetryReader::scan_for_rules`] gives it. A position
    /// that was fed before does nothing.
    pub fn apply(&mut self, rules: &RuleSet, device: &Device, row: &RuleRow) -> Vec<Transition> {
        if self.position.is_some_and(|last| row.position <= last) {
            return Vec::new();
        }
        let mut out = self.sync(rules, device, row.position);
        let received_at = row.received_at.max(self.listening_since);
        // What was absent until this very row is settled before the row ends its absence.
        self.settle_absence(rules, device, received_at, &mut out);
        self.position = Some(row.position);
        self.received = self.received.max(received_at);
        if row.values.is_empty() {
            return out;
        }
        let previous = self.seen.map(|seen| seen.ts);
        let ts = previous.map_or(row.ts, |previous| previous.max(row.ts));
        self.seen = Some(Seen { position: row.position, ts });
        self.take_in(row, ts, received_at);
        let moment = Moment { position: row.position, at: ts, clock: ts, received: self.received, previous };
        for (compiled, state) in rules.iter().zip(&mut self.rules) {
            state.step(&Step { compiled, series: &self.series, device, moment }, &mut out);
        }
        out
    }

    fn take_in(&mut self, row: &RuleRow, ts: Timestamp, received_at: Timestamp) {
        for (name, value) in &row.values {
            let Some(series) = self.series.iter_mut().find(|series| series.name == *name) else { continue };
            if series.last.as_ref().is_some_and(|last| last.ts >= ts) {
                continue; // a second value at one ts is late, and rules never see it
            }
            series.push(Last { ts, received_at, value: bounded(value) });
        }
        for series in &mut self.series {
            series.advance(ts);
        }
        while self.samples() > MAX_SAMPLES_PER_DEVICE {
            let Some(largest) = self.series.iter_mut().max_by_key(|series| series.samples().len()) else {
                return;
            };
            largest.drop_oldest();
        }
    }

    /// Nobody listened between `since` and `until`: that is no silence of the device, nor of any of its metrics. What
    /// arrived before moves on by it, so that only the rest of a silence counts; an outage that overlaps the last one
    /// counts once.
    pub fn skip_outage(&mut self, since: Timestamp, until: Timestamp) {
        let since = since.max(self.listening_since);
        if until <= since {
            return;
        }
        let outage = until.since(since);
        let moved = |at: Timestamp| if at < since { at.saturating_add(outage) } else { at.max(until) };
        self.received = moved(self.received);
        for last in self.series.iter_mut().filter_map(|series| series.last.as_mut()) {
            last.received_at = moved(last.received_at);
        }
        self.listening_since = until;
    }

    /// When the last outage ended that it knows of.
    pub fn listening_since(&self) -> Timestamp {
        self.listening_since
    }

    /// Evaluates the rules that use `absent` at the arrival time `now`: the wall clock, and only while nothing of the log
    /// is unread, so that a restart of Weir raises no false alarm. Everything else waits for a reading.
    pub fn tick(&mut self, rules: &RuleSet, device: &Device, now: Timestamp) -> Vec<Transition> {
        let mut out = match self.seen {
            Some(seen) if rules.uses_absent() => self.sync(rules, device, seen.position),
            _ => return Vec::new(),
        };
        self.settle_absence(rules, device, now, &mut out);
        out
    }

    fn settle_absence(
        &mut self,
        rules: &RuleSet,
        device: &Device,
        now: Timestamp,
        out: &mut Vec<Transition>,
    ) {
        let Some(seen) = self.seen.filter(|_| rules.uses_absent()) else { return };
        let received = self.received.max(now);
        let moment = Moment {
            position: seen.position,
            // The device's clock stands still; arrival time carries it on, so that `for` can complete.
            at: seen.ts.saturating_add(received.since(self.received)),
            clock: seen.ts,
            received,
            previous: None,
        };
        for (compiled, state) in rules.iter().zip(&mut self.rules) {
            if compiled.uses_absent() {
                state.step(&Step { compiled, series: &self.series, device, moment }, out);
            }
        }
    }

    /// Clears the open alarm of a rule by hand, and does not raise it again until its condition was false once. Nothing
    /// where none is open.
    pub fn clear(
        &mut self,
        rules: &RuleSet,
        device: &Device,
        rule: Uid,
        request_id: &str,
    ) -> Vec<Transition> {
        self.by_person(rules, device, rule, TransitionKind::Cleared, request_id)
    }

    /// Says that somebody took the open alarm of a rule on. Nothing where none is open.
    pub fn acknowledge(
        &mut self,
        rules: &RuleSet,
        device: &Device,
        rule: Uid,
        request_id: &str,
    ) -> Vec<Transition> {
        self.by_person(rules, device, rule, TransitionKind::Acknowledged, request_id)
    }

    fn by_person(
        &mut self,
        rules: &RuleSet,
        device: &Device,
        rule: Uid,
        kind: TransitionKind,
        request_id: &str,
    ) -> Vec<Transition> {
        let Some(seen) = self.seen else { return Vec::new() }; // nothing was seen, so nothing is open
        let mut out = self.sync(rules, device, seen.position);
        let moment = Moment::of_person(seen.position, seen.ts, self.received);
        if let (Some(compiled), Some(state)) =
            (rules.get(rule), self.rules.iter_mut().find(|state| state.rule == rule))
        {
            let step = Step { compiled, series: &self.series, device, moment };
            out.extend(state.by_person(&step, kind, request_id));
        }
        out
    }

    /// Closes every open alarm: the device was removed. Throw the state away afterwards.
    pub fn remove_device(&mut self, device: &Device, position: Position) -> Vec<Transition> {
        let ts = self.seen.map_or(Timestamp::default(), |seen| seen.ts);
        self.rules
            .iter_mut()
            .filter_map(|state| state.close(device, position, ts, ClearReason::DeviceRemoved))
            .collect()
    }

    /// The state as bytes: everything that the next reading depends on.
    ///
    /// # Errors
    /// `Internal` where the clock cannot be encoded.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        codec::encode(self)
    }

    /// The state as [`DeviceState::to_bytes`] wrote it. It continues exactly where it stood.
    ///
    /// # Errors
    /// `DataLoss` where the bytes are not what this release writes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        codec::decode(bytes)
    }
}

/// A text that is too long for rules is kept as an empty blob: unknown, as the text itself would be.
fn bounded(value: &Value) -> Value {
    match value {
        Value::String(text) if text.len() > TEXT_MAX => Value::Bytes(Default::default()),
        Value::Bytes(_) => Value::Bytes(Default::default()),
        other => other.clone(),
    }
}
