//! Points of a range.

use std::{collections::VecDeque, sync::Arc};

use serde::{Deserialize, Serialize};
use weir_core::{
    DeviceId, Error, Result, TenantId, Timestamp, Uid,
    device::Device,
    port::{ScanOrder, SeriesKey},
};
use weir_grpc::page;

use super::{Devices, Permit, Point, Stats, Wants};
use crate::read::{Instants, Range, Reader};

/// Points of a page at most.
const POINTS_MAX: usize = 1_000;
/// Bytes of a page after which it is full: with one largest value more, below gRPC's 4 MiB.
const PAGE_BYTES: usize = 1 << 20;

/// Asks for points.
pub(crate) struct PointRequest {
    pub(crate) tenant: TenantId,
    pub(crate) devices: Devices,
    pub(crate) wants: Wants,
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    pub(crate) order: ScanOrder,
    /// All of them if none.
    pub(crate) limit: Option<u64>,
    pub(crate) resume_cursor: String,
}

/// Some of the points.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PointPage {
    pub(crate) points: Vec<Point>,
    pub(crate) cursor: String,
    /// On the last page.
    pub(crate) stats: Option<Stats>,
}

/// After this point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct After {
    /// The request that gave it.
    request: u64,
    device: DeviceId,
    ts: Timestamp,
    metric: String,
}

/// An answer, page by page.
pub(crate) struct Points {
    reader: Reader,
    request: PointRequest,
    request_hash: u64,
    devices: VecDeque<Arc<Device>>,
    /// Of the first device.
    instants: Option<Instants>,
    /// Of one instant: not on a page yet.
    ahead: VecDeque<Point>,
    after: Option<After>,
    given: u64,
    ended: bool,
    _permit: Permit,
}

impl Points {
    /// `devices`: those that the request means, in order of their ids.
    ///
    /// # Errors
    /// `CURSOR_INVALID` for a cursor of another request.
    pub(crate) fn new(
        reader: Reader,
        request: PointRequest,
        devices: Vec<Arc<Device>>,
        permit: Permit,
    ) -> Result<Self> {
        let request_hash = hash(&request);
        let after = parse(&request.resume_cursor, request_hash)?;
        let is_left = |device: &Arc<Device>| after.as_ref().is_none_or(|after| device.id >= after.device);
        let devices = devices.into_iter().filter(is_left).collect();
        Ok(Self {
            reader,
            request,
            request_hash,
            devices,
            instants: None,
            ahead: VecDeque::new(),
            after,
            given: 0,
            ended: false,
            _permit: permit,
        })
    }

    /// The next page; none after the last, which has the statistics.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn next(&mut self) -> Result<Option<PointPage>> {
        if self.ended {
            return Ok(None);
        }
        let (mut points, mut bytes) = (Vec::new(), 0);
        while points.len() < POINTS_MAX && bytes < PAGE_BYTES {
            if self.request.limit.is_some_and(|limit| self.given >= limit) {
                self.ended = true;
                break;
            }
            match self.next_point().await? {
                Some(point) => {
                    bytes += point.weight();
                    points.push(point);
                    self.given += 1;
                }
                None => {
                    self.ended = true;
                    break;
                }
            }
        }
        if let Some(last) = points.last() {
            self.after = Some(After {
                request: self.request_hash,
                device: last.device.clone(),
                ts: last.ts,
                metric: last.metric.to_string(),
            });
        }
        let cursor = self.after.as_ref().map(to_text).transpose()?.unwrap_or_default();
        let stats = self.ended.then(|| Stats::of(&self.reader.read, self.given));
        Ok(Some(PointPage { points, cursor, stats }))
    }

    async fn next_point(&mut self) -> Result<Option<Point>> {
        loop {
            if let Some(point) = self.ahead.pop_front() {
                return Ok(Some(point));
            }
            let Some(device) = self.devices.front().cloned() else { return Ok(None) };
            if self.instants.is_none() {
                self.instants = Some(self.open(&device));
            }
            let Some(instants) = &mut self.instants else { return Ok(None) };
            let Some((ts, values)) = instants.next().await? else {
                self.instants = None;
                self.devices.pop_front();
                continue;
            };
            let after = self.after.as_ref().filter(|after| after.device == device.id && after.ts == ts);
            let points = values.into_iter().map(|(metric, winner)| Point {
                device: device.id.clone(),
                ts,
                metric,
                value: winner.value,
                received_at: winner.received_at,
                position: winner.position,
            });
            self.ahead.extend(points.filter(|point| after.is_none_or(|after| *point.metric > *after.metric)));
        }
    }

    /// From the cursor's ts on, since the limit may have cut it; what was given at it is left out again.
    fn open(&self, device: &Device) -> Instants {
        let mut range = Range {
            series: SeriesKey { tenant: device.tenant.clone(), uid: device.uid },
            from: self.request.from,
            to: self.request.to,
            order: self.request.order,
        };
        if let Some(after) = self.after.as_ref().filter(|after| after.device == device.id) {
            match range.order {
                ScanOrder::Ascending => range.from = range.from.max(after.ts),
                ScanOrder::Descending => {
                    range.to = range.to.min(Timestamp::from_micros(after.ts.as_micros().saturating_add(1)));
                }
            }
        }
        Instants::new(self.reader.clone(), range, self.request.wants.names())
    }
}

/// Tells requests apart, so that a cursor is not taken for another one.
fn hash(request: &PointRequest) -> u64 {
    let devices = match &request.devices {
        Devices::Ids(ids) => format!("ids {ids:?}"),
        Devices::Selector(selector) => format!("selector {selector}"),
    };
    let mut metrics: Vec<Arc<str>> =
        request.wants.names().map(|names| names.iter().cloned().collect()).unwrap_or_default();
    metrics.sort_unstable();
    let parts = [
        request.tenant.to_string(),
        devices,
        format!("{metrics:?}"),
        format!("{} {} {:?}", request.from.as_micros(), request.to.as_micros(), request.order),
    ];
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    (Uid::hash(&parts).as_u128() >> 64) as u64
}

fn to_text(after: &After) -> Result<String> {
    weir_core::json::to_bytes(after).map(page::token)
}

fn parse(cursor: &str, request: u64) -> Result<Option<After>> {
    let invalid = || {
        Error::invalid(
            "resume_cursor",
            "CURSOR_INVALID",
            "resume_cursor is not one that a query for the same was given",
        )
    };
    let Some(bytes) = page::key(cursor).map_err(|_| invalid())? else { return Ok(None) };
    let after: After = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
    if after.request == request { Ok(Some(after)) } else { Err(invalid()) }
}
