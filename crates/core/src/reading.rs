//! A reading, and the message that carried it.

use std::sync::Arc;

use crate::{DeviceId, TenantId, Timestamp, Uid, Value};

/// One (device, ts, {metric: value}). Both times are fixed at the edge, before the frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Event time.
    pub ts: Timestamp,
    /// When the edge received it.
    pub received_at: Timestamp,
    /// The event time that the device claimed, where `on_bad_time: arrival` replaced it.
    pub claimed_ts: Option<Timestamp>,
    /// One value a metric, in the order of the payload; no name twice; at least one.
    pub values: Vec<(Arc<str>, Value)>,
}

/// What a device sent in one piece: acknowledged, refused and framed as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Whose it is.
    pub tenant: TenantId,
    /// The device's public id.
    pub device: DeviceId,
    /// The device's internal uid, new at each creation; the key of everything stored.
    pub uid: Uid,
    /// 1 to 1,000 readings.
    pub readings: Vec<Reading>,
    /// W3C `traceparent` of the sender, where it gave one (≤ 55 bytes of version 00).
    pub trace_context: Option<Arc<str>>,
}
