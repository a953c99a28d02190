//! What a spec says, as the API takes it.

use weir_core::{Error, Result};
use weir_crd as crd;
use weir_proto::{analytics::v1 as analytics, registry::v1 as registry};
use weir_rules::parse_duration;

fn duration(field: &str, text: Option<&String>) -> Result<Option<prost_types::Duration>> {
    let Some(text) = text else { return Ok(None) };
    let parsed = parse_duration(text).map_err(|error| error.with_field(format!("spec.{field}")))?;
    let seconds = i64::try_from(parsed.as_secs()).unwrap_or(i64::MAX);
    let nanos = i32::try_from(parsed.subsec_nanos()).unwrap_or_default();
    Ok(Some(prost_types::Duration { seconds, nanos }))
}

/// A tenant.
pub(super) fn tenant(name: String, spec: &crd::TenantSpec) -> registry::Tenant {
    registry::Tenant {
        name,
        display_name: spec.display_name.clone(),
        disabled: spec.disabled,
        ..registry::Tenant::default()
    }
}

/// A profile.
///
/// # Errors
/// `DURATION_INVALID` with the field.
pub(super) fn profile(name: String, spec: &crd::DeviceProfileSpec) -> Result<registry::Profile> {
    let metric = |metric: &crd::Metric| registry::Metric {
        name: metric.name.clone(),
        r#type: match metric.r#type {
            crd::MetricType::Double => registry::MetricType::Double,
            crd::MetricType::Int64 => registry::MetricType::Int64,
            crd::MetricType::Bool => registry::MetricType::Bool,
            crd::MetricType::String => registry::MetricType::String,
            crd::MetricType::Bytes => registry::MetricType::Bytes,
        }
        .into(),
        unit: metric.unit.clone(),
        description: metric.description.clone(),
        ..registry::Metric::default()
    };
    let on_bad_time = match spec.on_bad_time {
        crd::OnBadTime::Refuse => registry::OnBadTime::Refuse,
        crd::OnBadTime::Arrival => registry::OnBadTime::Arrival,
    };
    Ok(registry::Profile {
        name,
        metrics: spec.metrics.iter().map(metric).collect(),
        time: Some(registry::TimePolicy {
            past: duration("past", spec.past.as_ref())?,
            future: duration("future", spec.future.as_ref())?,
            on_bad_time: on_bad_time.into(),
        }),
        gateway: spec.gateway,
        ..registry::Profile::default()
    })
}

/// A rule.
///
/// # Errors
/// `DURATION_INVALID`, `ACTION_INVALID` with the field.
pub(super) fn rule(name: String, spec: &crd::RuleSpec) -> Result<analytics::Rule> {
    let rung = |rung: &crd::Rung| analytics::SeverityRung {
        severity: severity(rung.severity).into(),
        condition: rung.condition.clone(),
    };
    Ok(analytics::Rule {
        name,
        display_name: spec.display_name.clone(),
        label_selector: spec.label_selector.clone(),
        condition: spec.condition.clone(),
        for_duration: duration("for", spec.r#for.as_ref())?,
        clear_when: spec.clear_when.clone(),
        clear_for_duration: duration("clearFor", spec.clear_for.as_ref())?,
        max_gap: duration("maxGap", spec.max_gap.as_ref())?,
        severity: severity(spec.severity).into(),
        severities: spec.severities.iter().map(rung).collect(),
        labels: spec.labels.clone().into_iter().collect(),
        actions: spec.actions.iter().enumerate().map(action).collect::<Result<_>>()?,
        disabled: spec.disabled,
        ..analytics::Rule::default()
    })
}

fn severity(severity: crd::Severity) -> analytics::Severity {
    match severity {
        crd::Severity::Info => analytics::Severity::Info,
        crd::Severity::Warning => analytics::Severity::Warning,
        crd::Severity::Minor => analytics::Severity::Minor,
        crd::Severity::Major => analytics::Severity::Major,
        crd::Severity::Critical => analytics::Severity::Critical,
    }
}

fn action((index, action): (usize, &crd::Action)) -> Result<analytics::Action> {
    let trigger = |trigger: &crd::Trigger| -> i32 {
        match trigger {
            crd::Trigger::Raised => analytics::ActionTrigger::Raised,
            crd::Trigger::Escalated => analytics::ActionTrigger::Escalated,
            crd::Trigger::Acknowledged => analytics::ActionTrigger::Acknowledged,
            crd::Trigger::Cleared => analytics::ActionTrigger::Cleared,
        }
        .into()
    };
    let field = |of: &str| format!("actions[{index}].{of}");
    let kind = match (&action.command, &action.webhook) {
        (Some(command), None) => analytics::action::Kind::Command(analytics::CommandAction {
            command: command.command.clone(),
            payload: command.payload.clone(),
            ttl: duration(&field("command.ttl"), command.ttl.as_ref())?,
            min_interval: duration(&field("command.minInterval"), command.min_interval.as_ref())?,
        }),
        (None, Some(webhook)) => analytics::action::Kind::Webhook(analytics::WebhookAction {
            url: webhook.url.clone(),
            headers: webhook.headers.clone().into_iter().collect(),
        }),
        _ => {
            let message = "an action is either a command or a webhook";
            return Err(Error::invalid(format!("spec.actions[{index}]"), "ACTION_INVALID", message));
        }
    };
    Ok(analytics::Action {
        id: action.id.clone(),
        on: action.on.iter().map(trigger).collect(),
        kind: Some(kind),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_of_yaml_is_the_rule_of_the_api() {
        let spec: crd::RuleSpec = serde_yaml_ng::from_str(
            "tenant: acme\ncondition: temp > 30.0\nfor: 5m\nseverity: Major\nlabelSelector: type=room\nactions:\n- on: \
             [Raised]\n  command: {command: ventilate, payload: '{\"speed\":1}', minInterval: 1h}\n",
        )
        .unwrap();
        let rule = rule("tenants/acme/rules/hot".to_owned(), &spec).unwrap();
        assert_eq!(rule.for_duration.as_ref().unwrap().seconds, 300);
        assert_eq!(rule.severity(), analytics::Severity::Major);
        assert_eq!(rule.actions[0].on, [1]);
        let Some(analytics::action::Kind::Command(command)) = &rule.actions[0].kind else {
            panic!("a command")
        };
        assert_eq!(command.min_interval.as_ref().unwrap().seconds, 3_600);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_field() {
        let text = "tenant: acme\ncondition: 'true'\nactions: [{webhook: {url: 'http://a'}}, {}]\n";
        let mut spec: crd::RuleSpec = serde_yaml_ng::from_str(text).unwrap();
        assert_eq!(rule(String::new(), &spec).unwrap_err().field(), Some("spec.actions[1]"));
        spec.actions.clear();
        spec.r#for = Some("5 minutes".to_owned());
        assert_eq!(rule(String::new(), &spec).unwrap_err().field(), Some("spec.for"));
    }
}
