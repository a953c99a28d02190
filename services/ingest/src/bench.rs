//! What `benches/edge.rs` measures; nothing else uses it.

use std::{collections::VecDeque, sync::Arc};

use weir_core::{
    Clock, DeviceId, Result, SystemClock, TenantId, Uid,
    device::{Device, Profile},
    port::{Log, Records},
};

use crate::{
    access::DeviceAccess,
    config::Config,
    decode::{Decoder, Format},
    intake::{Intake, Pending, Source},
    metrics::{Metrics, Protocol},
};

/// Decodes payloads of devices, and puts them into the log.
pub struct Bench {
    decoder: Decoder,
    devices: Vec<DeviceAccess>,
}

/// The frame path over a log.
pub struct Path(Intake);

impl Bench {
    /// With so many devices of the default profile.
    ///
    /// # Errors
    /// None in practice: the ids are good.
    pub fn new(devices: usize) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let device = |n: usize| {
            let device = Device {
                tenant: TenantId::new("bench")?,
                id: DeviceId::new(format!("device-{n}"))?,
                uid: Uid::random(),
                profile: Profile::DEFAULT_ID.to_owned(),
                labels: Default::default(),
                attributes: Default::default(),
                enabled: true,
                gateway: false,
                created_at: clock.now(),
                updated_at: clock.now(),
            };
            Ok(DeviceAccess { device: Arc::new(device), profile: Arc::default() })
        };
        let devices = (0..devices).map(device).collect::<Result<_>>()?;
        Ok(Self { decoder: Decoder::new(Config::default().limits, clock), devices })
    }

    /// Decodes a payload and tells how many readings it has.
    ///
    /// # Errors
    /// Where it is refused.
    pub fn decode(&self, payload: &[u8]) -> Result<usize> {
        let Some(device) = self.devices.first() else { return Ok(0) };
        self.decoder.decode(device, Format::sniff(payload), payload).map(|message| message.readings.len())
    }

    /// Decodes `payload` `count` times, from one device after the other, and waits for all acks, at most `window` at a
    /// time. Tells how many readings the log has.
    ///
    /// # Errors
    /// Where one is refused.
    pub async fn publish(&self, path: &Path, payload: &[u8], count: usize, window: usize) -> Result<usize> {
        let mut readings = 0;
        let mut pending: VecDeque<Pending> = VecDeque::with_capacity(window);
        for device in self.devices.iter().cycle().take(count) {
            let message = self.decoder.decode(device, Format::sniff(payload), payload)?;
            readings += message.readings.len();
            if pending.len() >= window
                && let Some(oldest) = pending.pop_front()
            {
                oldest.await?;
            }
            pending.push_back(path.0.enqueue(message, Source::now(Protocol::Mqtt, payload.len())).await?);
        }
        for ack in pending {
            ack.await?;
        }
        Ok(readings)
    }
}

impl Path {
    /// Over these engines.
    ///
    /// # Errors
    /// As those of the engines.
    pub async fn start(log: Arc<dyn Log>, records: Arc<dyn Records>, partitions: u16) -> Result<Self> {
        let metrics = Arc::new(Metrics::new(&prometheus::Registry::new(), "process")?);
        Intake::start(&Config::default().intake, log, records, partitions, metrics).await.map(Self)
    }
}
