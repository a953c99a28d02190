//! What `weir rule …` takes: flags, or a file.

use std::collections::HashMap;

use clap::{Args, Subcommand};
use serde::Deserialize;
use weir_core::Result;
use weir_grpc::convert::from_duration;
use weir_proto::analytics::v1 as pb;

use crate::{
    convert::{find, parse_pair},
    exit::usage,
    file,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a rule; it starts with the next reading
    #[command(after_help = "Examples:
  weir rule create stuffy --selector type=room --when 'CO2 > 1000' --for 2m --clear-when 'CO2 < 800' --command ventilate
  weir rule create hot --when 'avg(temp, \"5m\") > 30' --severity critical --webhook http://127.0.0.1:9000/hook
  weir rule create silent --when 'absent(temp, \"10m\")'
  weir rule create worn -f rule.yaml")]
    Create {
        /// 1 to 63 of [a-z0-9-]
        id: String,
        #[command(flatten)]
        what: Box<What>,
        /// Create it disabled
        #[arg(long, alias = "disable")]
        disabled: bool,
    },
    /// Show a rule
    #[command(after_help = "Examples:\n  weir rule get stuffy\n  weir rule get stuffy -o yaml")]
    Get {
        /// Its id
        id: String,
    },
    /// List rules
    #[command(after_help = "Example:\n  weir rule list")]
    List,
    /// Change a rule; what is not named stays
    #[command(
        after_help = "Examples:\n  weir rule update stuffy --when 'CO2 > 1200' --for 5m\n  weir rule update stuffy --disable"
    )]
    Update {
        /// Its id
        id: String,
        #[command(flatten)]
        what: Box<What>,
        /// Evaluate it no longer
        #[arg(long, alias = "disabled", conflicts_with = "enable")]
        disable: bool,
        /// Evaluate it again
        #[arg(long, alias = "enabled")]
        enable: bool,
    },
    /// Delete a rule; its open alarms are closed
    #[command(after_help = "Example:\n  weir rule delete stuffy")]
    Delete {
        /// Its id
        id: String,
    },
    /// Run a rule over stored telemetry and act on nothing
    #[command(after_help = "Examples:
  weir rule test stuffy
  weir rule test --when 'CO2 > 900' --selector type=room --from 2015-02-04 --to 2015-02-05")]
    Test {
        /// A stored rule's id; else give --when or --file
        id: Option<String>,
        #[command(flatten)]
        what: Box<What>,
        /// Only this device; may be given more than once
        #[arg(long)]
        device: Vec<String>,
        /// From this event time on; a stored rule's own start if not given
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Before this event time
        #[arg(long, value_name = "TIME")]
        to: Option<String>,
    },
}

/// What a rule says.
#[derive(Debug, Args)]
pub struct What {
    /// A YAML or JSON file with the rule; - for standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// When it is true, in CEL: CO2 > 1000 && avg(Temperature, "5m") > 22
    #[arg(long, value_name = "CEL")]
    when: Option<String>,
    /// Which devices: type=room,floor in (1,2); all if not given
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// For how long the condition must hold: 2m
    #[arg(long = "for", value_name = "SPAN")]
    for_span: Option<String>,
    /// When the alarm clears, in CEL; when the condition is false if not given
    #[arg(long, value_name = "CEL")]
    clear_when: Option<String>,
    /// For how long that must hold
    #[arg(long, value_name = "SPAN")]
    clear_for: Option<String>,
    /// A silence longer than this resets a pending --for
    #[arg(long, value_name = "SPAN")]
    max_gap: Option<String>,
    /// How bad it is: info, warning, minor, major or critical
    #[arg(long)]
    severity: Option<String>,
    /// A name for people
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// Copied onto its alarms; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_pair)]
    labels: Vec<(String, String)>,
    /// Send this command to the device; may be given more than once
    #[arg(long = "command", value_name = "NAME[=JSON]")]
    commands: Vec<String>,
    /// At most one such command in this time for each device; 10m if not given, 0s for no limit
    #[arg(long, value_name = "SPAN", requires = "commands")]
    command_interval: Option<String>,
    /// Post the alarm to this address; may be given more than once
    #[arg(long = "webhook", value_name = "URL")]
    webhooks: Vec<String>,
    /// On what the actions act: raised, escalated, acknowledged, cleared
    #[arg(long, value_delimiter = ',', value_name = "EVENT")]
    on: Vec<String>,
}

/// A rule in a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    #[serde(default)]
    display_name: String,
    #[serde(default)]
    selector: String,
    #[serde(default)]
    when: String,
    #[serde(default, rename = "for")]
    for_span: Option<String>,
    #[serde(default)]
    clear_when: String,
    #[serde(default)]
    clear_for: Option<String>,
    #[serde(default)]
    max_gap: Option<String>,
    #[serde(default)]
    severity: Option<String>,
    #[serde(default)]
    severities: Vec<RungFile>,
    #[serde(default)]
    labels: HashMap<String, String>,
    #[serde(default)]
    actions: Vec<ActionFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RungFile {
    severity: String,
    when: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionFile {
    #[serde(default)]
    id: String,
    #[serde(default)]
    on: Vec<String>,
    command: Option<CommandFile>,
    webhook: Option<WebhookFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandFile {
    name: String,
    #[serde(default)]
    payload: serde_json::Value,
    #[serde(default)]
    ttl: Option<String>,
    #[serde(default)]
    min_interval: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookFile {
    url: String,
    #[serde(default)]
    headers: HashMap<String, String>,
}

impl What {
    /// Whether nothing was said.
    pub(crate) fn is_empty(&self) -> bool {
        self.file.is_none() && self.when.is_none()
    }

    /// Puts what was said into a rule: the file first, then the flags.
    pub(crate) fn apply(self: Box<Self>, rule: &mut pb::Rule) -> Result<()> {
        if let Some(path) = &self.file {
            apply_file(file::read(path)?, rule)?;
        }
        let text = |to: &mut String, from: Option<String>| from.into_iter().for_each(|from| *to = from);
        text(&mut rule.condition, self.when);
        text(&mut rule.label_selector, self.selector);
        text(&mut rule.clear_when, self.clear_when);
        text(&mut rule.display_name, self.display_name);
        span(&mut rule.for_duration, "--for", self.for_span.as_deref())?;
        span(&mut rule.clear_for_duration, "--clear-for", self.clear_for.as_deref())?;
        span(&mut rule.max_gap, "--max-gap", self.max_gap.as_deref())?;
        if let Some(text) = &self.severity {
            rule.set_severity(severity(text)?);
        }
        rule.labels.extend(self.labels);
        let on = triggers(&self.on)?;
        let mut actions = Vec::new();
        for command in &self.commands {
            let (name, payload) = command.split_once('=').unwrap_or((command, ""));
            let mut action = pb::CommandAction {
                command: name.to_owned(),
                payload: payload.to_owned(),
                ..Default::default()
            };
            span(&mut action.min_interval, "--command-interval", self.command_interval.as_deref())?;
            actions.push(pb::action::Kind::Command(action));
        }
        for url in &self.webhooks {
            let action = pb::WebhookAction { url: url.clone(), headers: HashMap::new() };
            actions.push(pb::action::Kind::Webhook(action));
        }
        if !actions.is_empty() {
            let actions = actions.into_iter().map(|kind| pb::Action {
                id: String::new(),
                on: on.clone(),
                kind: Some(kind),
            });
            rule.actions = actions.collect();
        }
        Ok(())
    }
}

fn apply_file(from: RuleFile, rule: &mut pb::Rule) -> Result<()> {
    rule.display_name = from.display_name;
    rule.label_selector = from.selector;
    rule.condition = from.when;
    rule.clear_when = from.clear_when;
    span(&mut rule.for_duration, "for", from.for_span.as_deref())?;
    span(&mut rule.clear_for_duration, "clear_for", from.clear_for.as_deref())?;
    span(&mut rule.max_gap, "max_gap", from.max_gap.as_deref())?;
    if let Some(text) = &from.severity {
        rule.set_severity(severity(text)?);
    }
    rule.severities.clear();
    for rung in from.severities {
        rule.severities
            .push(pb::SeverityRung { severity: severity(&rung.severity)?.into(), condition: rung.when });
    }
    rule.labels = from.labels;
    rule.actions.clear();
    for action in from.actions {
        let kind = match (action.command, action.webhook) {
            (Some(command), None) => {
                let payload =
                    if command.payload.is_null() { String::new() } else { command.payload.to_string() };
                let mut kind = pb::CommandAction { command: command.name, payload, ..Default::default() };
                span(&mut kind.ttl, "ttl", command.ttl.as_deref())?;
                span(&mut kind.min_interval, "min_interval", command.min_interval.as_deref())?;
                pb::action::Kind::Command(kind)
            }
            (None, Some(webhook)) => {
                pb::action::Kind::Webhook(pb::WebhookAction { url: webhook.url, headers: webhook.headers })
            }
            _ => return Err(usage("an action has either command or webhook")),
        };
        rule.actions.push(pb::Action { id: action.id, on: triggers(&action.on)?, kind: Some(kind) });
    }
    Ok(())
}

fn span(to: &mut Option<prost_types::Duration>, flag: &str, text: Option<&str>) -> Result<()> {
    if let Some(text) = text {
        let span = weir_config::duration::parse(text)
            .map_err(|error| usage(format!("{flag}: {}", error.message())))?;
        *to = Some(from_duration(span));
    }
    Ok(())
}

fn severity(text: &str) -> Result<pb::Severity> {
    let known = [
        ("info", pb::Severity::Info),
        ("warning", pb::Severity::Warning),
        ("minor", pb::Severity::Minor),
        ("major", pb::Severity::Major),
        ("critical", pb::Severity::Critical),
    ];
    find("severity", text, &known)
}

fn triggers(names: &[String]) -> Result<Vec<i32>> {
    let known = [
        ("raised", pb::ActionTrigger::Raised),
        ("escalated", pb::ActionTrigger::Escalated),
        ("acknowledged", pb::ActionTrigger::Acknowledged),
        ("cleared", pb::ActionTrigger::Cleared),
    ];
    names.iter().map(|name| find("on", name, &known).map(i32::from)).collect()
}
