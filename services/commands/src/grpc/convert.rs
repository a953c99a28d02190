//! Commands as they are written on the wire.

use tonic::Status;
use weir_core::{
    Error, Result,
    command::{Command, Order, State},
    name,
};
use weir_grpc::{convert::from_timestamp, page, to_status};
use weir_proto::commands::v1 as pb;

use crate::watch::{Cursor, Item, Told};

pub(super) fn from_command(command: Command) -> pb::Command {
    let Command { request, position, state, sent_at, delivered_at, finished_at, answer, delivery_unknown } =
        command;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (response, error) = answer.map(|answer| (text(&answer.payload), answer.error)).unwrap_or_default();
    pb::Command {
        name: name::child(&request.to.tenant, "commands", request.id),
        device: name::device(&request.to.tenant, &request.to.device),
        command: request.name,
        payload: text(&request.payload),
        state: from_state(state) as i32,
        order: from_order(request.order) as i32,
        create_time: Some(from_timestamp(request.created_at)),
        send_time: sent_at.map(from_timestamp),
        deliver_time: delivered_at.map(from_timestamp),
        finish_time: finished_at.map(from_timestamp),
        expire_time: Some(from_timestamp(request.expires_at)),
        response,
        error,
        delivery_unknown,
        actor: request.actor,
        request_id: request.request_id,
        position: position.to_string(),
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

pub(super) fn to_state(state: i32) -> Result<Option<State>> {
    match pb::CommandState::try_from(state) {
        Ok(pb::CommandState::Unspecified) => Ok(None),
        Ok(pb::CommandState::Queued) => Ok(Some(State::Queued)),
        Ok(pb::CommandState::Sent) => Ok(Some(State::Sent)),
        Ok(pb::CommandState::Delivered) => Ok(Some(State::Delivered)),
        Ok(pb::CommandState::Succeeded) => Ok(Some(State::Succeeded)),
        Ok(pb::CommandState::Failed) => Ok(Some(State::Failed)),
        Ok(pb::CommandState::Expired) => Ok(Some(State::Expired)),
        Ok(pb::CommandState::Canceled) => Ok(Some(State::Canceled)),
        Err(_) => Err(unknown("state", state)),
    }
}

fn from_order(order: Order) -> pb::CommandOrder {
    match order {
        Order::OnDelivery => pb::CommandOrder::OnDelivery,
        Order::OnResponse => pb::CommandOrder::OnResponse,
    }
}

pub(super) fn to_order(order: i32) -> Result<Order> {
    match pb::CommandOrder::try_from(order) {
        Ok(pb::CommandOrder::Unspecified | pb::CommandOrder::OnDelivery) => Ok(Order::OnDelivery),
        Ok(pb::CommandOrder::OnResponse) => Ok(Order::OnResponse),
        Err(_) => Err(unknown("order", order)),
    }
}

fn unknown(field: &str, number: i32) -> Error {
    Error::invalid(field, "ENUM_INVALID", format!("{field} has the number {number}, which is not known"))
}

pub(super) fn to_cursor(text: &str) -> Result<Cursor> {
    let invalid =
        |_| Error::invalid("resume_cursor", "CURSOR_INVALID", "resume_cursor is not one that a stream gave");
    Cursor::from_bytes(&page::key(text).map_err(invalid)?.unwrap_or_default())
}

/// One message of a Watch; the last one of a slow reader tells its cursor in the metadata `cursor`.
#[allow(clippy::result_large_err)] // tonic's own error type
pub(super) fn from_item(item: Item) -> std::result::Result<pb::WatchCommandsResponse, Status> {
    let (told, cursor) = item.map_err(|(error, cursor)| {
        let mut status = to_status(error);
        if let Ok(value) = page::token(cursor.to_bytes()).parse() {
            status.metadata_mut().insert("cursor", value);
        }
        status
    })?;
    let cursor = page::token(cursor.to_bytes());
    let (event, command) = match told {
        Told::Command(command) => (pb::WatchCommandsEvent::Command, Some(from_command(*command))),
        Told::Synced => (pb::WatchCommandsEvent::Synced, None),
        Told::Heartbeat => (pb::WatchCommandsEvent::Heartbeat, None),
    };
    Ok(pb::WatchCommandsResponse { event: event as i32, command, cursor })
}
