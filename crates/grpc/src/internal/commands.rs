//! `QueueService` of `weir.commands.v1`.

use weir_core::{
    DeviceId, Result, TenantId,
    command::{Answer, Command, DeviceKey, Order, Request, State},
    port::{Queued, SendCommand},
};
use weir_proto::commands::v1 as pb;

use super::{from_position, from_uid, required, to_position, to_text, to_uid, unknown};
use crate::convert::{from_duration, from_timestamp, to_duration, to_timestamp, to_timestamp_opt};

/// A device on the wire.
pub fn from_key(device: &DeviceKey) -> pb::DeviceKey {
    pb::DeviceKey {
        tenant: device.tenant.as_str().to_owned(),
        device: device.device.as_str().to_owned(),
        uid: from_uid(device.uid),
    }
}

/// A device from the wire.
///
/// # Errors
/// `InvalidArgument` where it is missing, or one of its ids cannot be one.
pub fn to_key(field: &str, device: Option<pb::DeviceKey>) -> Result<DeviceKey> {
    let device = required(field, device)?;
    Ok(DeviceKey {
        tenant: TenantId::new(&device.tenant).map_err(|error| error.with_field(format!("{field}.tenant")))?,
        device: DeviceId::new(&device.device).map_err(|error| error.with_field(format!("{field}.device")))?,
        uid: to_uid(&format!("{field}.uid"), &device.uid)?,
    })
}

/// A Send on the wire.
pub fn from_send(send: SendCommand) -> pb::SendRequest {
    pb::SendRequest {
        to: Some(from_key(&send.to)),
        command: send.name,
        payload: send.payload,
        ttl: Some(from_duration(send.ttl)),
        order: from_order(send.order) as i32,
        request_id: send.request_id,
        actor: send.actor,
    }
}

/// A Send from the wire. What a command may be is for the port to say.
///
/// # Errors
/// `InvalidArgument` for a part that is missing or cannot be one.
pub fn to_send(request: pb::SendRequest) -> Result<SendCommand> {
    Ok(SendCommand {
        to: to_key("to", request.to)?,
        name: request.command,
        payload: request.payload,
        ttl: to_duration("ttl", &required("ttl", request.ttl)?)?,
        order: to_order("order", request.order)?,
        request_id: request.request_id,
        actor: request.actor,
    })
}

/// An answer to Next on the wire.
pub fn from_queued(queued: Option<Queued>) -> pb::NextResponse {
    match queued {
        Some(Queued { command, again }) => pb::NextResponse { command: Some(from_command(command)), again },
        None => pb::NextResponse { command: None, again: false },
    }
}

/// An answer to Next from the wire.
///
/// # Errors
/// `InvalidArgument` for a command with a part that is missing or cannot be one.
pub fn to_queued(response: pb::NextResponse) -> Result<Option<Queued>> {
    let again = response.again;
    response.command.map(|command| Ok(Queued { command: to_command(command)?, again })).transpose()
}

/// A command on the wire.
pub fn from_command(command: Command) -> pb::QueuedCommand {
    let Command { request, position, state, sent_at, delivered_at, finished_at, answer, delivery_unknown } =
        command;
    pb::QueuedCommand {
        command_id: from_uid(request.id),
        to: Some(from_key(&request.to)),
        command: request.name,
        payload: request.payload,
        order: from_order(request.order) as i32,
        create_time: Some(from_timestamp(request.created_at)),
        expire_time: Some(from_timestamp(request.expires_at)),
        request_id: request.request_id,
        actor: request.actor,
        position: from_position(position),
        state: from_state(state) as i32,
        send_time: sent_at.map(from_timestamp),
        deliver_time: delivered_at.map(from_timestamp),
        finish_time: finished_at.map(from_timestamp),
        answer: answer.map(from_answer),
        delivery_unknown,
    }
}

/// A command from the wire.
///
/// # Errors
/// `InvalidArgument` for a part that is missing or cannot be one.
pub fn to_command(command: pb::QueuedCommand) -> Result<Command> {
    let created_at = required("command.create_time", command.create_time)?;
    let expires_at = required("command.expire_time", command.expire_time)?;
    Ok(Command {
        request: Request {
            id: to_uid("command.command_id", &command.command_id)?,
            to: to_key("command.to", command.to)?,
            name: command.command,
            payload: to_text("command.payload", command.payload)?,
            order: to_order("command.order", command.order)?,
            created_at: to_timestamp("command.create_time", &created_at)?,
            expires_at: to_timestamp("command.expire_time", &expires_at)?,
            request_id: command.request_id,
            actor: command.actor,
        },
        position: to_position("command.position", &command.position)?,
        state: to_state("command.state", command.state)?,
        sent_at: to_timestamp_opt("command.send_time", command.send_time.as_ref())?,
        delivered_at: to_timestamp_opt("command.deliver_time", command.deliver_time.as_ref())?,
        finished_at: to_timestamp_opt("command.finish_time", command.finish_time.as_ref())?,
        answer: command.answer.map(to_answer).transpose()?,
        delivery_unknown: command.delivery_unknown,
    })
}

/// A device's answer on the wire.
pub fn from_answer(answer: Answer) -> pb::DeviceAnswer {
    pb::DeviceAnswer {
        ok: answer.ok,
        payload: answer.payload,
        error: answer.error,
        receive_time: Some(from_timestamp(answer.received_at)),
    }
}

/// A device's answer from the wire. Its payload is what the device sent: the port says whether it makes sense.
///
/// # Errors
/// `InvalidArgument` for a time that is missing or cannot be one.
pub fn to_answer(answer: pb::DeviceAnswer) -> Result<Answer> {
    let received_at = required("answer.receive_time", answer.receive_time)?;
    Ok(Answer {
        ok: answer.ok,
        payload: answer.payload,
        error: answer.error,
        received_at: to_timestamp("answer.receive_time", &received_at)?,
    })
}

fn from_order(order: Order) -> pb::CommandOrder {
    match order {
        Order::OnDelivery => pb::CommandOrder::OnDelivery,
        Order::OnResponse => pb::CommandOrder::OnResponse,
    }
}

fn to_order(field: &str, order: i32) -> Result<Order> {
    match pb::CommandOrder::try_from(order) {
        Ok(pb::CommandOrder::Unspecified | pb::CommandOrder::OnDelivery) => Ok(Order::OnDelivery),
        Ok(pb::CommandOrder::OnResponse) => Ok(Order::OnResponse),
        Err(_) => Err(unknown(field, order)),
    }
}

fn from_state(state: State) -> pb::CommandState {
    match state {
        State::Queued => pb::CommandState::Queued,
        State::Sent => pb::CommandState::Sent,
        State::Delivered => pb::CommandState::Delivered,
        State::Succeeded => pb::CommandState::Succeeded,
        State::Failed => pb::CommandState::Failed,
        State::Expired => pb::CommandState::Expired,
        State::Canceled => pb::CommandState::Canceled,
    }
}

fn to_state(field: &str, state: i32) -> Result<State> {
    match pb::CommandState::try_from(state) {
        Ok(pb::CommandState::Queued) => Ok(State::Queued),
        Ok(pb::CommandState::Sent) => Ok(State::Sent),
        Ok(pb::CommandState::Delivered) => Ok(State::Delivered),
        Ok(pb::CommandState::Succeeded) => Ok(State::Succeeded),
        Ok(pb::CommandState::Failed) => Ok(State::Failed),
        Ok(pb::CommandState::Expired) => Ok(State::Expired),
        Ok(pb::CommandState::Canceled) => Ok(State::Canceled),
        Ok(pb::CommandState::Unspecified) | Err(_) => Err(unknown(field, state)),
    }
}
