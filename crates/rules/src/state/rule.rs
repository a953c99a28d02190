//! What one rule remembers of one device, and its steps.

use std::sync::Arc;

use weir_core::{Position, Timestamp, Uid, device::Device};

use super::{ClearReason, Transition, TransitionKind, emit::Event};
use crate::{
    Compiled, Severity,
    eval::{Binding, View, or},
    series::Series,
};

/// One rule of one device.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RuleState {
    pub(super) rule: Uid,
    pub(super) revision: u64,
    /// Metrics that were known before this revision began, and up to which event time it does not see them.
    pub(super) floors: Vec<(Arc<str>, Timestamp)>,
    /// Of each level, from the least bad: since when its condition holds.
    pub(super) since: Vec<Option<Timestamp>>,
    /// Since when the alarm could clear.
    pub(super) clear_since: Option<Timestamp>,
    pub(super) open: Option<Open>,
    /// After a manual clear, until the condition was false once.
    pub(super) suppressed: bool,
    /// What the condition was last.
    pub(super) truth: Option<bool>,
    /// Where an alarm was raised and cleared last: ticks do neither a second time at one position, since both would have
    /// the same id.
    pub(super) raised_at: Option<Position>,
    pub(super) cleared_at: Option<Position>,
    /// When the command of each action left last.
    pub(super) commands: Vec<(String, Timestamp)>,
    pub(super) binding: Binding,
}

/// An open alarm.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Open {
    pub(super) alarm: Uid,
    pub(super) revision: u64,
    pub(super) severity: Severity,
}

/// When a step happens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) position: Position,
    /// Event time, for `for` and for transitions.
    pub(super) at: Timestamp,
    /// The device's clock, where windows end.
    pub(super) clock: Timestamp,
    pub(super) received: Timestamp,
    /// The reading before this one, for `max_gap`.
    pub(super) previous: Option<Timestamp>,
}

impl Moment {
    pub(super) fn of_person(position: Position, at: Timestamp, received: Timestamp) -> Self {
        Self { position, at, clock: at, received, previous: None }
    }
}

/// What a step of one rule sees.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) compiled: &'a Compiled,
    pub(super) series: &'a [Series],
    pub(super) device: &'a Device,
    pub(super) moment: Moment,
}

impl<'a> Step<'a> {
    pub(super) fn view(&self, binding: &'a Binding) -> View<'a> {
        let Moment { clock, received, .. } = self.moment;
        View { series: self.series, binding, device: self.device, now: clock, received, alarm: None }
    }
}

impl RuleState {
    /// A rule or a revision that begins now and has seen nothing; of what was before it keeps the open alarm, its
    /// suppression and its commands' clock.
    pub(super) fn cold(compiled: &Compiled, before: Option<Self>, series: &[Series]) -> Self {
        let floors = series
            .iter()
            .filter(|series| compiled.metrics().contains(&series.name))
            .filter_map(|series| series.last.as_ref().map(|last| (Arc::clone(&series.name), last.ts)))
            .collect();
        let new = Self {
            rule: compiled.rule().uid,
            revision: compiled.rule().revision,
            floors,
            since: vec![None; compiled.levels.len()],
            clear_since: None,
            open: None,
            suppressed: false,
            truth: None,
            raised_at: None,
            cleared_at: None,
            commands: Vec::new(),
            binding: Binding::default(),
        };
        match before {
            None => new,
            Some(Self { open, suppressed, raised_at, cleared_at, commands, .. }) => {
                Self { open, suppressed, raised_at, cleared_at, commands, ..new }
            }
        }
    }

    /// Evaluates the rule.
    pub(super) fn step(&mut self, step: &Step<'_>, out: &mut Vec<Transition>) {
        let (rule, moment) = (step.compiled.rule(), step.moment);
        if rule.disabled {
            return;
        }
        if let (Some(max), Some(previous)) = (rule.max_gap, moment.previous)
            && moment.at.since(previous) > max
        {
            self.since.fill(None);
            self.clear_since = None;
        }
        let truth = self.evaluate(step);
        step.compiled.count(truth);
        self.truth = truth;
        if truth == Some(false) {
            self.suppressed = false;
        }
        let levels = step.compiled.levels.iter().zip(&self.since).rev();
        let worst = levels
            .filter(|(_, since)| since.is_some_and(|since| moment.at.since(since) >= rule.for_duration))
            .map(|((severity, _), _)| *severity)
            .next();
        match (&self.open, worst) {
            (None, Some(severity)) => self.raise(step, severity, out),
            (Some(open), Some(severity)) if severity > open.severity => {
                let open = Open { severity, ..open.clone() };
                out.push(self.emit(step, &Event::of_reading(TransitionKind::Escalated, &open)));
                self.open = Some(open);
                self.clear_since = None;
            }
            (Some(_), _) => self.try_clear(step, out),
            (None, None) => {}
        }
    }

    /// The levels' conditions, and since when each holds.
    fn evaluate(&mut self, step: &Step<'_>) -> Option<bool> {
        let view = step.view(&self.binding);
        let mut truth = Some(false);
        for ((_, condition), since) in step.compiled.levels.iter().zip(&mut self.since) {
            let holds = condition.eval(&view);
            truth = or(truth, || holds);
            *since = match holds {
                Some(true) => since.or(Some(step.moment.at)),
                Some(false) | None => None,
            };
        }
        truth
    }

    fn raise(&mut self, step: &Step<'_>, severity: Severity, out: &mut Vec<Transition>) {
        if self.suppressed || self.raised_at == Some(step.moment.position) {
            return;
        }
        let revision = step.compiled.rule().revision;
        let alarm = Event::raised_id(self.rule, revision, step.device, step.moment.position);
        let open = Open { alarm, revision, severity };
        out.push(self.emit(step, &Event::of_reading(TransitionKind::Raised, &open)));
        self.open = Some(open);
        self.raised_at = Some(step.moment.position);
        self.clear_since = None;
    }

    fn try_clear(&mut self, step: &Step<'_>, out: &mut Vec<Transition>) {
        let (rule, moment) = (step.compiled.rule(), step.moment);
        let clear = match &step.compiled.clear_when {
            Some(clear_when) => clear_when.eval(&step.view(&self.binding)),
            None => self.truth.map(|truth| !truth),
        };
        if clear != Some(true) || self.truth == Some(true) {
            self.clear_since = None;
            return;
        }
        let since = *self.clear_since.get_or_insert(moment.at);
        if moment.at.since(since) < rule.clear_for || self.cleared_at == Some(moment.position) {
            return;
        }
        self.clear_since = None;
        if let Some(open) = self.open.take() {
            let event = Event::of_reading(TransitionKind::Cleared, &open).because(ClearReason::Condition);
            out.push(self.emit(step, &event));
            self.cleared_at = Some(moment.position);
        }
    }

    /// What a person did with the open alarm: cleared or acknowledged it.
    pub(super) fn by_person(
        &mut self,
        step: &Step<'_>,
        kind: TransitionKind,
        request_id: &str,
    ) -> Option<Transition> {
        let open = self.open.clone()?;
        let mut event = Event::of_person(kind, &open, request_id);
        if kind == TransitionKind::Cleared {
            event = event.because(ClearReason::Manual);
            self.open = None;
            self.clear_since = None;
            self.since.fill(None);
            self.suppressed = self.truth != Some(false);
        }
        Some(self.emit(step, &event))
    }

    /// Closes the open alarm without its rule: nothing is set off.
    pub(super) fn close(
        &mut self,
        device: &Device,
        position: Position,
        ts: Timestamp,
        reason: ClearReason,
    ) -> Option<Transition> {
        let open = self.open.take()?;
        let event = Event::of_reading(TransitionKind::Cleared, &open).because(reason);
        Some(event.transition(self.rule, device, Moment::of_person(position, ts, ts)))
    }
}
