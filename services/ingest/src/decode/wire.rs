//! Readings as gRPC carries them.

use weir_core::{Error, Result};
use weir_proto::common::v1::{self as pb, value::Kind};

use super::{
    context::{Context, Draft},
    scalar::Raw,
    time::Claimed,
};
use crate::config::Limits;

/// Checks how many readings an item has.
///
/// # Errors
/// `MESSAGE_EMPTY`, `TOO_MANY_READINGS`.
pub(super) fn check_count(count: usize, limits: &Limits) -> Result<()> {
    let max = limits.readings_per_message;
    match count {
        0 => Err(super::message_empty()),
        count if count > max => Err(Error::invalid(
            "readings",
            "TOO_MANY_READINGS",
            format!("the message has {count} readings; it may have at most {max}"),
        )
        .with_limit(max)),
        _ => Ok(()),
    }
}

impl Context<'_> {
    /// One reading; its error's field is relative to it (`ts`, `values.temp`).
    pub(super) fn reading(&mut self, reading: pb::Reading) -> Result<Draft> {
        let done = self.read(reading);
        let draft = std::mem::take(&mut self.draft);
        self.values_end();
        self.pop(0);
        done.map(|()| draft)
    }

    fn read(&mut self, reading: pb::Reading) -> Result<()> {
        if let Some(ts) = &reading.ts {
            let claimed = weir_grpc::convert::to_timestamp("ts", ts)?;
            self.push("ts");
            self.claim(Claimed::At(claimed), &Raw::Null)?;
            self.pop(0);
        }
        // By name, so that the readings of a device have one shape in their frame.
        let mut values: Vec<_> = reading.values.into_iter().collect();
        values.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        self.within_values();
        for (name, value) in &values {
            self.push(name);
            let raw = match &value.kind {
                Some(Kind::DoubleValue(value)) => Raw::Float(*value),
                Some(Kind::Int64Value(value)) => Raw::Int(i128::from(*value)),
                Some(Kind::BoolValue(value)) => Raw::Bool(*value),
                Some(Kind::StringValue(value)) => Raw::Text(value),
                Some(Kind::BytesValue(value)) => Raw::Bytes(value),
                None => return Err(self.wrong("VALUE_MISSING", "the value has no kind set")),
            };
            self.scalar(&raw)?;
            self.pop(0);
        }
        self.seal()
    }
}
