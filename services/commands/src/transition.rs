//! One change of one command: read, apply, and one commit that fails where anything of it has changed meanwhile.

use weir_core::{
    Error, ErrorKind, Result, Uid,
    command::{Command, DeviceKey, State},
    json, name,
    port::{Expect, SESSION_ENDED, SESSION_ENDING, SessionEpoch, Write},
};

use crate::{
    Service,
    machine::{Event, Held, Moved, apply},
    metrics::Before,
    store::{
        DEVICES, Entry, OPEN, Pending, SESSION, Versioned, command_key, device_place, pending_key,
        position_key,
    },
};

/// Writers of one command meet rarely: a session, an answer, a person and the clock.
const TRIES: usize = 8;

impl Service {
    /// Moves a command by `event`; where `epoch` is given, only while that session is the device's newest.
    ///
    /// # Errors
    /// `NotFound`; `Aborted` where a newer session attached; `FailedPrecondition` where the event cannot happen.
    pub(crate) async fn transition(
        &self,
        to: &DeviceKey,
        id: Uid,
        epoch: Option<SessionEpoch>,
        event: Event,
    ) -> Result<Command> {
        for _ in 0..TRIES {
            let fence = match epoch {
                Some(epoch) => Some(self.require_newest(to, epoch).await?),
                None => None,
            };
            let found = self.store.command(to, id).await?;
            let found = found.ok_or_else(|| Error::not_found(name::child(&to.tenant, "commands", id)))?;
            match self.attempt(found, fence, event.clone()).await {
                Err(error) if error.kind() == ErrorKind::Aborted => {} // lost a race: look again
                done => return done,
            }
        }
        Err(Error::aborted(format!("command {id} was changed {TRIES} times while it was being changed")))
    }

    /// The version of the session's record, if it is of the session with this epoch.
    pub(crate) async fn require_newest(&self, to: &DeviceKey, epoch: SessionEpoch) -> Result<u64> {
        let attached = self.store.attached(to).await?;
        if let Some(attached) = &attached
            && attached.value.epoch == epoch.0
        {
            return Ok(attached.version);
        }
        let name = name::device(&to.tenant, &to.device);
        let (reason, message) = match attached.and_then(|attached| attached.value.ended_at) {
            Some(end) if end <= self.clock.now() => {
                (SESSION_ENDED, format!("the newer session of {name} is gone; attach again"))
            }
            Some(end) => (SESSION_ENDING, format!("a newer session of {name} gets its commands until {end}")),
            None => ("SESSION_REPLACED", format!("a newer session of {name} gets its commands")),
        };
        Err(Error::new(ErrorKind::Aborted, reason, message))
    }

    async fn attempt(&self, found: Versioned<Command>, fence: Option<u64>, event: Event) -> Result<Command> {
        let Versioned { value: command, version } = found;
        if command.state.is_final() && matches!(event, Event::Expired) {
            return Ok(command); // most timers find this
        }
        let (id, position, before) = (command.request.id, command.position, Before::of(&command));
        let place = device_place(&command.request.to);
        let pending: Option<Versioned<Pending>> =
            self.store.get(DEVICES, &place, &pending_key(position)).await?;
        let mut held = Held { command, offer: pending.and_then(|pending| pending.value.offer) };
        let now = self.clock.now();
        if apply(&mut held, event, now)? == Moved::No {
            return Ok(held.command);
        }
        let ended = held.command.state.is_final();
        let mut writes = vec![
            Write::replace(command_key(id), version, json::to_bytes(&held.command)?),
            if ended {
                Write::delete(pending_key(position))
            } else {
                Write::put(pending_key(position), json::to_bytes(&Pending::of(&held))?)
            },
        ];
        writes.extend(fence.map(|version| Write::check(SESSION, Expect::Version(version))));
        self.store.commit(DEVICES, &place, writes).await?;
        if held.command.state != before.state {
            self.metrics.moved(&before, &held.command, now);
            self.moved(&held.command).await;
        }
        Ok(held.command)
    }

    /// What follows a change: those who wait are told, the next command may leave.
    async fn moved(&self, command: &Command) {
        let (state, to) = (command.state, &command.request.to);
        self.tell(to, command.request.id).await;
        if state.is_final()
            && let Err(error) = self.close(&Entry::of(command)).await
        {
            tracing::debug!(%error, "an ended command stays in the list of open ones until its time is over");
        }
        if state != State::Sent {
            self.ring(to).await;
        }
    }

    /// Takes an ended command off the tenant's open ones.
    pub(crate) async fn close(&self, entry: &Entry) -> Result<()> {
        let place = entry.to.tenant.as_str().as_bytes();
        self.store.commit(OPEN, place, vec![Write::delete(position_key(entry.position))]).await
    }
}
