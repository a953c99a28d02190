//! Newest values.

use std::{collections::VecDeque, sync::Arc};

use weir_core::{DeviceId, Error, Result, device::Device, port::SeriesKey};
use weir_frame::row::decode_latest;
use weir_grpc::page;

use super::{Point, Wants};
use crate::read::Reader;

/// Points of a chunk at most.
const POINTS_MAX: usize = 500;
/// Bytes after which an answer is full: with one largest value more, below gRPC's 4 MiB.
const CHUNK_BYTES: usize = 1 << 20;

/// After this metric of this device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageToken {
    device: DeviceId,
    /// After all of the device if none.
    metric: Option<Arc<str>>,
}

impl PageToken {
    pub(crate) fn to_text(&self) -> String {
        let metric = self.metric.as_ref().map(|metric| format!("\0{metric}")).unwrap_or_default();
        page::token(format!("{}{metric}", self.device))
    }

    /// # Errors
    /// `PAGE_TOKEN_INVALID` for a token that was not given out.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>> {
        let Some(bytes) = page::key(text)? else { return Ok(None) };
        let invalid =
            || Error::invalid("page_token", "PAGE_TOKEN_INVALID", "page_token is not one that a page gave");
        let text = String::from_utf8(bytes).map_err(|_| invalid())?;
        let (device, metric) = match text.split_once('\0') {
            Some((device, metric)) => (device, Some(Arc::from(metric))),
            None => (text.as_str(), None),
        };
        Ok(Some(Self { device: DeviceId::new(device).map_err(|_| invalid())?, metric }))
    }

    fn leaves(&self, device: &DeviceId) -> bool {
        match &self.metric {
            Some(_) => *device >= self.device,
            None => *device > self.device,
        }
    }
}

/// The newest values of devices, in order of (device, metric).
pub(crate) struct Latest {
    reader: Reader,
    devices: VecDeque<Arc<Device>>,
    wants: Wants,
    after: Option<PageToken>,
    /// Of the device that was read last.
    ahead: VecDeque<Point>,
}

impl Latest {
    /// `devices` in order of their ids; only what is `after`.
    pub(crate) fn new(
        reader: Reader,
        devices: Vec<Arc<Device>>,
        wants: Wants,
        after: Option<PageToken>,
    ) -> Self {
        let is_left = |device: &Arc<Device>| after.as_ref().is_none_or(|after| after.leaves(&device.id));
        let devices = devices.into_iter().filter(is_left).collect();
        Self { reader, devices, wants, after, ahead: VecDeque::new() }
    }

    /// Some points, never empty; none at the end.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Point>>> {
        let (mut points, mut bytes) = (Vec::new(), 0);
        while points.len() < POINTS_MAX && bytes < CHUNK_BYTES {
            if self.ahead.is_empty() && self.read_device().await?.is_none() {
                break;
            }
            if let Some(point) = self.ahead.pop_front() {
                bytes += point.weight();
                points.push(point);
            }
        }
        Ok((!points.is_empty()).then_some(points))
    }

    /// The points of at most `size` devices, and where the next page begins.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn page(mut self, size: usize) -> Result<(Vec<Point>, Option<PageToken>)> {
        let (mut points, mut bytes) = (Vec::<Point>::new(), 0);
        for _ in 0..size {
            let Some(device) = self.read_device().await? else { return Ok((points, None)) };
            for point in std::mem::take(&mut self.ahead) {
                if bytes >= CHUNK_BYTES {
                    let token = points.last().map(|last| PageToken {
                        device: last.device.clone(),
                        metric: Some(Arc::clone(&last.metric)),
                    });
                    return Ok((points, token));
                }
                bytes += point.weight();
                points.push(point);
            }
            if self.devices.is_empty() {
                return Ok((points, None));
            }
            self.after = Some(PageToken { device: device.id.clone(), metric: None });
        }
        Ok((points, self.after))
    }

    async fn read_device(&mut self) -> Result<Option<Arc<Device>>> {
        let Some(device) = self.devices.pop_front() else { return Ok(None) };
        let series = SeriesKey { tenant: device.tenant.clone(), uid: device.uid };
        let mut cells = self.reader.store.latest(&series).await?;
        cells.retain(|cell| self.wants.metric(&cell.metric));
        if let Some(PageToken { device: of, metric: Some(metric) }) = &self.after
            && *of == device.id
        {
            cells.retain(|cell| cell.metric > *metric);
        }
        cells.sort_unstable_by(|a, b| a.metric.cmp(&b.metric));
        for cell in cells {
            let latest = decode_latest(&cell.body)?;
            self.ahead.push_back(Point {
                device: device.id.clone(),
                ts: cell.ts,
                metric: cell.metric,
                value: latest.value,
                received_at: latest.received_at,
                position: cell.position,
            });
        }
        Ok(Some(device))
    }
}
