//! What the readers of JSON, CBOR and protobuf share: where in the payload they are, and the reading they build.

use std::sync::Arc;

use weir_core::{Error, Result, Timestamp, Value, device::Profile};

use super::{
    scalar::{self, Raw},
    time,
};
use crate::{config::Limits, explain::cut};

/// The key of the event time in the form with `values`.
pub(super) const TS: &str = "ts";
/// The key of the metrics in that form.
pub(super) const VALUES: &str = "values";

/// As much of a path as an error repeats: the longest good one, a metric's name within `[999].values.`, is a third of it.
const FIELD_MAX: usize = 512;

/// How a path says that a key is no name.
const NAMELESS: &str = "\"\"";

/// How the payload was written: text and typed wires differ in what a number may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Json,
    Cbor,
    Proto,
}

/// A reading before what carries no time is stamped.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Draft {
    pub(super) ts: Option<Timestamp>,
    pub(super) claimed: Option<Timestamp>,
    pub(super) values: Vec<(Arc<str>, Value)>,
}

/// What the key of a reading's outermost object begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Ts,
    Values,
    Metric,
}

/// The state of one decode.
pub(super) struct Context<'a> {
    pub(super) profile: &'a Profile,
    pub(super) limits: &'a Limits,
    pub(super) wire: Wire,
    pub(super) payload: &'a [u8],
    pub(super) now: Timestamp,
    pub(super) readings: Vec<Draft>,
    /// Why the visitors stopped: serde's errors carry only text.
    pub(super) error: Option<Error>,
    pub(super) draft: Draft,
    /// The name of the metric at hand: keys joined with dots.
    path: String,
    depth: usize,
    in_array: bool,
    in_values: bool,
    seen_ts: bool,
    seen_values: bool,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        profile: &'a Profile,
        limits: &'a Limits,
        wire: Wire,
        payload: &'a [u8],
        now: Timestamp,
    ) -> Self {
        Self {
            profile,
            limits,
            wire,
            payload,
            now,
            readings: Vec::new(),
            error: None,
            draft: Draft::default(),
            path: String::new(),
            depth: 0,
            in_array: false,
            in_values: false,
            seen_ts: false,
            seen_values: false,
        }
    }

    /// The path of the part at hand: `temp`, `values.temp`, `[3].values.temp`, `[3]`; empty for the payload as a whole.
    pub(super) fn field(&self) -> String {
        let mut field = if self.in_array { format!("[{}]", self.readings.len()) } else { String::new() };
        for part in [if self.in_values { VALUES } else { "" }, &self.path] {
            if !part.is_empty() {
                if !field.is_empty() {
                    field.push('.');
                }
                field.push_str(part);
            }
        }
        if field.len() > FIELD_MAX {
            field.truncate(cut(&field, FIELD_MAX).len());
            field.push('…');
        }
        field
    }

    /// The path of a key that is no name, in the part at hand: `""`, `[3].values.""`.
    pub(super) fn nameless(&self) -> String {
        match self.field() {
            field if field.is_empty() => NAMELESS.to_owned(),
            field => format!("{field}.{NAMELESS}"),
        }
    }

    /// An error about the part at hand.
    pub(super) fn wrong(&self, reason: &'static str, text: impl Into<String>) -> Error {
        let error = Error::new(weir_core::ErrorKind::InvalidArgument, reason, text);
        match self.field() {
            field if field.is_empty() => error,
            field => error.with_field(field),
        }
    }

    /// The payload is an array.
    pub(super) fn array(&mut self) -> Result<()> {
        self.enter()?;
        self.in_array = true;
        Ok(())
    }

    /// The array ended.
    pub(super) fn array_end(&mut self) -> Result<()> {
        self.leave();
        self.in_array = false;
        if self.readings.is_empty() {
            return Err(super::message_empty());
        }
        Ok(())
    }

    /// An object or array begins.
    pub(super) fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        let max = self.limits.nesting;
        if self.depth > max {
            let text = format!("objects and arrays may nest at most {max} levels");
            return Err(self.wrong("NESTING_TOO_DEEP", text).with_limit(max));
        }
        Ok(())
    }

    /// It ended.
    pub(super) fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    /// A reading begins.
    pub(super) fn reading_begin(&mut self) -> Result<()> {
        let max = self.limits.readings_per_message;
        if self.readings.len() >= max {
            let text = format!("a message may have at most {max} readings");
            return Err(self.wrong("TOO_MANY_READINGS", text).with_limit(max));
        }
        self.draft = Draft::default();
        (self.seen_ts, self.seen_values) = (false, false);
        self.enter()
    }

    /// A key of the reading's outermost object. Follow with [`Context::pop`].
    pub(super) fn key(&mut self, key: &str) -> Result<Role> {
        self.path.clear();
        self.path.push_str(key);
        match key {
            TS if std::mem::replace(&mut self.seen_ts, true) => Err(self.twice()),
            TS => Ok(Role::Ts),
            VALUES if self.seen_values => Err(self.twice()),
            VALUES => Ok(Role::Values),
            _ if self.seen_values => Err(self.mixed()),
            _ => Ok(Role::Metric),
        }
    }

    /// The value of `values` is an object: its metrics follow.
    pub(super) fn values_begin(&mut self) -> Result<()> {
        if !self.draft.values.is_empty() {
            return Err(self.mixed());
        }
        self.seen_values = true;
        self.path.clear();
        self.in_values = true;
        Ok(())
    }

    /// What follows is within `values`.
    pub(super) fn within_values(&mut self) {
        (self.in_values, self.seen_values) = (true, true);
    }

    /// The object in `values` ended.
    pub(super) fn values_end(&mut self) {
        self.in_values = false;
    }

    /// A key of a nested object; give what it returns to [`Context::pop`].
    pub(super) fn push(&mut self, key: &str) -> usize {
        let mark = self.path.len();
        if mark > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        mark
    }

    /// Back to the object around.
    pub(super) fn pop(&mut self, mark: usize) {
        self.path.truncate(mark);
    }

    /// The reading's event time.
    pub(super) fn ts(&mut self, raw: &Raw<'_>) -> Result<()> {
        if let Some(claimed) = time::parse(raw).map_err(|text| self.wrong("TIMESTAMP_INVALID", text))? {
            self.claim(claimed, raw)?;
        }
        Ok(())
    }

    /// Takes an event time by the profile's policy.
    pub(super) fn claim(&mut self, claimed: time::Claimed, raw: &Raw<'_>) -> Result<()> {
        let (ts, claimed) = time::admit(self.profile, self.now, claimed, raw)
            .map_err(|error| error.with_field(self.field()))?;
        self.draft.ts = ts;
        self.draft.claimed = claimed;
        Ok(())
    }

    /// A metric's value, under the name at hand. `null` is an absent key.
    pub(super) fn scalar(&mut self, raw: &Raw<'_>) -> Result<()> {
        if matches!(raw, Raw::Null) {
            return Ok(());
        }
        let max = self.limits.metrics_per_reading;
        if self.draft.values.len() >= max {
            let text = format!("a reading may have at most {max} metrics");
            return Err(self.wrong("TOO_MANY_METRICS", text).with_limit(max));
        }
        self.check_name()?;
        let declared = self.profile.metrics.get_key_value(self.path.as_str());
        let value_type = declared.map(|(_, metric)| metric.value_type);
        let value = scalar::typed(raw, value_type, self.wire, self.payload).map_err(|wrong| {
            let error = self.wrong(wrong.reason, format!("{} {}", self.name(), wrong.text));
            match wrong.limit {
                Some(limit) => error.with_limit(limit),
                None => error,
            }
        })?;
        let name = declared.map_or_else(|| self.intern(), |(name, _)| Arc::clone(name));
        self.draft.values.push((name, value));
        Ok(())
    }

    /// The reading ended.
    pub(super) fn reading_end(&mut self) -> Result<()> {
        self.leave();
        self.path.clear();
        if self.seen_ts && !self.seen_values {
            self.path.push_str(TS);
            return Err(self.wrong(
                "TIMESTAMP_WITHOUT_VALUES",
                "an object with ts must have values beside it: {\"ts\": …, \"values\": {…}}",
            ));
        }
        self.seal()?;
        self.readings.push(std::mem::take(&mut self.draft));
        Ok(())
    }

    /// Checks the draft as a whole.
    pub(super) fn seal(&mut self) -> Result<()> {
        if let Some(name) = repeated(&self.draft.values) {
            self.path.clear();
            self.path.push_str(&name);
            self.in_values = self.seen_values;
            return Err(self.twice());
        }
        if self.draft.values.is_empty() {
            self.path.clear();
            self.in_values = true; // where they should be
            let text = "the reading has no values; it must have at least 1";
            return Err(self.wrong("READING_EMPTY", text).with_limit(1));
        }
        Ok(())
    }

    fn twice(&self) -> Error {
        self.wrong("NAME_REPEATED", format!("{} comes twice in one reading", self.name()))
    }

    fn mixed(&self) -> Error {
        self.wrong("VALUES_NOT_ALONE", "an object with values in it may have only ts beside them")
    }

    /// The name at hand, for people.
    fn name(&self) -> String {
        format!("{:?}", short(&self.path))
    }

    fn check_name(&self) -> Result<()> {
        let max = self.limits.metric_name.as_usize();
        if self.path.is_empty() || self.path.len() > max {
            let text = format!(
                "the metric name {} has {} bytes; it must have 1 to {max}",
                self.name(),
                self.path.len()
            );
            let error = self.wrong("NAME_INVALID", text).with_limit(max);
            return Err(if self.path.is_empty() { error.with_field(self.nameless()) } else { error });
        }
        if self.path.chars().any(char::is_control) {
            let text = format!("the metric name {} has a control character", self.name());
            return Err(self.wrong("NAME_INVALID", text));
        }
        Ok(())
    }

    /// The name at hand; shared with the reading before, which mostly has the same names in the same order.
    fn intern(&self) -> Arc<str> {
        let place = self.draft.values.len();
        match self.readings.last().and_then(|reading| reading.values.get(place)) {
            Some((name, _)) if **name == *self.path => Arc::clone(name),
            _ => Arc::from(self.path.as_str()),
        }
    }
}

/// A name that comes twice.
fn repeated(values: &[(Arc<str>, Value)]) -> Option<Arc<str>> {
    /// Below it comparing all pairs is faster than sorting.
    const FEW: usize = 12;
    if values.len() <= FEW {
        let mut rest = values;
        while let [(name, _), tail @ ..] = rest {
            if tail.iter().any(|(other, _)| other == name) {
                return Some(Arc::clone(name));
            }
            rest = tail;
        }
        return None;
    }
    let mut names: Vec<&Arc<str>> = values.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.windows(2).find_map(|pair| match pair {
        [a, b] if a == b => Some(Arc::clone(a)),
        _ => None,
    })
}

/// At most so much of a client's text goes into an error.
fn short(text: &str) -> String {
    const SHOWN: usize = 64;
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}
