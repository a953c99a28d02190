//! Commands over HTTP: a long poll takes the next one, and what the device then posts moves it on.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use serde_json::json;
use tokio::time::{Instant, timeout_at};
use weir_core::{
    Error, ErrorKind, Result, Uid,
    command::DeviceKey,
    port::{Queued, Session, SessionEpoch},
};

use super::{Answer, Api, json as json_answer};
use crate::access::DeviceAccess;

/// A doorbell may be lost: a poll asks again at least so often.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// Devices that poll are remembered with their epochs; at the bound all are forgotten, which costs one more attach each.
const EPOCHS_MAX: usize = 65_536;

/// Under which epoch each device polled last, so that its acknowledgement is taken under the same.
#[derive(Default)]
pub(super) struct Epochs {
    by_device: Mutex<HashMap<Uid, SessionEpoch>>,
}

impl Epochs {
    fn set(&self, device: Uid, epoch: SessionEpoch) {
        let mut by_device = self.by_device.lock();
        if by_device.len() >= EPOCHS_MAX {
            by_device.clear();
        }
        by_device.insert(device, epoch);
    }

    fn get(&self, device: Uid) -> Option<SessionEpoch> {
        self.by_device.lock().get(&device).copied()
    }
}

impl Api {
    /// The oldest command that may leave, waiting for one as long as the request says: a document with none or one.
    pub(super) async fn next_command(&self, device: &DeviceAccess, query: &str) -> Result<Answer> {
        let until = Instant::now() + self.wait(query)?;
        let key = device.key();
        let bell = self.edge.doorbells.put_up(key.uid); // before asking, so that nothing comes in between unheard
        let epoch = self.attach(&key).await?;
        loop {
            if let Some(queued) = self.edge.commands.next(&key, epoch).await? {
                match self.edge.commands.sent(&key, epoch, queued.command.request.id).await {
                    Ok(()) => return command(&queued),
                    Err(error) if error.kind() == ErrorKind::FailedPrecondition => continue, // it has ended meanwhile
                    Err(error) => return Err(error),
                }
            }
            let ask = until.min(Instant::now() + ASK_EVERY);
            let over = tokio::select! {
                rung = timeout_at(ask, bell.rung()) => rung.is_err() && Instant::now() >= until,
                () = self.stop.cancelled() => true,
            };
            if over {
                return Ok(json_answer(&json!({ "commands": [] })));
            }
        }
    }

    /// The device has it.
    pub(super) async fn acknowledge(&self, device: &DeviceAccess, command: Uid) -> Result<()> {
        let key = device.key();
        let epoch = match self.epochs.get(key.uid) {
            Some(epoch) => epoch,
            None => self.attach(&key).await?, // it polled before a restart, or another replica
        };
        match self.edge.commands.delivered(&key, epoch, command).await {
            Err(error) if error.kind() == ErrorKind::Aborted => {
                let epoch = self.attach(&key).await?;
                self.edge.commands.delivered(&key, epoch, command).await
            }
            done => done,
        }
    }

    async fn attach(&self, key: &DeviceKey) -> Result<SessionEpoch> {
        // One session for each device, the same on every replica: a poll is the same client whichever one it reaches.
        let session = Session(Uid::hash(&[b"http", &key.uid.to_bytes()]));
        let epoch = self.edge.commands.attach(key, session).await?;
        self.epochs.set(key.uid, epoch);
        Ok(epoch)
    }

    /// `wait=30s` of a query; zero without it.
    fn wait(&self, query: &str) -> Result<Duration> {
        let mut waits = query.split('&').filter_map(|pair| pair.strip_prefix("wait="));
        let Some(wait) = waits.next() else { return Ok(Duration::ZERO) };
        let max = self.edge.config.http.wait_max;
        let wait = weir_config::duration::parse(wait).map_err(|error| error.with_field("wait"))?;
        if wait > max {
            let max = weir_config::duration::format(max);
            return Err(Error::invalid("wait", "WAIT_TOO_LONG", format!("wait must be at most {max}"))
                .with_limit(max));
        }
        Ok(wait)
    }
}

fn command(queued: &Queued) -> Result<Answer> {
    let request = &queued.command.request;
    let payload: serde_json::Value = serde_json::from_slice(&request.payload).map_err(|source| {
        Error::data_loss(format!("command {} has a payload that is not JSON", request.id)).with_source(source)
    })?;
    Ok(json_answer(&json!({ "commands": [{
        "id": request.id.to_string(),
        "name": request.name,
        "payload": payload,
        "again": queued.again,
        "created_at": request.created_at.to_string(),
        "expires_at": request.expires_at.to_string(),
    }] })))
}
