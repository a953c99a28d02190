//! Devices, rules and rows in few words.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use weir_core::{
    Partition, Position, Stream, TenantId, Timestamp, Uid, Value, device::Device, id::ResourceId,
    port::RuleRow,
};
use weir_rules::{Compiled, Rule, RuleSet, Transition, parse_duration};

pub(crate) fn device() -> Device {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    Device {
        tenant: TenantId::new("default").unwrap(),
        id: weir_core::DeviceId::new("room-1").unwrap(),
        uid: Uid::from_u128(7),
        profile: "default".to_owned(),
        labels: map(&[("type", "room"), ("floor", "2")]),
        attributes: map(&[("site", "north")]),
        enabled: true,
        gateway: false,
        created_at: Timestamp::default(),
        updated_at: Timestamp::default(),
    }
}

pub(crate) fn position(sequence: u64) -> Position {
    Position { stream: Stream::Readings, generation: 1, sequence, index: 0, partition: Partition(3) }
}

pub(crate) fn seconds(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

/// A row that arrived when it was measured.
pub(crate) fn row(sequence: u64, ts: i64, values: &[(&str, f64)]) -> RuleRow {
    let values = values.iter().map(|(name, value)| (Arc::from(*name), Value::Double(*value))).collect();
    RuleRow { position: position(sequence), ts: seconds(ts), received_at: seconds(ts), values }
}

pub(crate) fn rule(condition: &str) -> Rule {
    Rule::new(ResourceId::new("hot").unwrap(), Uid::from_u128(1), condition)
}

pub(crate) fn duration(text: &str) -> Duration {
    parse_duration(text).unwrap()
}

pub(crate) fn compiled(rule: &Rule) -> Arc<Compiled> {
    match Compiled::new(rule, None) {
        Ok(compiled) => Arc::new(compiled),
        Err(problems) => panic!("{problems}"),
    }
}

pub(crate) fn rules(rules: &[&Rule]) -> RuleSet {
    RuleSet::new(rules.iter().map(|rule| compiled(rule)))
}

/// Kind and event time of each, such as `raised@60`.
pub(crate) fn told(transitions: &[Transition]) -> Vec<String> {
    transitions.iter().map(|t| format!("{}@{}", t.kind.as_str(), t.ts.as_micros() / 1_000_000)).collect()
}

/// What a rule makes of rows of one metric `temp`, one (ts, value) after the other.
pub(crate) fn of_temp(rule: &Rule, rows: &[(i64, f64)]) -> Vec<String> {
    let rows = rows.iter().zip(1..).map(|((ts, value), sequence)| row(sequence, *ts, &[("temp", *value)]));
    told(&weir_rules::simulate(&rules(&[rule]), &device(), rows))
}
