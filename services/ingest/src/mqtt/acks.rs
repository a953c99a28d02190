//! Publications under way, acknowledged in the order in which they came (MQTT 5.0, 4.6).

use std::collections::VecDeque;

use weir_core::{Position, Result};

use super::packets::Acknowledge;
use crate::intake::Pending;

/// What a publication waits for.
pub(super) enum Work {
    /// The log.
    Log(Pending),
    /// Nothing: this is how it ended.
    Done(Result<Option<Position>>),
}

/// One publication under way.
pub(super) struct UnderWay {
    pub(super) how: Acknowledge,
    /// How many readings it carries.
    pub(super) readings: u64,
    pub(super) work: Work,
}

/// One publication that ended.
pub(super) struct Ended {
    pub(super) how: Acknowledge,
    pub(super) readings: u64,
    pub(super) outcome: Result<Option<Position>>,
}

/// The publications of one connection; bounded by its reader, which stops at the receive maximum.
#[derive(Default)]
pub(super) struct Acks(VecDeque<UnderWay>);

impl Acks {
    pub(super) fn push(&mut self, under_way: UnderWay) {
        self.0.push_back(under_way);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the publication under this identifier is still under way at QoS 2.
    pub(super) fn has_pubrec(&self, id: u16) -> bool {
        self.0.iter().any(|under_way| under_way.how == Acknowledge::Pubrec(id))
    }

    /// The oldest, once it ended; pends where there is none. Nothing is lost if it is dropped before.
    pub(super) async fn next(&mut self) -> Ended {
        let Some(oldest) = self.0.front_mut() else { return std::future::pending().await };
        let outcome = match &mut oldest.work {
            Work::Log(pending) => pending.await.map(|accepted| Some(accepted.position)),
            Work::Done(outcome) => std::mem::replace(outcome, Ok(None)),
        };
        let (how, readings) = (oldest.how, oldest.readings);
        self.0.pop_front();
        Ended { how, readings, outcome }
    }

    /// Gives back what a burst made it grow to.
    pub(super) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }
}
