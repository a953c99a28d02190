//! Commands over HTTP: a long poll takes the next one, and what the device then posts moves it on.
//!
//! A poll is the device's newest session while it is open. When it ends it gives that place back: at once where it took
//! nothing, else when the device acknowledges or answers what it took, or when the time for that is over. An older MQTT
//! session that is still connected then attaches again. It attaches with an end, so that the place is free at the latest
//! when a device could no longer acknowledge what a poll took, also where its end could not be told.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, sleep_until},
};
use weir_core::{
    Error, ErrorKind, Result, Uid,
    cache::AGE_AT_EDGE,
    command::DeviceKey,
    port::{Queued, SESSION_ENDED, Session, SessionEpoch},
};

use super::{Answer, Api, json as json_answer};
use crate::access::{self, Authenticated, Change, DeviceAccess};

/// Hints may be lost: a poll asks again, also whether it may be here, at least so often.
const ASK_EVERY: Duration = AGE_AT_EDGE;
/// What a poll took is not offered to another session before the device had time to acknowledge it: as long as the queue
/// waits before it offers a command again.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(30);
/// Devices that poll are remembered with their epochs; at the bound all are forgotten, which costs one more attach each.
const EPOCHS_MAX: usize = 65_536;

/// Under which epoch each device polled last, so that its acknowledgement is taken under the same.
#[derive(Default)]
pub(super) struct Epochs {
    by_device: Mutex<HashMap<Uid, Held>>,
}

#[derive(Clone, Copy)]
struct Held {
    epoch: SessionEpoch,
    /// Whether its poll is under way.
    open: bool,
}

impl Epochs {
    fn set(&self, device: Uid, held: Held) {
        let mut by_device = self.by_device.lock();
        if by_device.len() >= EPOCHS_MAX {
            by_device.clear();
        }
        by_device.insert(device, held);
    }

    fn get(&self, device: Uid) -> Option<Held> {
        self.by_device.lock().get(&device).copied()
    }

    /// The poll under this epoch has ended.
    fn ended(&self, device: Uid, epoch: SessionEpoch) {
        if let Some(held) = self.by_device.lock().get_mut(&device)
            && held.epoch == epoch
        {
            held.open = false;
        }
    }
}

/// A poll's place as the newest session, given back when dropped: also where the client has gone away.
struct Place {
    api: Arc<Api>,
    key: DeviceKey,
    epoch: SessionEpoch,
    /// When the poll ends at the latest.
    until: Instant,
    after: Duration,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.api.epochs.ended(self.key.uid, self.epoch);
        let (api, key, epoch, after) = (Arc::clone(&self.api), self.key.clone(), self.epoch, self.after);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { api.detach(&key, epoch, after).await });
        }
    }
}

/// One poll.
struct Poll {
    who: Authenticated,
    changes: Receiver<Change>,
    place: Place,
}

impl Poll {
    /// The oldest command that may leave, now SENT.
    async fn take(&mut self) -> Result<Option<Queued>> {
        let api = Arc::clone(&self.place.api);
        loop {
            let queued = match api.edge.commands.next(&self.place.key, self.place.epoch).await {
                Err(error) if error.reason() == SESSION_ENDED => {
                    self.place.epoch = api.attach(&self.place.key, Some(self.place.until)).await?;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Aborted => return Ok(None), // a newer session has the commands
                Err(error) => return Err(error),
                Ok(None) => return Ok(None),
                Ok(Some(queued)) => queued,
            };
            self.recheck().await?;
            let command = queued.command.request.id;
            match api.edge.commands.sent(&self.place.key, self.place.epoch, command).await {
                Ok(()) => {
                    self.place.after = ACKNOWLEDGE_WITHIN;
                    return Ok(Some(queued));
                }
                // It has ended, or somebody else attached, meanwhile: ask again.
                Err(error) if matches!(error.kind(), ErrorKind::FailedPrecondition | ErrorKind::Aborted) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// # Errors
    /// Where the device may no longer be here.
    async fn recheck(&mut self) -> Result<()> {
        match self.place.api.edge.access.recheck(&self.who).await {
            Ok(who) => self.who = who,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::unauthenticated("the device of this token does not exist any more"));
            }
            Err(error) if access::is_unwanted(error.kind()) => return Err(error),
            Err(error) => tracing::warn!(device = %self.place.key.device, %error, "access cannot be checked"),
        }
        Ok(())
    }

    /// Returns when something about the device may have changed.
    async fn changed(changes: &mut Receiver<Change>, who: &Authenticated) {
        loop {
            match changes.recv().await {
                Ok(change) if !change.concerns(&who.access.device) => {}
                Ok(_) | Err(RecvError::Lagged(_)) => return,
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

impl Api {
    /// The oldest command that may leave, waiting for one as long as the request says: a document with none or one.
    pub(super) async fn next_command(
        self: &Arc<Self>,
        who: Authenticated,
        changes: Receiver<Change>,
        query: &str,
    ) -> Result<Answer> {
        let until = Instant::now() + self.wait(query)?;
        let key = who.access.key();
        let bell = self.edge.doorbells.put_up_beside(key.uid); // before asking, so that nothing comes in between unheard
        let place = self.place(key, until).await?;
        let mut poll = Poll { who, changes, place };
        loop {
            if let Some(queued) = poll.take().await? {
                return command(&queued);
            }
            let ask = until.min(Instant::now() + ASK_EVERY);
            tokio::select! {
                () = bell.rung() => {}
                () = Poll::changed(&mut poll.changes, &poll.who) => poll.recheck().await?,
                () = sleep_until(ask) => {
                    if ask == until {
                        return Ok(json_answer(&json!({ "commands": [] })));
                    }
                    poll.recheck().await?;
                }
                () = self.stop.cancelled() => return Ok(json_answer(&json!({ "commands": [] }))),
            }
        }
    }

    /// The device has it.
    pub(super) async fn acknowledge(&self, device: &DeviceAccess, command: Uid) -> Result<()> {
        let key = device.key();
        let epoch = match self.epochs.get(key.uid) {
            Some(held) => held.epoch,
            None => self.attach(&key, None).await?, // it polled before a restart, or another replica
        };
        let done = match self.edge.commands.delivered(&key, epoch, command).await {
            Err(error) if error.kind() == ErrorKind::Aborted => {
                let epoch = self.attach(&key, None).await?;
                self.edge.commands.delivered(&key, epoch, command).await
            }
            done => done,
        };
        self.give_back(&key).await;
        done
    }

    /// The device said what became of the command that it polled: an older session may have the next, unless it polls again.
    pub(super) async fn give_back(&self, key: &DeviceKey) {
        if let Some(held) = self.epochs.get(key.uid).filter(|held| !held.open) {
            self.detach(key, held.epoch, Duration::ZERO).await;
        }
    }

    async fn detach(&self, key: &DeviceKey, epoch: SessionEpoch, after: Duration) {
        if let Err(error) = self.edge.commands.detach(key, epoch, after).await {
            tracing::warn!(device = %key.device, %error, "the end of a poll cannot be recorded");
        }
    }

    /// Takes the place of the newest session for a poll. Beside the request, so that a client that goes away meanwhile leaves
    /// nothing behind.
    async fn place(self: &Arc<Self>, key: DeviceKey, until: Instant) -> Result<Place> {
        let api = Arc::clone(self);
        let taking = tokio::spawn(async move {
            let epoch = api.attach(&key, Some(until)).await?;
            Ok(Place { api, key, epoch, until, after: Duration::ZERO })
        });
        taking.await.map_err(|source| Error::internal("a poll cannot attach").with_source(source))?
    }

    /// `until` says how long a poll is open, which gives the place back when it ends.
    async fn attach(&self, key: &DeviceKey, until: Option<Instant>) -> Result<SessionEpoch> {
        // One session for each device, the same on every replica: a poll is the same client whichever one it reaches.
        let session = Session(Uid::hash(&[b"http", &key.uid.to_bytes()]));
        let epoch = self.edge.commands.attach(key, session).await?;
        self.epochs.set(key.uid, Held { epoch, open: until.is_some() });
        let open = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        self.detach(key, epoch, open + ACKNOWLEDGE_WITHIN).await;
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
