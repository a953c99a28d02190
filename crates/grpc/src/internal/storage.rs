//! `RuleScanService` of `weir.storage.v1`.

use std::sync::Arc;

use weir_core::{
    Result, TenantId, Timestamp, Value,
    port::{RuleRow, RuleScan},
};
use weir_proto::storage::v1 as pb;

use super::{from_position, from_uid, required, to_position, to_position_opt, to_uid};
use crate::convert::{from_value, to_value};

/// A scan on the wire.
pub fn from_scan(scan: &RuleScan) -> pb::ScanForRulesRequest {
    pb::ScanForRulesRequest {
        tenant: scan.tenant.as_str().to_owned(),
        uid: from_uid(scan.uid),
        after: scan.after.map(from_position).unwrap_or_default(),
        through: scan.through.map(from_position).unwrap_or_default(),
        from_micros: scan.from.as_micros(),
        to_micros: scan.to.as_micros(),
    }
}

/// A scan from the wire.
///
/// # Errors
/// `InvalidArgument` for an id or a position that cannot be one.
pub fn to_scan(request: &pb::ScanForRulesRequest) -> Result<RuleScan> {
    Ok(RuleScan {
        tenant: TenantId::new(&request.tenant)?,
        uid: to_uid("uid", &request.uid)?,
        after: to_position_opt("after", &request.after)?,
        through: to_position_opt("through", &request.through)?,
        from: Timestamp::from_micros(request.from_micros),
        to: Timestamp::from_micros(request.to_micros),
    })
}

/// A row on the wire.
pub fn from_row(row: RuleRow) -> pb::RuleRow {
    let value = |(metric, value): (Arc<str>, Value)| pb::MetricValue {
        metric: metric.as_ref().to_owned(),
        value: Some(from_value(value)),
    };
    pb::RuleRow {
        position: from_position(row.position),
        ts_micros: row.ts.as_micros(),
        receive_micros: row.received_at.as_micros(),
        values: row.values.into_iter().map(value).collect(),
    }
}

/// A row from the wire.
///
/// # Errors
/// `InvalidArgument` for a position or a value that is missing or cannot be one.
pub fn to_row(row: pb::RuleRow) -> Result<RuleRow> {
    let value = |value: pb::MetricValue| -> Result<(Arc<str>, Value)> {
        Ok((value.metric.into(), to_value(required("values.value", value.value)?)?))
    };
    Ok(RuleRow {
        position: to_position("position", &row.position)?,
        ts: Timestamp::from_micros(row.ts_micros),
        received_at: Timestamp::from_micros(row.receive_micros),
        values: row.values.into_iter().map(value).collect::<Result<_>>()?,
    })
}
