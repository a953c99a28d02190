//! Payloads to readings.
//!
//! A payload is an object or an array of objects. An object that has `values` with an object in it is
//! `{"ts": …, "values": {…}}` and may have nothing else; any other is `{metric: value, …}`, stamped on arrival, and may not
//! have a metric called `ts`: that is a form half written, and taking it would lose the time in silence.
//!
//! One pass by hand-written visitors: there is no tree in between, so that a payload costs what it says and its depth is
//! bounded before it is followed. JSON and CBOR go through the same visitors.

use std::sync::Arc;

use weir_core::{Clock, Error, Message, Reading, Result, Timestamp, device::Profile};
use weir_proto::common::v1 as pb;

use self::{
    arrivals::Arrivals,
    context::{Context, Draft, Wire},
};
use crate::{access::DeviceAccess, config::Limits};

mod arrivals;
mod cbor;
mod context;
mod json;
mod scalar;
#[cfg(test)]
mod tests;
mod time;
mod wire;

/// How a payload is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// RFC 8259.
    Json,
    /// RFC 8949.
    Cbor,
}

impl Format {
    /// By a content type (MQTT 5 property, HTTP header); an empty one is told by the payload's first byte.
    ///
    /// # Errors
    /// `CONTENT_TYPE_UNKNOWN` that names those that are known.
    pub(crate) fn of(content_type: &str, payload: &[u8]) -> Result<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        match essence {
            "" => Ok(Self::sniff(payload)),
            known if known.eq_ignore_ascii_case("application/json") => Ok(Self::Json),
            known if known.eq_ignore_ascii_case("application/cbor") => Ok(Self::Cbor),
            other => {
                let shown: String = other.chars().take(100).collect();
                Err(Error::invalid(
                    "content-type",
                    "CONTENT_TYPE_UNKNOWN",
                    format!("content type {shown:?} must be application/json or application/cbor"),
                ))
            }
        }
    }

    /// By the first byte: a CBOR map or array (0x80 to 0xbf) is never the start of JSON.
    pub(crate) fn sniff(payload: &[u8]) -> Self {
        match payload.first() {
            Some(0x80..=0xbf) => Self::Cbor,
            _ => Self::Json,
        }
    }
}

/// Decodes payloads by the limits and the profile of the device, and stamps what carries no time.
pub(crate) struct Decoder {
    limits: Limits,
    clock: Arc<dyn Clock>,
    arrivals: Arrivals,
}

impl Decoder {
    pub(crate) fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        Self { limits, clock, arrivals: Arrivals::default() }
    }

    /// The message in `payload`, whole or not at all.
    ///
    /// # Errors
    /// `InvalidArgument` whose field is the path of the part that is wrong: `temp`, `values.temp`, `[3].values.temp`.
    pub(crate) fn decode(&self, from: &DeviceAccess, format: Format, payload: &[u8]) -> Result<Message> {
        let now = self.clock.now();
        let drafts = parse(&from.profile, &self.limits, format, payload, now)?;
        let mut stamps = self.stamps(from, unstamped(drafts.iter()), now);
        let readings = drafts.into_iter().map(|draft| finish(draft, now, &mut stamps)).collect();
        Ok(from.message(readings, None))
    }

    /// The readings of a gRPC item, each by itself.
    ///
    /// # Errors
    /// `InvalidArgument` where the number of readings is out of range; those within are for one reading each.
    pub(crate) fn readings(
        &self,
        from: &DeviceAccess,
        readings: Vec<pb::Reading>,
    ) -> Result<Vec<Result<Reading>>> {
        wire::check_count(readings.len(), &self.limits)?;
        let now = self.clock.now();
        let mut context = Context::new(&from.profile, &self.limits, Wire::Proto, &[], now);
        let drafts = readings.into_iter().map(|reading| context.reading(reading)).collect::<Vec<_>>();
        let good = drafts.iter().filter_map(|draft| draft.as_ref().ok());
        let mut stamps = self.stamps(from, unstamped(good), now);
        Ok(drafts.into_iter().map(|draft| draft.map(|draft| finish(draft, now, &mut stamps))).collect())
    }

    /// Rising times for those that have none.
    fn stamps(
        &self,
        from: &DeviceAccess,
        count: usize,
        now: Timestamp,
    ) -> impl Iterator<Item = Timestamp> + use<> {
        self.arrivals.stamp(from.device.uid, now, count)
    }
}

fn unstamped<'d>(drafts: impl Iterator<Item = &'d Draft>) -> usize {
    drafts.filter(|draft| draft.ts.is_none()).count()
}

fn finish(draft: Draft, now: Timestamp, stamps: &mut impl Iterator<Item = Timestamp>) -> Reading {
    let ts = draft.ts.or_else(|| stamps.next()).unwrap_or(now);
    Reading { ts, received_at: now, claimed_ts: draft.claimed, values: draft.values }
}

fn parse(
    profile: &Profile,
    limits: &Limits,
    format: Format,
    payload: &[u8],
    now: Timestamp,
) -> Result<Vec<Draft>> {
    let wire = match format {
        Format::Json => Wire::Json,
        Format::Cbor => Wire::Cbor,
    };
    let mut context = Context::new(profile, limits, wire, payload, now);
    match format {
        Format::Json => json::read(&mut context)?,
        Format::Cbor => cbor::read(&mut context)?,
    }
    Ok(context.readings)
}

fn ts_form(context: &Context<'_>) -> Error {
    context.wrong("TIMESTAMP_INVALID", "ts must be epoch milliseconds or RFC 3339 with an offset")
}

fn array_refused(context: &Context<'_>) -> Error {
    context.wrong("ARRAY_REFUSED", "a value must not be an array; send one metric for each element")
}

fn message_empty() -> Error {
    Error::invalid("readings", "MESSAGE_EMPTY", "the message has no readings; it must have at least 1")
        .with_limit(1)
}
