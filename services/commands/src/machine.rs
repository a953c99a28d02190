//! The states of a command and what moves it between them. Pure: no store, no clock.
//!
//! ```text
//! QUEUED → SENT → DELIVERED → SUCCEEDED | FAILED        EXPIRED | CANCELED from any of the first three
//! ```

use serde::{Deserialize, Serialize};
use weir_core::{
    Error, ErrorKind, Result, Timestamp,
    command::{Answer, Command, State},
    port::SessionEpoch,
};

/// The last time that a command was offered to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offer {
    /// Which session.
    pub(crate) epoch: u64,
    /// When it was first offered to it.
    pub(crate) first_at: Timestamp,
    /// When it was last offered to it.
    pub(crate) at: Timestamp,
}

/// A command with what only its delivery needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    pub(crate) command: Command,
    pub(crate) offer: Option<Offer>,
}

/// What can happen to a command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// A session is about to put it on the wire.
    Sent(SessionEpoch),
    /// The device acknowledged it.
    Delivered,
    /// The device answered.
    Answered(Answer),
    /// Somebody takes it back.
    Canceled,
    /// Its time ran out.
    Expired,
}

/// Whether a command is another one now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    /// It must be written.
    Yes,
    /// The event was known already, or came too late to matter.
    No,
}

/// Moves a command.
///
/// A command whose time is over is as good as ended, also while nobody has written so yet.
///
/// # Errors
/// `FailedPrecondition` where the event cannot happen in this state; the command is as it was.
pub(crate) fn apply(held: &mut Held, event: Event, now: Timestamp) -> Result<Moved> {
    let state = held.command.state;
    let over = state.is_final() || (now >= held.command.request.expires_at && event != Event::Expired);
    match event {
        Event::Sent(_) if over => Err(ended(&held.command)),
        Event::Canceled if state == State::Canceled => Ok(Moved::No),
        Event::Canceled if over => Err(ended(&held.command)),
        _ if over => Ok(Moved::No),
        Event::Sent(epoch) => sent(held, epoch, now),
        Event::Delivered => delivered(held, now),
        Event::Answered(answer) => Ok(answered(held, answer, now)),
        Event::Canceled => Ok(ended_as(held, State::Canceled, now)),
        Event::Expired => Ok(ended_as(held, State::Expired, now)),
    }
}

fn sent(held: &mut Held, epoch: SessionEpoch, now: Timestamp) -> Result<Moved> {
    if held.command.state == State::Delivered {
        return Err(refused(&held.command, "COMMAND_DELIVERED", "was delivered already"));
    }
    let first_at = held.offer.filter(|offer| offer.epoch == epoch.0).map_or(now, |offer| offer.first_at);
    held.offer = Some(Offer { epoch: epoch.0, first_at, at: now });
    held.command.state = State::Sent;
    held.command.sent_at.get_or_insert(now);
    Ok(Moved::Yes)
}

fn delivered(held: &mut Held, now: Timestamp) -> Result<Moved> {
    match held.command.state {
        State::Delivered => Ok(Moved::No),
        State::Queued => Err(refused(&held.command, "COMMAND_NOT_SENT", "was not sent yet")),
        _ => {
            held.command.state = State::Delivered;
            held.command.delivered_at = Some(now);
            Ok(Moved::Yes)
        }
    }
}

/// An answer implies that the device has the command, whatever was heard before.
fn answered(held: &mut Held, answer: Answer, now: Timestamp) -> Moved {
    let command = &mut held.command;
    command.sent_at.get_or_insert(now);
    command.delivered_at.get_or_insert(now);
    command.state = if answer.ok { State::Succeeded } else { State::Failed };
    command.finished_at = Some(now);
    command.answer = Some(answer);
    Moved::Yes
}

fn ended_as(held: &mut Held, state: State, now: Timestamp) -> Moved {
    let command = &mut held.command;
    command.delivery_unknown = command.state == State::Sent;
    command.state = state;
    command.finished_at = Some(now);
    Moved::Yes
}

fn ended(command: &Command) -> Error {
    let state = if command.state.is_final() { command.state } else { State::Expired };
    refused(command, "COMMAND_ENDED", &format!("has ended as {}", state.as_str()))
}

fn refused(command: &Command, reason: &'static str, what: &str) -> Error {
    let request = &command.request;
    let full_name = weir_core::name::child(&request.to.tenant, "commands", request.id);
    Error::new(ErrorKind::FailedPrecondition, reason, format!("{full_name} {what}"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use weir_core::{
        DeviceId, Partition, Position, Stream, TenantId, Uid,
        command::{DeviceKey, Order, Request},
    };

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn queued() -> Held {
        let to = DeviceKey {
            tenant: TenantId::new("t").unwrap(),
            device: DeviceId::new("d").unwrap(),
            uid: Uid::from_u128(1),
        };
        let request = Request {
            id: Uid::from_u128(2),
            to,
            name: "open".to_owned(),
            payload: Bytes::from_static(b"{}"),
            order: Order::OnDelivery,
            created_at: at(0),
            expires_at: at(100),
            request_id: "r".to_owned(),
            actor: "token:x".to_owned(),
        };
        let position = Position {
            stream: Stream::Commands,
            generation: 1,
            sequence: 1,
            index: 0,
            partition: Partition(0),
        };
        let command = Command {
            request,
            position,
            state: State::Queued,
            sent_at: None,
            delivered_at: None,
            finished_at: None,
            answer: None,
            delivery_unknown: false,
        };
        Held { command, offer: None }
    }

    fn answer(ok: bool) -> Answer {
        Answer { ok, payload: Bytes::from_static(b"{}"), error: String::new(), received_at: at(5) }
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (1_u64..4).prop_map(|epoch| Event::Sent(SessionEpoch(epoch))),
            Just(Event::Delivered),
            any::<bool>().prop_map(|ok| Event::Answered(answer(ok))),
            Just(Event::Canceled),
            Just(Event::Expired),
        ]
    }

    #[test]
    fn an_answer_implies_delivery_from_every_state() {
        for before in
            [vec![], vec![Event::Sent(SessionEpoch(1))], vec![Event::Sent(SessionEpoch(1)), Event::Delivered]]
        {
            let mut held = queued();
            for event in before {
                apply(&mut held, event, at(1)).unwrap();
            }
            apply(&mut held, Event::Answered(answer(true)), at(2)).unwrap();
            assert_eq!(held.command.state, State::Succeeded);
            assert!(held.command.delivered_at.is_some() && !held.command.delivery_unknown);
        }
    }

    #[test]
    fn only_a_command_that_was_sent_ends_with_its_delivery_unknown() {
        for (before, unknown) in [
            (vec![], false),
            (vec![Event::Sent(SessionEpoch(1))], true),
            (vec![Event::Sent(SessionEpoch(1)), Event::Delivered], false),
        ] {
            for end in [Event::Canceled, Event::Expired] {
                let mut held = queued();
                for event in before.clone() {
                    apply(&mut held, event, at(1)).unwrap();
                }
                apply(&mut held, end, at(2)).unwrap();
                assert_eq!(held.command.delivery_unknown, unknown, "{before:?}");
            }
        }
    }

    #[test]
    fn a_command_whose_time_is_over_does_not_leave() {
        let mut held = queued();
        let error = apply(&mut held, Event::Sent(SessionEpoch(1)), at(100)).unwrap_err();
        assert_eq!(error.reason(), "COMMAND_ENDED");
        assert_eq!(apply(&mut held, Event::Answered(answer(true)), at(100)).unwrap(), Moved::No);
    }

    proptest! {
        #[test]
        fn a_command_only_moves_forward_and_never_after_its_end(
            events in proptest::collection::vec((any_event(), 0_i64..120), 0..20),
        ) {
            let mut held = queued();
            let mut now = 0;
            for (event, step) in events {
                now += step / 10;
                let before = held.clone();
                match apply(&mut held, event, at(now)) {
                    Ok(Moved::Yes) => {
                        prop_assert!(!before.command.state.is_final());
                        prop_assert!(held.command.state as u8 >= before.command.state as u8);
                    }
                    Ok(Moved::No) | Err(_) => prop_assert_eq!(&held, &before),
                }
                let command = &held.command;
                prop_assert_eq!(command.finished_at.is_some(), command.state.is_final());
                prop_assert_eq!(command.answer.is_some(), matches!(command.state, State::Succeeded | State::Failed));
                prop_assert!(!(command.delivery_unknown && command.delivered_at.is_some()));
            }
        }
    }
}
