//! Which of a device's pending commands may leave now. Pure.

use std::time::Duration;

use weir_core::{
    Timestamp,
    command::{Order, State},
    port::SessionEpoch,
};

use crate::store::Pending;

/// A device that has not acknowledged for so long did not get it, or cannot say so.
pub(crate) const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// How a session acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acknowledges {
    /// By PUBACK or `POST …/ack`: nothing passes a command that is not delivered; unacknowledged for 30 s it is offered
    /// again.
    Yes,
    /// Not at all (QoS 0): a command that was sent holds the next one back until its answer, or for 30 s.
    Never,
}

/// The oldest that may leave, and whether it may have arrived before.
///
/// `pending` is in position order. What was sent to an older session is offered again at once: nobody will acknowledge it
/// there. What has expired is passed over, its end is a matter of moments.
pub(crate) fn choose(
    pending: &[Pending],
    epoch: SessionEpoch,
    acknowledges: Acknowledges,
    now: Timestamp,
) -> Option<(&Pending, bool)> {
    for one in pending.iter().filter(|one| now < one.expires_at) {
        match (one.state, one.offer.filter(|offer| offer.epoch == epoch.0)) {
            (State::Sent, None) => return Some((one, true)),
            (State::Sent, Some(offer)) => match acknowledges {
                Acknowledges::Yes if passed(offer.at, now) => return Some((one, true)),
                Acknowledges::Never if passed(offer.first_at, now) => {}
                Acknowledges::Yes | Acknowledges::Never => return None,
            },
            (State::Delivered, _) if one.order == Order::OnResponse => return None,
            (State::Delivered, _) => {}
            _ => return Some((one, false)),
        }
    }
    None
}

fn passed(since: Timestamp, now: Timestamp) -> bool {
    now >= since.saturating_add(UNACKNOWLEDGED)
}

#[cfg(test)]
mod tests {
    use weir_core::{Partition, Position, Stream, Uid};

    use super::*;
    use crate::machine::Offer;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn pending(id: u128, state: State, offer: Option<(u64, i64)>) -> Pending {
        Pending {
            id: Uid::from_u128(id),
            position: Position {
                stream: Stream::Commands,
                generation: 1,
                sequence: id as u64,
                index: 0,
                partition: Partition(0),
            },
            state,
            order: Order::OnDelivery,
            expires_at: at(1_000),
            offer: offer.map(|(epoch, sent)| Offer { epoch, first_at: at(sent), at: at(sent) }),
        }
    }

    fn chosen(pending: &[Pending], acknowledges: Acknowledges, now: i64) -> Option<(u128, bool)> {
        choose(pending, SessionEpoch(2), acknowledges, at(now)).map(|(one, again)| (one.id.as_u128(), again))
    }

    #[test]
    fn nothing_passes_a_command_in_flight_until_it_is_delivered_or_offered_again() {
        let queue = [pending(1, State::Sent, Some((2, 0))), pending(2, State::Queued, None)];
        assert_eq!(chosen(&queue, Acknowledges::Yes, 29), None);
        assert_eq!(chosen(&queue, Acknowledges::Yes, 30), Some((1, true)));
    }

    #[test]
    fn a_session_that_cannot_acknowledge_gets_the_next_one_after_thirty_seconds() {
        let queue = [pending(1, State::Sent, Some((2, 0))), pending(2, State::Queued, None)];
        assert_eq!(chosen(&queue, Acknowledges::Never, 29), None);
        assert_eq!(chosen(&queue, Acknowledges::Never, 30), Some((2, false)));
    }

    #[test]
    fn a_newer_session_is_offered_again_what_the_older_one_did_not_deliver() {
        let queue = [
            pending(1, State::Delivered, Some((1, 0))),
            pending(2, State::Sent, Some((1, 0))),
            pending(3, State::Queued, None),
        ];
        assert_eq!(chosen(&queue, Acknowledges::Yes, 1), Some((2, true)));
        assert_eq!(chosen(&queue, Acknowledges::Never, 1), Some((2, true)));
    }

    #[test]
    fn the_next_waits_for_the_answer_only_where_it_was_asked_to() {
        let mut queue = [pending(1, State::Delivered, Some((2, 0))), pending(2, State::Queued, None)];
        assert_eq!(chosen(&queue, Acknowledges::Yes, 1), Some((2, false)));
        queue[0].order = Order::OnResponse;
        assert_eq!(chosen(&queue, Acknowledges::Yes, 999), None);
    }

    #[test]
    fn an_expired_command_neither_leaves_nor_holds_back() {
        let mut queue = [pending(1, State::Sent, Some((2, 0))), pending(2, State::Queued, None)];
        queue[0].expires_at = at(10);
        assert_eq!(chosen(&queue, Acknowledges::Yes, 10), Some((2, false)));
    }
}
