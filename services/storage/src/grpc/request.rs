//! From the wire: who may ask, and what is asked.

use weir_core::{
    Error, Position, Result, TenantId, Timestamp, name,
    port::ScanOrder,
    principal::{Principal, Scope},
};
use weir_grpc::{
    convert::{to_duration_opt, to_timestamp_opt},
    page,
};
use weir_proto::storage::v1 as pb;

use crate::{
    query::{AggregateRequest, Devices, Function, PageToken, PointRequest, Spacing, Wants},
    service::LatestRequest,
    tail::TailRequest,
};

pub(super) fn points(caller: &Principal, request: pb::QueryRequest) -> Result<(PointRequest, Vec<Position>)> {
    let tenant = tenant(caller, &request.parent)?;
    let order = match pb::Order::try_from(request.order) {
        Ok(pb::Order::Unspecified | pb::Order::Ascending) => ScanOrder::Ascending,
        Ok(pb::Order::Descending) => ScanOrder::Descending,
        Err(_) => return Err(unknown("order", request.order)),
    };
    let limit = u64::try_from(request.limit).map_err(|_| {
        Error::invalid("limit", "LIMIT_INVALID", format!("limit {} must not be negative", request.limit))
            .with_limit(0)
    })?;
    let asked = PointRequest {
        tenant,
        devices: devices(request.filter)?,
        wants: Wants::new(request.metrics)?,
        from: to_timestamp_opt("start_time", request.start_time.as_ref())?.unwrap_or(Timestamp::MIN),
        to: to_timestamp_opt("end_time", request.end_time.as_ref())?.unwrap_or(Timestamp::MAX),
        order,
        limit: (limit > 0).then_some(limit),
        resume_cursor: request.resume_cursor,
    };
    Ok((asked, positions(&request.min_positions)?))
}

pub(super) fn aggregates(
    caller: &Principal,
    request: pb::AggregateRequest,
) -> Result<(AggregateRequest, Vec<Position>)> {
    let tenant = tenant(caller, &request.parent)?;
    let required = |field: &str, ts: Option<&prost_types::Timestamp>| {
        to_timestamp_opt(field, ts)?
            .ok_or_else(|| Error::invalid(field, "FIELD_MISSING", format!("{field} must be set")))
    };
    let step = to_duration_opt("step", request.step.as_ref())?;
    let asked = AggregateRequest {
        tenant,
        devices: devices(request.filter)?,
        wants: Wants::new(request.metrics)?,
        from: required("start_time", request.start_time.as_ref())?,
        to: required("end_time", request.end_time.as_ref())?,
        spacing: Spacing::new(step, &request.time_zone)?,
        functions: request.functions.into_iter().map(function).collect::<Result<_>>()?,
        percentiles: request.percentiles,
    };
    Ok((asked, positions(&request.min_positions)?))
}

pub(super) fn latest(
    caller: &Principal,
    request: pb::LatestRequest,
) -> Result<(LatestRequest, Vec<Position>)> {
    let tenant = tenant(caller, &request.parent)?;
    let asked = LatestRequest {
        tenant,
        devices: devices(request.filter)?,
        wants: Wants::new(request.metrics)?,
        page_size: page::size(request.page_size)?,
        after: PageToken::parse(&request.page_token)?,
    };
    Ok((asked, positions(&request.min_positions)?))
}

pub(super) fn tail(caller: &Principal, request: pb::TailRequest) -> Result<TailRequest> {
    Ok(TailRequest {
        tenant: tenant(caller, &request.parent)?,
        devices: devices(request.filter)?,
        wants: Wants::new(request.metrics)?,
        resume_cursor: request.resume_cursor,
    })
}

/// The tenant that is asked about, which the caller may read: before anything is looked up.
fn tenant(caller: &Principal, parent: &str) -> Result<TenantId> {
    let tenant = name::parse_tenant("parent", parent)?;
    caller.require(&tenant, Scope::Read)?;
    Ok(tenant)
}

fn devices(filter: Option<pb::DeviceFilter>) -> Result<Devices> {
    let filter = filter.unwrap_or_default();
    Devices::new(&filter.devices, &filter.label_selector)
}

fn positions(texts: &[String]) -> Result<Vec<Position>> {
    let parse = |(index, text): (usize, &String)| {
        text.parse().map_err(|error: Error| error.with_field(format!("min_positions[{index}]")))
    };
    texts.iter().enumerate().map(parse).collect()
}

fn function(number: i32) -> Result<Function> {
    match pb::Function::try_from(number) {
        Ok(pb::Function::Count) => Ok(Function::Count),
        Ok(pb::Function::Min) => Ok(Function::Min),
        Ok(pb::Function::Max) => Ok(Function::Max),
        Ok(pb::Function::Avg) => Ok(Function::Avg),
        Ok(pb::Function::Sum) => Ok(Function::Sum),
        Ok(pb::Function::First) => Ok(Function::First),
        Ok(pb::Function::Last) => Ok(Function::Last),
        Ok(pb::Function::Stddev) => Ok(Function::Stddev),
        Ok(pb::Function::Rate) => Ok(Function::Rate),
        Ok(pb::Function::Unspecified) | Err(_) => Err(unknown("functions", number)),
    }
}

fn unknown(field: &str, number: i32) -> Error {
    Error::invalid(field, "ENUM_UNKNOWN", format!("{field} has the unknown value {number}"))
}
