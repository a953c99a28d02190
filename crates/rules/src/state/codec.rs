//! The state as bytes: a version, then fields in a fixed order; numbers as varints (LEB128), signed ones zigzag, event
//! times of samples as differences. What follows from the rest (windows, bindings) is not written.

use std::{collections::VecDeque, sync::Arc};

use weir_core::{Error, Position, Result, Timestamp, Uid, Value, event_clock::EventClock};

use super::{
    DeviceState, Seen,
    rule::{Open, RuleState},
};
use crate::{
    Severity,
    eval::Binding,
    series::{Last, MAX_SAMPLES_PER_METRIC, Series},
};

const VERSION: u8 = 2;
/// Without the end of the last outage.
const VERSION_1: u8 = 1;

pub(super) fn encode(state: &DeviceState) -> Result<Vec<u8>> {
    let mut to = Writer(vec![VERSION]);
    let clock = serde_json::to_vec(&state.clock)
        .map_err(|source| Error::internal("cannot encode a device's clock").with_source(source))?;
    to.bytes(&clock);
    to.option(state.position, Writer::position);
    to.option(state.seen, |to, seen| {
        to.position(seen.position);
        to.time(seen.ts);
    });
    to.time(state.received);
    to.list(&state.series, Writer::series);
    to.list(&state.rules, Writer::rule);
    to.time(state.listening_since);
    Ok(to.0)
}

pub(super) fn decode(bytes: &[u8]) -> Result<DeviceState> {
    let damaged = || Error::data_loss("cannot read the rules' state of a device: its bytes are damaged");
    match bytes.split_first() {
        Some((&version @ (VERSION_1 | VERSION), rest)) => {
            state(&mut Reader(rest), version).ok_or_else(damaged)
        }
        Some((version, _)) => Err(Error::data_loss(format!(
            "cannot read the rules' state of a device: it has version {version}, and this release reads up to {VERSION}"
        ))),
        None => Err(damaged()),
    }
}

fn state(from: &mut Reader<'_>, version: u8) -> Option<DeviceState> {
    let clock: EventClock = serde_json::from_slice(from.bytes()?).ok()?;
    let position = from.option(Reader::position)?;
    let seen = from.option(|from| Some(Seen { position: from.position()?, ts: from.time()? }))?;
    let received = from.time()?;
    let series = from.list(Reader::series)?;
    let rules = from.list(Reader::rule)?;
    let listening_since = if version == VERSION_1 { Timestamp::default() } else { from.time()? };
    from.0.is_empty().then_some(DeviceState {
        clock,
        position,
        seen,
        received,
        listening_since,
        series,
        rules,
        bound: false,
    })
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
    fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)) as u64);
    }
    fn time(&mut self, time: Timestamp) {
        self.signed(time.as_micros());
    }
    fn double(&mut self, double: f64) {
        self.0.extend(double.to_bits().to_be_bytes());
    }
    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }
    fn uid(&mut self, uid: Uid) {
        self.0.extend(uid.to_bytes());
    }
    fn position(&mut self, position: Position) {
        self.0.extend(position.to_bytes());
    }
    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.0.push(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }
    fn list<T>(&mut self, list: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.number(list.len() as u64);
        for item in list {
            write(self, item);
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Double(double) => {
                self.0.push(0);
                self.double(*double);
            }
            Value::Int64(number) => {
                self.0.push(1);
                self.signed(*number);
            }
            Value::Bool(truth) => self.0.push(2 + u8::from(*truth)),
            Value::String(text) => {
                self.0.push(4);
                self.bytes(text.as_bytes());
            }
            Value::Bytes(bytes) => {
                self.0.push(5);
                self.bytes(bytes);
            }
        }
    }

    fn series(&mut self, series: &Series) {
        self.bytes(series.name.as_bytes());
        self.option(series.last.as_ref(), |to, last| {
            to.time(last.ts);
            to.time(last.received_at);
            to.value(&last.value);
        });
        self.time(series.lost);
        self.number(series.samples().len() as u64);
        let mut before = 0;
        for (ts, value) in series.samples() {
            self.signed(ts.as_micros().wrapping_sub(before));
            self.double(*value);
            before = ts.as_micros();
        }
    }

    fn rule(&mut self, rule: &RuleState) {
        self.uid(rule.rule);
        self.number(rule.revision);
        self.list(&rule.floors, |to, (name, floor)| {
            to.bytes(name.as_bytes());
            to.time(*floor);
        });
        self.list(&rule.since, |to, since| to.option(*since, Self::time));
        self.option(rule.clear_since, Self::time);
        self.option(rule.open.as_ref(), |to, open| {
            to.uid(open.alarm);
            to.number(open.revision);
            to.0.push(open.severity as u8);
        });
        self.0.push(u8::from(rule.suppressed));
        self.option(rule.truth, |to, truth| to.0.push(u8::from(truth)));
        self.option(rule.raised_at, Self::position);
        self.option(rule.cleared_at, Self::position);
        self.list(&rule.commands, |to, (action, at)| {
            to.bytes(action.as_bytes());
            to.time(*at);
        });
    }
}

/// Reads what [`Writer`] writes; `None` where the bytes end too early or make no sense.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }
    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }
    fn truth(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
    fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }
    fn time(&mut self) -> Option<Timestamp> {
        self.signed().map(Timestamp::from_micros)
    }
    fn double(&mut self) -> Option<f64> {
        let bits = u64::from_be_bytes(self.take(8)?.try_into().ok()?);
        Some(f64::from_bits(bits)).filter(|double| double.is_finite())
    }
    fn length(&mut self) -> Option<usize> {
        // Everything takes at least one byte, so a count beyond the rest is damage, and never an allocation.
        usize::try_from(self.number()?).ok().filter(|length| *length <= self.0.len())
    }
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }
    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
    fn uid(&mut self) -> Option<Uid> {
        Some(Uid::from_bytes(self.take(16)?.try_into().ok()?))
    }
    fn position(&mut self) -> Option<Position> {
        Position::from_bytes(self.take(Position::LEN)?).ok()
    }
    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.truth()? { read(self).map(Some) } else { Some(None) }
    }
    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.length()?;
        (0..length).map(|_| read(self)).collect()
    }

    fn value(&mut self) -> Option<Value> {
        Some(match self.byte()? {
            0 => Value::Double(self.double()?),
            1 => Value::Int64(self.signed()?),
            2 => Value::Bool(false),
            3 => Value::Bool(true),
            4 => Value::String(self.text()?.to_owned()),
            5 => Value::Bytes(self.bytes()?.to_vec().into()),
            _ => return None,
        })
    }

    fn series(&mut self) -> Option<Series> {
        let name: Arc<str> = self.text()?.into();
        let last = self.option(|from| {
            Some(Last { ts: from.time()?, received_at: from.time()?, value: from.value()? })
        })?;
        let lost = self.time()?;
        let length = self.length().filter(|length| *length <= MAX_SAMPLES_PER_METRIC)?;
        let mut samples = VecDeque::with_capacity(length);
        let mut ts = 0_i64;
        for _ in 0..length {
            ts = ts.wrapping_add(self.signed()?);
            samples.push_back((Timestamp::from_micros(ts), self.double()?));
        }
        Some(Series::restore(name, last, lost, samples))
    }

    fn rule(&mut self) -> Option<RuleState> {
        Some(RuleState {
            rule: self.uid()?,
            revision: self.number()?,
            floors: self.list(|from| Some((from.text()?.into(), from.time()?)))?,
            since: self.list(|from| from.option(Self::time))?,
            clear_since: self.option(Self::time)?,
            open: self.option(|from| {
                let (alarm, revision, severity) = (from.uid()?, from.number()?, from.byte()?);
                let severity = Severity::ALL.get(usize::from(severity)).copied()?;
                Some(Open { alarm, revision, severity })
            })?,
            suppressed: self.truth()?,
            truth: self.option(Self::truth)?,
            raised_at: self.option(Self::position)?,
            cleared_at: self.option(Self::position)?,
            commands: self.list(|from| Some((from.text()?.to_owned(), from.time()?)))?,
            binding: Binding::default(),
        })
    }
}
