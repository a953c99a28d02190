//! Running rules over stored rows, with the same engine and without a server.

use weir_core::{Position, Reading, device::Device, event_clock::EventClock, port::RuleRow};

use crate::{DeviceState, RuleSet, Transition};

/// What rules see of the reading at `position`: its values that are not late by the device's clock, which moves. The row
/// of a reading that is late as a whole has no values.
pub fn rule_row(clock: &mut EventClock, position: Position, reading: &Reading) -> RuleRow {
    let mut on_time = Vec::with_capacity(reading.values.len());
    clock.observe(reading.ts, reading.values.iter().map(|(metric, _)| metric), |_, late| on_time.push(!late));
    RuleRow {
        position,
        ts: reading.ts,
        received_at: reading.received_at,
        values: reading
            .values
            .iter()
            .zip(on_time)
            .filter(|(_, keep)| *keep)
            .map(|(value, _)| value.clone())
            .collect(),
    }
}

/// What `rules` make of one device's rows, given in position order without late values, from a cold start at the first of
/// them. Begin [`crate::Compiled::warm_up`] before the first result that is to mean something. A caller with a stream of
/// rows, or with changes in between, feeds a [`DeviceState`] itself: this is no more than that.
pub fn simulate(
    rules: &RuleSet,
    device: &Device,
    rows: impl IntoIterator<Item = RuleRow>,
) -> Vec<Transition> {
    let mut state = DeviceState::default();
    rows.into_iter().flat_map(|row| state.apply(rules, device, &row)).collect()
}
