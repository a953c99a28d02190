//! The call port by which ingest pulls a device's commands.

use std::time::Duration;

use async_trait::async_trait;
use weir_core::{
    Error, ErrorKind, Result, Uid,
    command::{Answer, DeviceKey},
    json,
    port::{CommandQueue, Expect, Op, Queued, Session, SessionEpoch, Write},
};

use crate::{
    Service,
    choose::{Acknowledges, choose},
    machine::Event,
    send::check_payload,
    store::{Attached, DEVICES, SESSION, Versioned, device_place},
};

/// Sessions of one device meet rarely.
const TRIES: usize = 8;
/// Words for people; documents go into the payload.
const ERROR_MAX: usize = 1_024;
/// Room above the bound on pending commands for Sends of other processes that were accepted at the same time.
const PENDING_SLACK: usize = 1_000;

#[async_trait]
impl CommandQueue for Service {
    async fn attach(&self, device: &DeviceKey, session: Session) -> Result<SessionEpoch> {
        for _ in 0..TRIES {
            let (epoch, expect) = match self.store.attached(device).await? {
                Some(attached) => (attached.value.epoch + 1, Expect::Version(attached.version)),
                None => (1, Expect::Absent),
            };
            let attached = Attached { epoch, session: Some(session.0), ended_at: None };
            let op = Op::Put(json::to_bytes(&attached)?);
            let write = Write { key: SESSION.into(), expect, op };
            match self.store.commit(DEVICES, &device_place(device), vec![write]).await {
                Err(error) if error.kind() == ErrorKind::Aborted => {}
                done => return done.map(|()| SessionEpoch(epoch)),
            }
        }
        Err(Error::aborted(format!("{TRIES} other sessions of device {} attached", device.device)))
    }

    async fn detach(&self, device: &DeviceKey, epoch: SessionEpoch, after: Duration) -> Result<()> {
        let end = self.clock.now().saturating_add(after);
        for _ in 0..TRIES {
            let Some(Versioned { value, version }) = self.store.attached(device).await? else {
                return Ok(());
            };
            if value.epoch != epoch.0 || value.ended_at.is_some_and(|earlier| earlier <= end) {
                return Ok(());
            }
            let ended = Attached { ended_at: Some(end), ..value };
            let write = Write::replace(SESSION, version, json::to_bytes(&ended)?);
            match self.store.commit(DEVICES, &device_place(device), vec![write]).await {
                Err(error) if error.kind() == ErrorKind::Aborted => {}
                Ok(()) if after.is_zero() => {
                    self.ring(device).await;
                    return Ok(());
                }
                done => return done,
            }
        }
        Err(Error::aborted(format!("{TRIES} other sessions of device {} attached", device.device)))
    }

    async fn next(&self, device: &DeviceKey, epoch: SessionEpoch) -> Result<Option<Queued>> {
        self.next_of(device, epoch, Acknowledges::Yes).await
    }

    async fn next_unacknowledged(&self, device: &DeviceKey, epoch: SessionEpoch) -> Result<Option<Queued>> {
        self.next_of(device, epoch, Acknowledges::Never).await
    }

    async fn sent(&self, device: &DeviceKey, epoch: SessionEpoch, command: Uid) -> Result<()> {
        self.transition(device, command, Some(epoch), Event::Sent(epoch)).await.map(drop)
    }

    async fn delivered(&self, device: &DeviceKey, epoch: SessionEpoch, command: Uid) -> Result<()> {
        self.transition(device, command, Some(epoch), Event::Delivered).await.map(drop)
    }

    async fn answered(&self, device: &DeviceKey, command: Uid, answer: Answer) -> Result<()> {
        let event = Event::Answered(sensible(answer));
        match self.transition(device, command, None, event.clone()).await {
            // Whoever sent it may have told the device its id before it is copied.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.find(&device.tenant, command).await?;
                self.transition(device, command, None, event).await.map(drop)
            }
            done => done.map(drop),
        }
    }
}

impl Service {
    async fn next_of(
        &self,
        device: &DeviceKey,
        epoch: SessionEpoch,
        acknowledges: Acknowledges,
    ) -> Result<Option<Queued>> {
        self.require_newest(device, epoch).await?;
        let pending = self.store.pending(device, self.config.pending_max + PENDING_SLACK).await?;
        let Some((chosen, again)) = choose(&pending, epoch, acknowledges, self.clock.now()) else {
            return Ok(None);
        };
        let found = self.store.command(device, chosen.id).await?;
        Ok(found.map(|found| Queued { command: found.value, again }))
    }
}

/// An answer that makes no sense fails its command and blocks nothing.
fn sensible(mut answer: Answer) -> Answer {
    if answer.error.len() > ERROR_MAX {
        let end = (0..=ERROR_MAX).rev().find(|end| answer.error.is_char_boundary(*end)).unwrap_or_default();
        answer.error.truncate(end);
    }
    if answer.payload.is_empty() {
        return answer;
    }
    match check_payload(&answer.payload) {
        Ok(()) => answer,
        Err(error) => Answer {
            ok: false,
            payload: bytes::Bytes::new(),
            error: format!("the device's answer: {error}"),
            received_at: answer.received_at,
        },
    }
}
