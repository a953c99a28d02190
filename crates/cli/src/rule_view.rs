//! Rules as they are shown.

use serde_json::{Value, json};
use weir_proto::analytics::v1 as pb;

use crate::{
    convert::{id, json_map, json_text, json_time, pairs, short, span, time},
    output::Show,
};

impl Show for pb::Rule {
    const COLUMNS: &'static [&'static str] =
        &["id", "selector", "condition", "for", "severity", "disabled", "revision"];
    fn cells(&self) -> Vec<String> {
        let ladder: Vec<_> = self.severities.iter().map(|rung| rung.condition.clone()).collect();
        let condition = if ladder.is_empty() { self.condition.clone() } else { ladder.join(" | ") };
        vec![
            id(&self.name),
            self.label_selector.clone(),
            condition,
            span(self.for_duration.as_ref()).unwrap_or_default(),
            short(self.severity().as_str_name(), "SEVERITY"),
            self.disabled.to_string(),
            self.revision.to_string(),
        ]
    }
    fn json(&self) -> Value {
        let ladder = self
            .severities
            .iter()
            .map(|rung| json!({"severity": short(rung.severity().as_str_name(), "SEVERITY"), "when": rung.condition}));
        json!({
            "id": id(&self.name),
            "name": self.name,
            "display_name": json_text(&self.display_name),
            "selector": self.label_selector,
            "when": json_text(&self.condition),
            "for": span(self.for_duration.as_ref()),
            "clear_when": json_text(&self.clear_when),
            "clear_for": span(self.clear_for_duration.as_ref()),
            "max_gap": span(self.max_gap.as_ref()),
            "severity": short(self.severity().as_str_name(), "SEVERITY"),
            "severities": ladder.collect::<Vec<_>>(),
            "labels": json_map(&self.labels),
            "actions": self.actions.iter().map(action).collect::<Vec<_>>(),
            "disabled": self.disabled,
            "revision": self.revision,
            "etag": self.etag,
            "create_time": json_time(self.create_time.as_ref()),
            "update_time": json_time(self.update_time.as_ref()),
        })
    }
}

fn action(action: &pb::Action) -> Value {
    let on: Vec<_> = action.on().map(|on| short(on.as_str_name(), "ACTION_TRIGGER")).collect();
    match &action.kind {
        Some(pb::action::Kind::Command(command)) => json!({
            "id": action.id,
            "on": on,
            "command": {
                "name": command.command,
                "payload": command.payload,
                "ttl": span(command.ttl.as_ref()),
                "min_interval": span(command.min_interval.as_ref()),
            },
        }),
        Some(pb::action::Kind::Webhook(webhook)) => {
            json!({"id": action.id, "on": on, "webhook": {"url": webhook.url, "headers": json_map(&webhook.headers)}})
        }
        None => json!({"id": action.id, "on": on}),
    }
}

impl Show for pb::TestTransition {
    const COLUMNS: &'static [&'static str] =
        &["device", "type", "event_time", "severity", "values", "approximate"];
    fn cells(&self) -> Vec<String> {
        vec![
            id(&self.device),
            short(self.r#type().as_str_name(), "ALARM_EVENT_TYPE"),
            time(self.event_time.as_ref()),
            short(self.severity().as_str_name(), "SEVERITY"),
            pairs(&self.values),
            self.approximate.to_string(),
        ]
    }
    fn json(&self) -> Value {
        json!({
            "device": id(&self.device),
            "type": short(self.r#type().as_str_name(), "ALARM_EVENT_TYPE"),
            "event_time": json_time(self.event_time.as_ref()),
            "severity": short(self.severity().as_str_name(), "SEVERITY"),
            "values": json_map(&self.values),
            "approximate": self.approximate,
            "position": self.position,
        })
    }
}
