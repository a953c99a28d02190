//! `weir alarm …`

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use weir_core::Result;
use weir_grpc::from_status;
use weir_proto::analytics::v1 as pb;

use crate::{
    context::Caller,
    convert::{find, id, json_map, json_text, json_time, short, time},
    output::{self, Show},
    page,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List alarms, open and cleared, newest first
    #[command(after_help = "Example:\n  weir alarm list --state raised --device room-1")]
    List {
        #[command(flatten)]
        of: Of,
        /// Only in this state: raised, acknowledged, cleared
        #[arg(long)]
        state: Option<String>,
    },
    /// Show an alarm with its history
    #[command(
        after_help = "Examples:\n  weir alarm get 3c6d911f839e8145ae4a25ce503aef8c\n  weir alarm get 3c6d911f839e8145ae4a25ce503aef8c -o json"
    )]
    Get {
        /// Its id
        id: String,
    },
    /// Acknowledge an alarm: somebody takes it on
    #[command(
        after_help = "Example:\n  weir alarm ack 3c6d911f839e8145ae4a25ce503aef8c --comment 'on my way'"
    )]
    Ack {
        /// Its id
        id: String,
        /// Why, for whoever reads the history
        #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
        comment: String,
    },
    /// Clear an alarm by hand; it is not raised again until its condition was false once
    #[command(
        after_help = "Example:\n  weir alarm clear 3c6d911f839e8145ae4a25ce503aef8c --comment 'window was open'"
    )]
    Clear {
        /// Its id
        id: String,
        /// Why, for whoever reads the history
        #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
        comment: String,
    },
    /// Watch alarms as they come and go
    #[command(after_help = "Examples:\n  weir alarm watch\n  weir alarm watch --rule stuffy -o json")]
    Watch {
        #[command(flatten)]
        of: Of,
    },
}

#[derive(Debug, Args)]
pub struct Of {
    /// Only of this device
    #[arg(long)]
    device: Option<String>,
    /// Only of this rule
    #[arg(long)]
    rule: Option<String>,
}

impl Of {
    fn names(&self, caller: &Caller) -> Result<(String, String)> {
        let device = self.device.as_ref().map(|id| caller.device(id)).transpose()?.unwrap_or_default();
        let rule = self.rule.as_ref().map(|id| caller.name("rules", id)).transpose()?.unwrap_or_default();
        Ok((device, rule))
    }
}

const STATES: [(&str, pb::AlarmState); 3] = [
    ("raised", pb::AlarmState::Raised),
    ("acknowledged", pb::AlarmState::Acknowledged),
    ("cleared", pb::AlarmState::Cleared),
];

pub(crate) async fn run(command: Command, caller: &Caller) -> Result<()> {
    let mut stub = caller.connection.alarms();
    match command {
        Command::List { of, state } => {
            let (device, rule) = of.names(caller)?;
            let state = state.map(|state| find("--state", &state, &STATES)).transpose()?.unwrap_or_default();
            let found = page::all(async |page_token| {
                let request = pb::ListAlarmsRequest {
                    parent: caller.parent()?,
                    page_size: page::SIZE,
                    page_token,
                    device: device.clone(),
                    rule: rule.clone(),
                    state: state.into(),
                };
                let page = stub.list_alarms(request).await.map_err(from_status)?.into_inner();
                Ok((page.alarms, page.next_page_token))
            });
            output::list(caller.format, &found.await?)
        }
        Command::Get { id } => {
            let name = caller.name("alarms", &id)?;
            let answer =
                stub.get_alarm(pb::GetAlarmRequest { name }).await.map_err(from_status)?.into_inner();
            output::one(caller.format, &answer.alarm.unwrap_or_default())
        }
        Command::Ack { id, comment } => {
            let name = caller.name("alarms", &id)?;
            let request = pb::AcknowledgeAlarmRequest { name, comment, request_id: String::new() };
            let answer = stub.acknowledge_alarm(request).await.map_err(from_status)?.into_inner();
            output::one(caller.format, &answer.alarm.unwrap_or_default())
        }
        Command::Clear { id, comment } => {
            let name = caller.name("alarms", &id)?;
            let request = pb::ClearAlarmRequest { name, comment, request_id: String::new() };
            let answer = stub.clear_alarm(request).await.map_err(from_status)?.into_inner();
            output::one(caller.format, &answer.alarm.unwrap_or_default())
        }
        Command::Watch { of } => {
            let (device, rule) = of.names(caller)?;
            let request = pb::WatchAlarmsRequest {
                parent: caller.parent()?,
                device,
                rule,
                resume_cursor: String::new(),
            };
            let mut events = stub.watch_alarms(request).await.map_err(from_status)?.into_inner();
            let mut stream = output::Stream::new(caller.format);
            while let Some(event) = events.message().await.map_err(from_status)? {
                if let Some(alarm) = event.alarm {
                    stream.item(&alarm)?;
                }
            }
            Ok(())
        }
    }
}

impl Show for pb::Alarm {
    const COLUMNS: &'static [&'static str] =
        &["id", "rule", "device", "severity", "state", "raised", "cleared", "clear_reason"];
    fn cells(&self) -> Vec<String> {
        vec![
            id(&self.name),
            id(&self.rule),
            id(&self.device),
            short(self.severity().as_str_name(), "SEVERITY"),
            short(self.state().as_str_name(), "ALARM_STATE"),
            time(self.raise_time.as_ref()),
            time(self.clear_time.as_ref()),
            self.clear_reason.clone(),
        ]
    }
    fn json(&self) -> Value {
        json!({
            "id": id(&self.name),
            "name": self.name,
            "rule": id(&self.rule),
            "rule_revision": self.rule_revision,
            "device": id(&self.device),
            "severity": short(self.severity().as_str_name(), "SEVERITY"),
            "state": short(self.state().as_str_name(), "ALARM_STATE"),
            "raise_time": json_time(self.raise_time.as_ref()),
            "acknowledge_time": json_time(self.acknowledge_time.as_ref()),
            "clear_time": json_time(self.clear_time.as_ref()),
            "clear_reason": json_text(&self.clear_reason),
            "labels": json_map(&self.labels),
            "values": json_map(&self.values),
            "history": self.history.iter().map(event).collect::<Vec<_>>(),
            "actions": self.actions.iter().map(action).collect::<Vec<_>>(),
        })
    }
}

fn event(event: &pb::AlarmEvent) -> Value {
    json!({
        "type": short(event.r#type().as_str_name(), "ALARM_EVENT_TYPE"),
        "event_time": json_time(event.event_time.as_ref()),
        "record_time": json_time(event.record_time.as_ref()),
        "severity": short(event.severity().as_str_name(), "SEVERITY"),
        "actor": event.actor,
        "comment": json_text(&event.comment),
        "position": json_text(&event.position),
    })
}

fn action(action: &pb::ActionResult) -> Value {
    json!({
        "action": action.action,
        "on": short(action.on().as_str_name(), "ALARM_EVENT_TYPE"),
        "state": short(action.state().as_str_name(), "ACTION_STATE"),
        "command": json_text(&id(&action.command)),
        "attempts": action.attempts,
        "error": json_text(&action.error),
    })
}
