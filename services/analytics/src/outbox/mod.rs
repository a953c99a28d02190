//! What transitions set off: rows that are written with the alarm, and deleted when the action is done or given up.

mod command;
mod dispatcher;
mod slots;
mod webhook;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use weir_core::{
    Result, Timestamp, Uid,
    command::{DeviceKey, Order},
    id::ResourceId,
};
use weir_rules::{ActionKind, Due, TransitionKind};

use crate::alarm::{ActionResult, ActionState, Alarm, Effect, boundary};

pub(crate) use dispatcher::Dispatcher;

/// Longest payload of a command after it was filled in: sixteen of them and their alarm fit into one commit.
pub(crate) const PAYLOAD_MAX: usize = 48 * 1024;
/// Most of an error that is kept.
const ERROR_MAX: usize = 512;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Job {
    Command { name: String, payload: String, ttl: Duration, order: Order },
    Webhook { url: String, headers: std::collections::BTreeMap<String, String>, body: String },
}

impl Job {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Command { .. } => "command",
            Self::Webhook { .. } => "webhook",
        }
    }

    pub(crate) fn is_webhook(&self) -> bool {
        matches!(self, Self::Webhook { .. })
    }
}

/// An action that waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// hash(transition, action).
    pub(crate) key: Uid,
    pub(crate) transition: Uid,
    pub(crate) alarm: Uid,
    pub(crate) rule: ResourceId,
    pub(crate) rule_uid: Uid,
    pub(crate) device: DeviceKey,
    pub(crate) job: Job,
    pub(crate) created_at: Timestamp,
    /// Tries so far.
    #[serde(default)]
    pub(crate) attempts: u32,
    /// When it is tried next.
    pub(crate) next_at: Timestamp,
}

/// How a try ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    Done { command: Option<Uid> },
    Retry { at: Timestamp, error: String },
    Failed { error: String },
}

impl Outcome {
    /// The row as it waits for its next try; none where that was the last.
    pub(crate) fn next(&self, row: &Row) -> Option<Row> {
        match self {
            Self::Retry { at, .. } => Some(Row { attempts: row.attempts + 1, next_at: *at, ..row.clone() }),
            Self::Done { .. } | Self::Failed { .. } => None,
        }
    }

    /// Writes what became of the action onto its alarm.
    pub(crate) fn write(&self, row: &Row, result: &mut ActionResult) {
        result.attempts = row.attempts + 1;
        match self {
            Self::Done { command } => (result.state, result.command) = (ActionState::Done, *command),
            Self::Retry { error, .. } => result.error = short(error),
            Self::Failed { error } => (result.state, result.error) = (ActionState::Failed, short(error)),
        }
    }

    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Done { .. } => "done",
            Self::Retry { .. } => "retry",
            Self::Failed { .. } => "failed",
        }
    }
}

fn short(error: &str) -> String {
    error.get(..boundary(error, ERROR_MAX)).unwrap_or_default().to_owned()
}

/// What an action comes to: its result so far, and its row where something is to be done. `room`: whether the rule may
/// have another webhook wait.
pub(crate) fn plan(
    effect: &Effect,
    due: &Due,
    alarm: &Alarm,
    now: Timestamp,
    room: bool,
) -> Result<(ActionResult, Option<Row>)> {
    let transition = &effect.transition;
    let mut result = ActionResult {
        key: due.key,
        action: due.action.clone(),
        on: transition.kind,
        state: ActionState::Pending,
        command: None,
        attempts: 0,
        error: String::new(),
    };
    let failed = |mut result: ActionResult, error: String| {
        (result.state, result.error) = (ActionState::Failed, error);
        Ok((result, None))
    };
    if due.suppressed {
        result.state = ActionState::Suppressed;
        return Ok((result, None));
    }
    let action =
        effect.rule.as_ref().and_then(|rule| rule.rule().actions.iter().find(|known| known.id == due.action));
    let Some(action) = action else { return failed(result, "the action is gone from the rule".to_owned()) };
    let job = match &action.kind {
        ActionKind::Command(command) => {
            let payload = due.payload.as_ref().map_or_else(|| "{}".to_owned(), ToString::to_string);
            if payload.len() > PAYLOAD_MAX {
                let text = format!(
                    "the filled-in payload has {} bytes, at most {PAYLOAD_MAX} are sent",
                    payload.len()
                );
                return failed(result, text);
            }
            Job::Command { name: command.name.clone(), payload, ttl: command.ttl, order: command.order }
        }
        ActionKind::Webhook(_) if !room => {
            return failed(result, "too many webhooks of this rule wait already".to_owned());
        }
        ActionKind::Webhook(webhook) => Job::Webhook {
            url: webhook.url.clone(),
            headers: webhook.headers.clone(),
            body: webhook::body(transition.kind, alarm, now)?,
        },
    };
    let row = Row {
        key: due.key,
        transition: transition.id,
        alarm: alarm.uid,
        rule: alarm.rule.clone(),
        rule_uid: transition.rule,
        device: transition.device.clone(),
        job,
        created_at: now,
        attempts: 0,
        next_at: now,
    };
    Ok((result, Some(row)))
}

/// Which webhooks wait in this process, and how many of each rule. Commands are not counted: their time to live bounds how
/// long they wait, and a dead endpoint must not make them fail.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    rows: HashSet<Uid>,
    of_rule: HashMap<Uid, usize>,
}

impl Waiting {
    /// How many webhooks of a rule wait.
    pub(crate) fn of(&self, rule: Uid) -> usize {
        self.0.lock().of_rule.get(&rule).copied().unwrap_or_default()
    }

    pub(crate) fn add_all(&self, rows: &[Row]) {
        let mut counted = self.0.lock();
        for row in rows.iter().filter(|row| row.job.is_webhook()) {
            if counted.rows.insert(row.key) {
                *counted.of_rule.entry(row.rule_uid).or_default() += 1;
            }
        }
    }

    pub(crate) fn remove(&self, row: &Row) {
        let mut counted = self.0.lock();
        if counted.rows.remove(&row.key)
            && let Some(count) = counted.of_rule.get_mut(&row.rule_uid)
        {
            *count -= 1;
            if *count == 0 {
                counted.of_rule.remove(&row.rule_uid);
            }
        }
    }
}

/// The name of a kind of transition on the wire of webhooks.
pub(crate) fn event_type(kind: TransitionKind) -> String {
    format!("alarm.{}", kind.as_str())
}
