//! What a rule does when its alarm changes.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use weir_core::command::Order;

use crate::{TransitionKind, duration, problem::Problem};

/// Most actions of a rule.
pub(crate) const ACTIONS_MAX: usize = 16;
/// Longest payload template, in bytes: an eighth of the longest payload, so that what is filled in has room.
const PAYLOAD_MAX: usize = 16 * 1024;
/// Longest life of a command.
const TTL_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Longest web address, in bytes.
const URL_MAX: usize = 2_048;
/// Most headers, and the most bytes of a name or a value.
const HEADERS_MAX: usize = 16;
const HEADER_LEN_MAX: usize = 1_024;
/// Longest name of a command: a level of an MQTT topic.
const COMMAND_NAME_MAX: usize = 64;

/// What happens with an alarm that sets off an action.
pub type Trigger = TransitionKind;

/// Something to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// 1 to 63 of `[a-z0-9-]`, unique within the rule.
    pub id: String,
    /// When.
    #[serde(default = "on_raised")]
    pub on: Vec<Trigger>,
    /// What.
    #[serde(flatten)]
    pub kind: ActionKind,
}

/// The kinds of actions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActionKind {
    /// Sends a command to the alarm's device.
    Command(Command),
    /// Posts the alarm to a web address.
    Webhook(Webhook),
}

/// A command to the alarm's device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// 1 to 64 of `[A-Za-z0-9_.-]`.
    pub name: String,
    /// A JSON document as text; `${…}` in its strings is CEL. At most 16 KiB.
    #[serde(default = "empty_object", deserialize_with = "json_text")]
    pub payload: String,
    /// How long it may wait for its answer, at most 30 d.
    #[serde(default = "ten_minutes", with = "duration::text")]
    pub ttl: Duration,
    /// When the device's next command may leave.
    #[serde(default)]
    pub order: Order,
    /// At most one in this time for each device, on the device's clock; zero for no limit.
    #[serde(default = "ten_minutes", with = "duration::text")]
    pub min_interval: Duration,
}

/// A call of a web address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// `http` or `https`, at most 2,048 bytes.
    pub url: String,
    /// Sent with each request; at most 16, names and values at most 1,024 bytes.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

impl Command {
    /// Both the default life of a command and the default pause between two: an actuator should neither act on what was
    /// true ten minutes ago, nor be switched more often than that by an alarm that flaps.
    pub const DEFAULT_DURATION: Duration = Duration::from_secs(600);
}

fn on_raised() -> Vec<Trigger> {
    vec![Trigger::Raised]
}
fn ten_minutes() -> Duration {
    Command::DEFAULT_DURATION
}
fn empty_object() -> String {
    "{}".to_owned()
}

/// A payload is JSON text, or (in a file for people) the document itself.
fn json_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => Ok(text),
        document => serde_json::to_string(&document).map_err(D::Error::custom),
    }
}

/// Checks everything of an action but the expressions of its payload.
pub(crate) fn check(action: &Action, field: &str, problems: &mut Vec<Problem>) {
    let id_ok = (1..=63).contains(&action.id.len())
        && action.id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !id_ok {
        problems.push(
            Problem::of(
                format!("{field}.id"),
                format!("action id {:?} must be 1 to 63 of [a-z0-9-]", shown(&action.id)),
            )
            .limit(63),
        );
    }
    if action.on.is_empty() {
        problems.push(
            Problem::of(format!("{field}.on"), "an action needs something that sets it off")
                .hint("one or more of raised, escalated, acknowledged, cleared"),
        );
    }
    match &action.kind {
        ActionKind::Command(command) => check_command(command, field, problems),
        ActionKind::Webhook(webhook) => check_webhook(webhook, field, problems),
    }
}

fn check_command(command: &Command, field: &str, problems: &mut Vec<Problem>) {
    let name_ok = (1..=COMMAND_NAME_MAX).contains(&command.name.len())
        && command.name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if !name_ok {
        let text =
            format!("command {:?} must be 1 to {COMMAND_NAME_MAX} of [A-Za-z0-9_.-]", shown(&command.name));
        problems.push(Problem::of(format!("{field}.command.name"), text).limit(COMMAND_NAME_MAX));
    }
    if command.payload.len() > PAYLOAD_MAX {
        let text = format!("a payload of {} bytes is longer than {PAYLOAD_MAX}", command.payload.len());
        problems.push(Problem::of(format!("{field}.command.payload"), text).limit(PAYLOAD_MAX));
    }
    if command.ttl.is_zero() || command.ttl > TTL_MAX {
        let text = format!(
            "a command's ttl of {} must be above 0s and at most 30d",
            duration::format_duration(command.ttl)
        );
        problems.push(Problem::of(format!("{field}.command.ttl"), text).limit("30d"));
    }
    if command.min_interval > TTL_MAX {
        let text = format!(
            "a min_interval of {} is longer than 30d",
            duration::format_duration(command.min_interval)
        );
        problems.push(Problem::of(format!("{field}.command.min_interval"), text).limit("30d"));
    }
}

fn check_webhook(webhook: &Webhook, field: &str, problems: &mut Vec<Problem>) {
    let rest = webhook.url.strip_prefix("https://").or_else(|| webhook.url.strip_prefix("http://"));
    let url_ok = rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '['))
        && webhook.url.bytes().all(|b| b.is_ascii_graphic());
    if !url_ok {
        problems.push(
            Problem::of(
                format!("{field}.webhook.url"),
                format!("{:?} is not a web address", shown(&webhook.url)),
            )
            .hint("it begins with http:// or https:// and a host"),
        );
    }
    if webhook.url.len() > URL_MAX {
        let text = format!("a url of {} bytes is longer than {URL_MAX}", webhook.url.len());
        problems.push(Problem::of(format!("{field}.webhook.url"), text).limit(URL_MAX));
    }
    if webhook.headers.len() > HEADERS_MAX {
        let text = format!("{} headers are more than {HEADERS_MAX}", webhook.headers.len());
        problems.push(Problem::of(format!("{field}.webhook.headers"), text).limit(HEADERS_MAX));
    }
    for (name, value) in &webhook.headers {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b); // RFC 9110, 5.6.2
        let name_ok = (1..=HEADER_LEN_MAX).contains(&name.len()) && name.bytes().all(token);
        if !name_ok || value.len() > HEADER_LEN_MAX || value.bytes().any(|b| b.is_ascii_control()) {
            let text = format!(
                "header {:?} must be a name and a value of at most {HEADER_LEN_MAX} bytes",
                shown(name)
            );
            problems.push(Problem::of(format!("{field}.webhook.headers"), text).limit(HEADER_LEN_MAX));
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}
