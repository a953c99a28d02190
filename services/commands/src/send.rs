//! Send: checked, published to the log, and acknowledged when the log has it.

use std::{collections::HashSet, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use serde::de::IgnoredAny;
use weir_core::{
    Error, ErrorKind, Partition, Position, Result, Stream, Uid,
    command::{Command, DeviceKey, Request, State},
    json, name,
    port::{CommandSender, SendCommand},
};

use crate::Service;

/// Half of the largest packet, so that a command fits with its topic.
pub(crate) const PAYLOAD_MAX: usize = 128 * 1024;
/// A level of an MQTT topic that people read.
const NAME_MAX: usize = 64;
/// Bounds how long a request id is remembered, and how long a timer waits.
const TTL_MAX: Duration = Duration::from_secs(30 * 86_400);
/// A UUID three times over.
const REQUEST_ID_MAX: usize = 128;
/// Above it the log does not answer; the same request id makes another try safe.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);
/// A retry sooner finds the same backlog: it is how long an unacknowledged command holds the next one back.
const BACKLOG_RETRY: Duration = Duration::from_secs(30);

#[async_trait]
impl CommandSender for Service {
    async fn send(&self, send: SendCommand) -> Result<(Uid, Position)> {
        let command = self.send_command(send).await?;
        Ok((command.request.id, command.position))
    }
}

impl Service {
    /// The command as it was accepted; as it is now, where the same request was accepted before.
    pub(crate) async fn send_command(&self, send: SendCommand) -> Result<Command> {
        check(&send)?;
        let SendCommand { to, name, payload, ttl, order, request_id, actor } = send;
        let id = id_of(&to, &request_id);
        if let Some(known) = self.store.command(&to, id).await? {
            return same(known.value, &name, &payload);
        }
        if self.backlog.has(to.uid, id) {
            match self.find(&to.tenant, id).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {} // its Send did not succeed
                known => return same(known?, &name, &payload),
            }
        }
        let created_at = self.clock.now();
        let expires_at = created_at.saturating_add(ttl);
        let request = Request { id, to, name, payload, order, created_at, expires_at, request_id, actor };
        let on_the_way = OnTheWay::enter(self, &request);
        self.require_room(&request.to, &on_the_way.before).await?;
        let partition = Partition::of(request.to.uid, self.config.partitions);
        let publish = self.log.publish(Stream::Commands, partition, id, json::to_bytes(&request)?);
        let sequence = tokio::time::timeout(PUBLISH_TIMEOUT, publish).await.map_err(|_| {
            Error::unavailable(format!(
                "the log did not take the command within {} s",
                PUBLISH_TIMEOUT.as_secs()
            ))
        })??;
        on_the_way.accepted();
        let generation = self.marks.generation_of(sequence);
        let position = Position { stream: Stream::Commands, generation, sequence, index: 0, partition };
        Ok(queued(request, position))
    }

    /// Checks the bound on a device's pending commands, those on their way included.
    async fn require_room(&self, to: &DeviceKey, on_the_way: &[Uid]) -> Result<()> {
        let max = self.config.pending_max;
        let pending = self.store.pending(to, max).await?;
        let all: HashSet<Uid> = pending.iter().map(|one| one.id).chain(on_the_way.iter().copied()).collect();
        if all.len() < max {
            return Ok(());
        }
        self.metrics.backlog_full.inc();
        Err(Error::new(
            ErrorKind::ResourceExhausted,
            "TOO_MANY_PENDING",
            format!(
                "{} has {} pending commands, at most {max} are allowed",
                name::device(&to.tenant, &to.device),
                all.len()
            ),
        )
        .with_field("device")
        .with_limit(max)
        .with_retry_after(BACKLOG_RETRY))
    }
}

/// The command that was accepted before under the same request id, if it is what is asked for now.
fn same(known: Command, name: &str, payload: &Bytes) -> Result<Command> {
    let request = &known.request;
    let document = |bytes: &Bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok();
    if request.name == name
        && (request.payload == *payload || document(&request.payload) == document(payload))
    {
        return Ok(known);
    }
    let full_name = name::child(&request.to.tenant, "commands", request.id);
    let text = format!(
        "request_id {:?} was used for {full_name} ({}), which has another command or payload",
        request.request_id, request.name
    );
    Err(Error::new(ErrorKind::AlreadyExists, "REQUEST_ID_REUSED", text).with_field("request_id"))
}

/// A command as it begins.
pub(crate) fn queued(request: Request, position: Position) -> Command {
    Command {
        request,
        position,
        state: State::Queued,
        sent_at: None,
        delivered_at: None,
        finished_at: None,
        answer: None,
        delivery_unknown: false,
    }
}

/// The id of a command: the same request to the same device is the same command.
fn id_of(to: &DeviceKey, request_id: &str) -> Uid {
    Uid::hash(&[b"command", to.tenant.as_str().as_bytes(), &to.uid.to_bytes(), request_id.as_bytes()])
}

/// Counts a command as pending until the store has it; takes it back where its Send does not succeed.
struct OnTheWay<'a> {
    service: &'a Service,
    device: Uid,
    command: Uid,
    before: Vec<Uid>,
    accepted: bool,
}

impl<'a> OnTheWay<'a> {
    fn enter(service: &'a Service, request: &Request) -> Self {
        let (device, command) = (request.to.uid, request.id);
        Self { service, device, command, before: service.backlog.enter(device, command), accepted: false }
    }

    /// The log has it: whoever copies it takes it off.
    fn accepted(mut self) {
        self.accepted = true;
    }
}

impl Drop for OnTheWay<'_> {
    fn drop(&mut self) {
        if !self.accepted {
            self.service.backlog.leave(self.device, self.command);
        }
    }
}

fn check(send: &SendCommand) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if send.name.is_empty() || send.name.len() > NAME_MAX || !send.name.bytes().all(allowed) {
        let shown: String = send.name.chars().take(NAME_MAX).collect();
        return Err(Error::invalid(
            "command",
            "COMMAND_NAME_INVALID",
            format!(
                "command {shown:?} ({} bytes) must be 1 to {NAME_MAX} of [A-Za-z0-9_.-]",
                send.name.len()
            ),
        )
        .with_limit(NAME_MAX));
    }
    if send.ttl.is_zero() || send.ttl > TTL_MAX {
        return Err(Error::invalid(
            "ttl",
            "TTL_INVALID",
            format!(
                "ttl is {} s, it must be more than 0 and at most {} s (30 d)",
                send.ttl.as_secs(),
                TTL_MAX.as_secs()
            ),
        )
        .with_limit(format!("{}s", TTL_MAX.as_secs())));
    }
    if send.request_id.is_empty() || send.request_id.len() > REQUEST_ID_MAX {
        return Err(Error::invalid(
            "request_id",
            "REQUEST_ID_INVALID",
            format!("request_id has {} bytes, it must have 1 to {REQUEST_ID_MAX}", send.request_id.len()),
        )
        .with_limit(REQUEST_ID_MAX));
    }
    check_payload(&send.payload)
}

/// A JSON document of a bounded size (and, by `serde_json`, of at most 128 levels).
pub(crate) fn check_payload(payload: &Bytes) -> Result<()> {
    if payload.len() > PAYLOAD_MAX {
        return Err(Error::invalid(
            "payload",
            "PAYLOAD_TOO_LARGE",
            format!("payload has {} bytes, at most {PAYLOAD_MAX} are allowed", payload.len()),
        )
        .with_limit(PAYLOAD_MAX));
    }
    serde_json::from_slice::<IgnoredAny>(payload).map_err(|source| {
        Error::invalid("payload", "PAYLOAD_INVALID", format!("payload is not JSON: {source}"))
    })?;
    Ok(())
}
