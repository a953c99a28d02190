//! Evaluation in three-valued logic (Kleene's): `None` is unknown.

use std::borrow::Cow;

use weir_core::{Timestamp, Uid, Value, device::Device};

use crate::{
    Severity,
    expr::{AlarmField, Any, Arithmetic, Bool, Comparison, Map, Num, Text},
    series::{Last, Series},
};

/// Text longer than this is unknown to rules, in bytes, so that what a device's state holds of it stays small.
pub(crate) const TEXT_MAX: usize = 4_096;

/// Where a rule's metrics and windows are in the state of one device.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Binding {
    /// Of each metric: its series, and the event time up to which this rule does not see it.
    pub(crate) metrics: Vec<(usize, Timestamp)>,
    /// Of each window: its series and its place there.
    pub(crate) windows: Vec<(usize, usize)>,
}

/// The alarm that a template speaks of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AlarmFacts<'a> {
    pub(crate) id: Uid,
    pub(crate) rule: &'a str,
    pub(crate) severity: Severity,
}

/// What an expression sees.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) series: &'a [Series],
    pub(crate) binding: &'a Binding,
    pub(crate) device: &'a Device,
    /// The device's clock.
    pub(crate) now: Timestamp,
    /// Arrival time, for `absent`.
    pub(crate) received: Timestamp,
    pub(crate) alarm: Option<AlarmFacts<'a>>,
}

impl<'a> View<'a> {
    pub(crate) fn last(&self, metric: usize) -> Option<&'a Last> {
        let (series, floor) = self.binding.metrics.get(metric)?;
        self.series.get(*series)?.last.as_ref().filter(|last| last.ts > *floor)
    }

    fn metric_text(&self, metric: usize) -> Option<&'a str> {
        match &self.last(metric)?.value {
            Value::String(text) if text.len() <= TEXT_MAX => Some(text),
            _ => None,
        }
    }

    fn map(&self, map: Map) -> &'a std::collections::BTreeMap<String, String> {
        match map {
            Map::Labels => &self.device.labels,
            Map::Attributes => &self.device.attributes,
        }
    }

    pub(crate) fn window(&self, window: usize, aggregate: crate::expr::Aggregate) -> Option<f64> {
        let (series, window) = self.binding.windows.get(window)?;
        self.series.get(*series)?.aggregate(*window, aggregate, self.now)
    }
}

impl Num {
    pub(crate) fn eval(&self, view: &View<'_>) -> Option<f64> {
        let value = match self {
            Self::Const(value) => *value,
            Self::Metric(metric) => view.last(*metric)?.value.as_f64()?,
            Self::Window(window, aggregate) => view.window(*window, *aggregate)?,
            Self::Negate(inner) => -inner.eval(view)?,
            Self::Binary(operator, a, b) => {
                let (a, b) = (a.eval(view)?, b.eval(view)?);
                match operator {
                    Arithmetic::Add => a + b,
                    Arithmetic::Subtract => a - b,
                    Arithmetic::Multiply => a * b,
                    Arithmetic::Divide => a / b,
                    Arithmetic::Modulo => a % b,
                }
            }
            Self::If(condition, yes, no) => (if condition.eval(view)? { yes } else { no }).eval(view)?,
        };
        value.is_finite().then_some(value)
    }
}

impl Comparison {
    fn holds<T: PartialOrd + ?Sized>(self, a: &T, b: &T) -> bool {
        match self {
            Self::Equal => a == b,
            Self::NotEqual => a != b,
            Self::Less => a < b,
            Self::LessOrEqual => a <= b,
            Self::Greater => a > b,
            Self::GreaterOrEqual => a >= b,
        }
    }
}

/// Kleene's "and".
pub(crate) fn and(a: Option<bool>, b: impl FnOnce() -> Option<bool>) -> Option<bool> {
    match a {
        Some(false) => Some(false),
        Some(true) => b(),
        None => b().filter(|b| !b),
    }
}

/// Kleene's "or".
pub(crate) fn or(a: Option<bool>, b: impl FnOnce() -> Option<bool>) -> Option<bool> {
    match a {
        Some(true) => Some(true),
        Some(false) => b(),
        None => b().filter(|b| *b),
    }
}

impl Bool {
    pub(crate) fn eval(&self, view: &View<'_>) -> Option<bool> {
        match self {
            Self::Const(value) => Some(*value),
            Self::Metric(metric) => truth(&view.last(*metric)?.value),
            Self::Not(inner) => inner.eval(view).map(|value| !value),
            Self::And(a, b) => and(a.eval(view), || b.eval(view)),
            Self::Or(a, b) => or(a.eval(view), || b.eval(view)),
            Self::If(condition, yes, no) => (if condition.eval(view)? { yes } else { no }).eval(view),
            Self::Same(a, b, equal) => Some((a.eval(view)? == b.eval(view)?) == *equal),
            Self::CompareNum(comparison, a, b) => Some(comparison.holds(&a.eval(view)?, &b.eval(view)?)),
            Self::CompareText(comparison, a, b) => {
                Some(comparison.holds(a.eval(view)?.as_ref(), b.eval(view)?.as_ref()))
            }
            Self::CompareMetrics(comparison, a, b) => compare_metrics(*comparison, *a, *b, view),
            Self::NumIn(number, list) => number.eval(view).map(|number| list.contains(&number)),
            Self::TextIn(text, list) => {
                let text = text.eval(view)?;
                Some(list.iter().any(|item| *item == text))
            }
            Self::Contains(text, part) => Some(text.eval(view)?.contains(part.eval(view)?.as_ref())),
            Self::StartsWith(text, part) => Some(text.eval(view)?.starts_with(part.eval(view)?.as_ref())),
            Self::EndsWith(text, part) => Some(text.eval(view)?.ends_with(part.eval(view)?.as_ref())),
            Self::Matches(text, regex) => Some(regex.is_match(&text.eval(view)?)),
            Self::Has(map, key) => Some(view.map(*map).contains_key(key.eval(view)?.as_ref())),
            Self::Absent(metric, micros) => {
                let since = view.last(*metric)?.received_at;
                Some(view.received.as_micros().saturating_sub(since.as_micros()) >= *micros)
            }
        }
    }
}

/// Devices send truth values as such or as 1 and 0.
fn truth(value: &Value) -> Option<bool> {
    match (value, value.as_f64()) {
        (Value::Bool(value), _) => Some(*value),
        (_, Some(1.0)) => Some(true),
        (_, Some(0.0)) => Some(false),
        _ => None,
    }
}

fn compare_metrics(comparison: Comparison, a: usize, b: usize, view: &View<'_>) -> Option<bool> {
    if let (Some(a), Some(b)) = (view.metric_text(a), view.metric_text(b)) {
        return Some(comparison.holds(a, b));
    }
    let (a, b) = (view.last(a)?.value.as_f64()?, view.last(b)?.value.as_f64()?);
    Some(comparison.holds(&a, &b))
}

impl Text {
    pub(crate) fn eval<'a>(&'a self, view: &View<'a>) -> Option<Cow<'a, str>> {
        match self {
            Self::Const(text) => Some(Cow::Borrowed(text)),
            Self::Metric(metric) => view.metric_text(*metric).map(Cow::Borrowed),
            Self::DeviceId => Some(Cow::Borrowed(view.device.id.as_str())),
            Self::Entry(map, key) => {
                view.map(*map).get(key.eval(view)?.as_ref()).map(|text| Cow::Borrowed(text.as_str()))
            }
            Self::Alarm(field) => view.alarm.map(|alarm| match field {
                AlarmField::Id => Cow::Owned(alarm.id.to_string()),
                AlarmField::Rule => Cow::Borrowed(alarm.rule),
                AlarmField::Severity => Cow::Borrowed(alarm.severity.as_str()),
            }),
            Self::Concat(a, b) => {
                let mut text = a.eval(view)?.into_owned();
                text.push_str(&b.eval(view)?);
                (text.len() <= TEXT_MAX).then_some(Cow::Owned(text))
            }
            Self::If(condition, yes, no) => (if condition.eval(view)? { yes } else { no }).eval(view),
        }
    }
}

impl Any {
    /// As JSON; `null` where it is unknown. A whole double is written as an integer: devices expect `3`, not `3.0`.
    pub(crate) fn eval(&self, view: &View<'_>) -> serde_json::Value {
        match self {
            Self::Num(number) => number.eval(view).map_or(serde_json::Value::Null, number_json),
            Self::Bool(value) => value.eval(view).into(),
            Self::Text(text) => text.eval(view).map(Cow::into_owned).into(),
            Self::Metric(metric) => match view.last(*metric).map(|last| &last.value) {
                Some(Value::Double(value)) => number_json(*value),
                Some(Value::Int64(value)) => (*value).into(),
                Some(Value::Bool(value)) => (*value).into(),
                Some(Value::String(text)) if text.len() <= TEXT_MAX => text.clone().into(),
                Some(Value::String(_) | Value::Bytes(_)) | None => serde_json::Value::Null,
            },
        }
    }
}

fn number_json(value: f64) -> serde_json::Value {
    /// Integers up to here are exact as doubles.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT { (value as i64).into() } else { value.into() }
}
