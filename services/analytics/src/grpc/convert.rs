//! The domain of rules and alarms as it is written on the wire.

use std::time::Duration;

use weir_core::{Error, Result, TenantId, id::ResourceId, name, selector::Selector};
use weir_grpc::convert::{from_duration, from_timestamp, to_duration, to_duration_opt};
use weir_proto::analytics::v1 as pb;
use weir_rules::{Action, ActionKind, Command, Rule, Rung, Severity, Transition, TransitionKind, Webhook};

use crate::{
    alarm::{ActionResult, ActionState, Alarm, Event, State, States, text},
    rules::{Fares, Record, etag},
    testing::Answer,
};

/// What of an alarm's actions is told; more would be a page of its own.
const ACTIONS_TOLD: usize = 64;

/// A rule from the wire; its conditions are checked where it is written.
pub(super) fn to_rule(id: ResourceId, rule: pb::Rule) -> Result<Rule> {
    let selector: Selector =
        rule.label_selector.parse().map_err(|error: Error| error.with_field("rule.label_selector"))?;
    let duration = |field: &str, duration: Option<&prost_types::Duration>| {
        to_duration_opt(field, duration).map(Option::unwrap_or_default)
    };
    let rung = |(index, rung): (usize, pb::SeverityRung)| {
        let severity = to_severity(&format!("rule.severities[{index}].severity"), rung.severity)?;
        Ok(Rung { severity, condition: rung.condition })
    };
    Ok(Rule {
        display_name: rule.display_name,
        selector,
        severity: to_severity("rule.severity", rule.severity)?,
        severities: rule.severities.into_iter().enumerate().map(rung).collect::<Result<_>>()?,
        for_duration: duration("rule.for_duration", rule.for_duration.as_ref())?,
        clear_when: Some(rule.clear_when).filter(|text| !text.is_empty()),
        clear_for: duration("rule.clear_for_duration", rule.clear_for_duration.as_ref())?,
        max_gap: to_duration_opt("rule.max_gap", rule.max_gap.as_ref())?,
        labels: rule.labels.into_iter().collect(),
        actions: rule.actions.into_iter().enumerate().map(to_action).collect::<Result<_>>()?,
        disabled: rule.disabled,
        ..Rule::new(id, weir_core::Uid::from_u128(0), rule.condition)
    })
}

fn to_severity(field: &str, severity: i32) -> Result<Severity> {
    match pb::Severity::try_from(severity) {
        Ok(pb::Severity::Unspecified | pb::Severity::Warning) => Ok(Severity::Warning),
        Ok(pb::Severity::Info) => Ok(Severity::Info),
        Ok(pb::Severity::Minor) => Ok(Severity::Minor),
        Ok(pb::Severity::Major) => Ok(Severity::Major),
        Ok(pb::Severity::Critical) => Ok(Severity::Critical),
        Err(_) => Err(unknown(field, severity)),
    }
}

fn unknown(field: &str, number: i32) -> Error {
    Error::invalid(field, "ENUM_INVALID", format!("{field} is {number}, which means nothing"))
}

fn to_action((index, action): (usize, pb::Action)) -> Result<Action> {
    let field = format!("rule.actions[{index}]");
    let on =
        action.on.iter().map(|on| to_trigger(&format!("{field}.on"), *on)).collect::<Result<Vec<_>>>()?;
    let kind = match action.kind {
        Some(pb::action::Kind::Command(command)) => ActionKind::Command(to_command(&field, command)?),
        Some(pb::action::Kind::Webhook(webhook)) => {
            ActionKind::Webhook(Webhook { url: webhook.url, headers: webhook.headers.into_iter().collect() })
        }
        None => {
            return Err(Error::invalid(
                field,
                "FIELD_MISSING",
                "an action is a command or a webhook, and this is neither",
            ));
        }
    };
    Ok(Action {
        id: if action.id.is_empty() { (index + 1).to_string() } else { action.id },
        on: if on.is_empty() { vec![TransitionKind::Raised] } else { on },
        kind,
    })
}

fn to_trigger(field: &str, trigger: i32) -> Result<TransitionKind> {
    match pb::ActionTrigger::try_from(trigger) {
        Ok(pb::ActionTrigger::Raised) => Ok(TransitionKind::Raised),
        Ok(pb::ActionTrigger::Escalated) => Ok(TransitionKind::Escalated),
        Ok(pb::ActionTrigger::Acknowledged) => Ok(TransitionKind::Acknowledged),
        Ok(pb::ActionTrigger::Cleared) => Ok(TransitionKind::Cleared),
        Ok(pb::ActionTrigger::Unspecified) | Err(_) => Err(unknown(field, trigger)),
    }
}

fn to_command(field: &str, command: pb::CommandAction) -> Result<Command> {
    let duration = |name: &str, duration: Option<&prost_types::Duration>| match duration {
        Some(duration) => to_duration(&format!("{field}.command.{name}"), duration),
        None => Ok(Command::DEFAULT_DURATION),
    };
    Ok(Command {
        name: command.command,
        payload: if command.payload.is_empty() { "{}".to_owned() } else { command.payload },
        ttl: duration("ttl", command.ttl.as_ref())?,
        order: Default::default(),
        min_interval: duration("min_interval", command.min_interval.as_ref())?,
    })
}

/// A rule as it is stored.
pub(super) fn from_rule(tenant: &TenantId, record: Record) -> pb::Rule {
    let Record { rule, created_at, updated_at, managed_by, version, .. } = record;
    let ladder = !rule.severities.is_empty();
    let some = |duration: Duration| (!duration.is_zero()).then(|| from_duration(duration));
    let rung = |rung: Rung| pb::SeverityRung {
        severity: from_severity(rung.severity).into(),
        condition: rung.condition,
    };
    pb::Rule {
        name: name::child(tenant, "rules", &rule.id),
        display_name: rule.display_name,
        label_selector: rule.selector.to_string(),
        condition: rule.condition,
        for_duration: some(rule.for_duration),
        clear_when: rule.clear_when.unwrap_or_default(),
        clear_for_duration: some(rule.clear_for),
        max_gap: rule.max_gap.map(from_duration),
        severity: if ladder { pb::Severity::Unspecified } else { from_severity(rule.severity) }.into(),
        severities: rule.severities.into_iter().map(rung).collect(),
        labels: rule.labels.into_iter().collect(),
        actions: rule.actions.into_iter().map(from_action).collect(),
        disabled: rule.disabled,
        revision: i64::try_from(rule.revision).unwrap_or(i64::MAX),
        etag: if version == 0 { String::new() } else { etag(version) },
        create_time: Some(from_timestamp(created_at)),
        update_time: Some(from_timestamp(updated_at)),
        managed_by: managed_by.to_string(),
    }
}

fn from_severity(severity: Severity) -> pb::Severity {
    match severity {
        Severity::Info => pb::Severity::Info,
        Severity::Warning => pb::Severity::Warning,
        Severity::Minor => pb::Severity::Minor,
        Severity::Major => pb::Severity::Major,
        Severity::Critical => pb::Severity::Critical,
    }
}

fn from_action(action: Action) -> pb::Action {
    let trigger = |on: TransitionKind| match on {
        TransitionKind::Raised => pb::ActionTrigger::Raised,
        TransitionKind::Escalated => pb::ActionTrigger::Escalated,
        TransitionKind::Acknowledged => pb::ActionTrigger::Acknowledged,
        TransitionKind::Cleared => pb::ActionTrigger::Cleared,
    };
    let kind = match action.kind {
        ActionKind::Command(command) => pb::action::Kind::Command(pb::CommandAction {
            command: command.name,
            payload: command.payload,
            ttl: Some(from_duration(command.ttl)),
            min_interval: Some(from_duration(command.min_interval)),
        }),
        ActionKind::Webhook(webhook) => pb::action::Kind::Webhook(pb::WebhookAction {
            url: webhook.url,
            headers: webhook.headers.into_iter().collect(),
        }),
    };
    pb::Action {
        id: action.id,
        on: action.on.into_iter().map(|on| trigger(on).into()).collect(),
        kind: Some(kind),
    }
}

/// How a rule fares.
pub(super) fn from_fares(fares: Fares) -> pb::RuleStatus {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    pb::RuleStatus {
        evaluations: count(fares.evaluations),
        unknown: count(fares.unknown),
        open_alarms: count(fares.open_alarms as u64),
    }
}

/// The states of a filter.
pub(super) fn to_states(state: i32) -> Result<States> {
    match pb::AlarmState::try_from(state) {
        Ok(pb::AlarmState::Unspecified) => Ok(States::Any),
        Ok(pb::AlarmState::Raised) => Ok(States::Only(State::Raised)),
        Ok(pb::AlarmState::Acknowledged) => Ok(States::Only(State::Acknowledged)),
        Ok(pb::AlarmState::Cleared) => Ok(States::Only(State::Cleared)),
        Err(_) => Err(unknown("state", state)),
    }
}

/// An alarm.
pub(super) fn from_alarm(alarm: Alarm) -> pb::Alarm {
    let tenant = &alarm.device.tenant;
    let state = match alarm.state {
        State::Raised => pb::AlarmState::Raised,
        State::Acknowledged => pb::AlarmState::Acknowledged,
        State::Cleared => pb::AlarmState::Cleared,
    };
    let untold = alarm.actions.len().saturating_sub(ACTIONS_TOLD);
    pb::Alarm {
        name: name::child(tenant, "alarms", alarm.uid),
        rule: name::child(tenant, "rules", &alarm.rule),
        rule_revision: i64::try_from(alarm.revision).unwrap_or(i64::MAX),
        device: name::device(tenant, &alarm.device.device),
        severity: from_severity(alarm.severity).into(),
        state: state.into(),
        raise_time: Some(from_timestamp(alarm.raised_at)),
        acknowledge_time: alarm.acknowledged_at.map(from_timestamp),
        clear_time: alarm.cleared_at.map(from_timestamp),
        clear_reason: alarm.clear_reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
        labels: alarm.labels.into_iter().collect(),
        values: alarm.values.into_iter().collect(),
        history: alarm.history.into_iter().map(from_event).collect(),
        actions: alarm.actions.into_iter().skip(untold).map(|action| from_result(tenant, action)).collect(),
        etag: format!("{:x}", alarm.change),
    }
}

fn from_kind(kind: TransitionKind) -> pb::AlarmEventType {
    match kind {
        TransitionKind::Raised => pb::AlarmEventType::Raised,
        TransitionKind::Escalated => pb::AlarmEventType::Escalated,
        TransitionKind::Acknowledged => pb::AlarmEventType::Acknowledged,
        TransitionKind::Cleared => pb::AlarmEventType::Cleared,
    }
}

fn from_event(event: Event) -> pb::AlarmEvent {
    pb::AlarmEvent {
        r#type: from_kind(event.kind).into(),
        event_time: event.event_time.map(from_timestamp),
        record_time: Some(from_timestamp(event.record_time)),
        actor: event.actor,
        comment: event.comment,
        severity: from_severity(event.severity).into(),
        position: event.position,
    }
}

fn from_result(tenant: &TenantId, result: ActionResult) -> pb::ActionResult {
    let state = match result.state {
        ActionState::Pending => pb::ActionState::Pending,
        ActionState::Done => pb::ActionState::Done,
        ActionState::Failed => pb::ActionState::Failed,
        ActionState::Suppressed => pb::ActionState::Suppressed,
    };
    pb::ActionResult {
        action: result.action,
        on: from_kind(result.on).into(),
        state: state.into(),
        command: result.command.map(|id| name::child(tenant, "commands", id)).unwrap_or_default(),
        attempts: i32::try_from(result.attempts).unwrap_or(i32::MAX),
        error: result.error,
    }
}

/// A part of a test's answer.
pub(super) fn from_test(tenant: &TenantId, answer: Answer) -> pb::TestRuleResponse {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    match answer {
        Answer::Transitions(transitions) => pb::TestRuleResponse {
            transitions: transitions
                .into_iter()
                .map(|transition| from_transition(tenant, transition))
                .collect(),
            summary: None,
        },
        Answer::Summary(summary) => pb::TestRuleResponse {
            transitions: vec![],
            summary: Some(pb::TestSummary {
                devices: count(summary.devices),
                readings: count(summary.readings),
                unknown: count(summary.unknown),
                exact: summary.exact,
                note: summary.note,
            }),
        },
    }
}

fn from_transition(tenant: &TenantId, transition: Transition) -> pb::TestTransition {
    pb::TestTransition {
        device: name::device(tenant, &transition.device.device),
        r#type: from_kind(transition.kind).into(),
        event_time: Some(from_timestamp(transition.ts)),
        severity: from_severity(transition.severity).into(),
        values: transition.values.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        approximate: transition.approximate,
        position: transition.position.to_string(),
    }
}
