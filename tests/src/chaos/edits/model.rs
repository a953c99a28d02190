//! Which alarms of one rule at one device there must be, by what was done.

use weir_core::{Result, Timestamp};
use weir_grpc::convert::to_timestamp_opt;
use weir_proto::analytics::v1 as pb;

/// An alarm as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Facts {
    pub(super) raised: Timestamp,
    pub(super) revision: i64,
    pub(super) acknowledged: bool,
    pub(super) end: End,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Open,
    Condition(Timestamp),
    /// By another reason, whose time is the wall clock's.
    Reason(String),
}

impl Facts {
    /// Of an alarm as it is told.
    ///
    /// # Errors
    /// Where it has no time that can be read.
    pub(super) fn of(alarm: &pb::Alarm) -> Result<Self> {
        let cleared = to_timestamp_opt("clear_time", alarm.clear_time.as_ref())?;
        let end = match (alarm.state() == pb::AlarmState::Cleared, cleared, alarm.clear_reason.as_str()) {
            (true, Some(cleared), "CONDITION") => End::Condition(cleared),
            (true, Some(_), reason) => End::Reason(reason.to_owned()),
            (false, None, "") => End::Open,
            (_, cleared, reason) => End::Reason(format!("{reason} ({:?}, {cleared:?})", alarm.state())),
        };
        Ok(Self {
            raised: to_timestamp_opt("raise_time", alarm.raise_time.as_ref())?.unwrap_or_default(),
            revision: alarm.rule_revision,
            acknowledged: alarm.acknowledge_time.is_some(),
            end,
        })
    }
}

/// A rule `level > threshold` and its alarms.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    /// None before it is created and after it is deleted.
    pub(super) threshold: Option<f64>,
    pub(super) revision: i64,
    pub(super) alarms: Vec<Facts>,
    /// Cleared by hand, and the condition was not false since.
    held: bool,
}

impl Model {
    /// It is created, or edited.
    pub(super) fn put(&mut self, threshold: f64) {
        self.threshold = Some(threshold);
        self.revision += 1;
    }

    pub(super) fn reading(&mut self, ts: Timestamp, level: f64) {
        let Some(threshold) = self.threshold else { return };
        let (revision, held, high) = (self.revision, self.held, level > threshold);
        match (self.open(), high) {
            (None, true) if !held => {
                self.alarms.push(Facts { raised: ts, revision, acknowledged: false, end: End::Open });
            }
            (Some(open), false) => open.end = End::Condition(ts),
            _ => {}
        }
        self.held &= high;
    }

    pub(super) fn acknowledged(&mut self) {
        self.open().into_iter().for_each(|open| open.acknowledged = true);
    }

    pub(super) fn cleared(&mut self) {
        self.end("MANUAL");
        self.held = true;
    }

    pub(super) fn deleted(&mut self) {
        self.end("RULE_REMOVED");
        self.threshold = None;
    }

    fn end(&mut self, reason: &str) {
        self.open().into_iter().for_each(|open| open.end = End::Reason(reason.to_owned()));
    }

    fn open(&mut self) -> Option<&mut Facts> {
        self.alarms.last_mut().filter(|alarm| alarm.end == End::Open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(levels: &[f64], change: impl Fn(&mut Model, usize)) -> Vec<(i64, i64, End)> {
        let mut model = Model::default();
        model.put(50.0);
        for (at, level) in levels.iter().enumerate() {
            model.reading(Timestamp::from_micros(at as i64), *level);
            change(&mut model, at);
        }
        model.alarms.into_iter().map(|alarm| (alarm.raised.as_micros(), alarm.revision, alarm.end)).collect()
    }

    #[test]
    fn an_alarm_keeps_its_revision_and_clears_by_the_new_condition() {
        let edit = |model: &mut Model, at| {
            if at == 0 {
                model.put(150.0)
            }
        };
        let found = ends(&[200.0, 80.0, 80.0, 200.0], edit);
        let expected = [(0, 1, End::Condition(Timestamp::from_micros(1))), (3, 2, End::Open)];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_manual_clear_holds_until_the_condition_was_false_and_a_deletion_for_ever() {
        let clear = |model: &mut Model, at| {
            if at == 0 {
                model.cleared()
            }
        };
        let manual = End::Reason("MANUAL".to_owned());
        assert_eq!(ends(&[80.0, 80.0, 20.0, 80.0], clear), [(0, 1, manual), (3, 1, End::Open)]);
        let delete = |model: &mut Model, at| {
            if at == 0 {
                model.deleted()
            }
        };
        let removed = End::Reason("RULE_REMOVED".to_owned());
        assert_eq!(ends(&[80.0, 20.0, 80.0], delete), [(0, 1, removed)]);
    }
}
