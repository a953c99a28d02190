//! Transitions as they leave: their ids, what they show, and what they set off.

use weir_core::{Position, Timestamp, Uid, Value, command::DeviceKey, device::Device};

use super::{
    ClearReason, Due, Transition, TransitionKind,
    rule::{Moment, Open, RuleState, Step},
};
use crate::{
    ActionKind, Compiled,
    check::Shown,
    eval::{AlarmFacts, View},
};

/// What a transition is about, beside its rule.
pub(super) struct Event<'a> {
    kind: TransitionKind,
    reason: Option<ClearReason>,
    open: &'a Open,
    /// Of a person.
    request_id: Option<&'a str>,
}

impl<'a> Event<'a> {
    pub(super) fn of_reading(kind: TransitionKind, open: &'a Open) -> Self {
        Self { kind, reason: None, open, request_id: None }
    }
    pub(super) fn of_person(kind: TransitionKind, open: &'a Open, request_id: &'a str) -> Self {
        Self { kind, reason: None, open, request_id: Some(request_id) }
    }
    pub(super) fn because(self, reason: ClearReason) -> Self {
        Self { reason: Some(reason), ..self }
    }

    pub(super) fn raised_id(rule: Uid, revision: u64, device: &Device, position: Position) -> Uid {
        id(rule, revision, device, TransitionKind::Raised.as_str(), &position.to_bytes())
    }

    /// One reading, and the ticks after it, can escalate an alarm several times, and a removal can follow a clear: so the
    /// severity, or the reason of a removal, is part of the kind.
    fn id(&self, rule: Uid, device: &Device, position: Position) -> Uid {
        let kind = match (self.kind, self.reason) {
            (TransitionKind::Escalated, _) => format!("escalated:{}", self.open.severity),
            (_, Some(reason @ (ClearReason::RuleRemoved | ClearReason::DeviceRemoved))) => {
                format!("cleared:{}", reason.as_str())
            }
            (kind, _) => kind.as_str().to_owned(),
        };
        match self.request_id {
            Some(request) => id(rule, self.open.revision, device, &kind, request.as_bytes()),
            None => id(rule, self.open.revision, device, &kind, &position.to_bytes()),
        }
    }

    /// The transition alone: without values and actions.
    pub(super) fn transition(&self, rule: Uid, device: &Device, moment: Moment) -> Transition {
        Transition {
            id: self.id(rule, device, moment.position),
            alarm: self.open.alarm,
            kind: self.kind,
            reason: self.reason,
            rule,
            revision: self.open.revision,
            severity: self.open.severity,
            device: DeviceKey { tenant: device.tenant.clone(), device: device.id.clone(), uid: device.uid },
            position: moment.position,
            ts: moment.at,
            values: Vec::new(),
            approximate: false,
            actions: Vec::new(),
        }
    }
}

/// `last`: the position of a reading, or the request of a person.
fn id(rule: Uid, revision: u64, device: &Device, kind: &str, last: &[u8]) -> Uid {
    Uid::hash(&[&rule.to_bytes(), &revision.to_be_bytes(), &device.uid.to_bytes(), kind.as_bytes(), last])
}

impl RuleState {
    pub(super) fn emit(&mut self, step: &Step<'_>, event: &Event<'_>) -> Transition {
        let transition = event.transition(self.rule, step.device, step.moment);
        let alarm = AlarmFacts {
            id: event.open.alarm,
            rule: step.compiled.rule().id.as_str(),
            severity: event.open.severity,
        };
        let view = View { alarm: Some(alarm), ..step.view(&self.binding) };
        Transition {
            values: shown(step.compiled, &view),
            approximate: step.compiled.uses_absent(),
            actions: due(step.compiled, &view, step.moment.at, &transition, &mut self.commands),
            ..transition
        }
    }
}

fn shown(compiled: &Compiled, view: &View<'_>) -> Vec<(String, Value)> {
    let value = |what: &Shown| match what {
        Shown::Metric(metric) => view.last(*metric).map(|last| last.value.clone()),
        Shown::Window(window, aggregate) => view.window(*window, *aggregate).map(Value::Double),
    };
    let known = compiled.tables.shown.iter().filter_map(|(name, what)| Some((name.clone(), value(what)?)));
    known.collect()
}

/// The actions that a transition sets off; of commands, those within their `min_interval` are suppressed.
fn due(
    compiled: &Compiled,
    view: &View<'_>,
    at: Timestamp,
    transition: &Transition,
    commands: &mut Vec<(String, Timestamp)>,
) -> Vec<Due> {
    let mut due = Vec::new();
    let actions = compiled.rule().actions.iter().zip(&compiled.payloads);
    for (action, payload) in actions.filter(|(action, _)| action.on.contains(&transition.kind)) {
        let key = Uid::hash(&[&transition.id.to_bytes(), action.id.as_bytes()]);
        let mut suppressed = false;
        if let ActionKind::Command(command) = &action.kind {
            match commands.iter_mut().find(|(id, _)| *id == action.id) {
                Some((_, last)) if at.since(*last) < command.min_interval => suppressed = true,
                Some((_, last)) => *last = at,
                None => commands.push((action.id.clone(), at)),
            }
        }
        let payload = payload.as_ref().filter(|_| !suppressed).map(|payload| payload.render(view));
        due.push(Due { key, action: action.id.clone(), payload, suppressed });
    }
    due
}
