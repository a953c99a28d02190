//! Calls of web addresses, in the form of [Standard Webhooks](https://www.standardwebhooks.com) without its signature.

use std::{sync::OnceLock, time::Duration};

use reqwest::{Client, StatusCode, header, redirect};
use serde_json::json;
use weir_core::{Error, Result, Timestamp, name};
use weir_rules::TransitionKind;

use super::{Row, event_type};
use crate::alarm::Alarm;

/// How a call failed.
pub(super) enum Failure {
    /// Another try may help.
    Passing(String),
    /// The receiver does not want it, or it cannot be sent at all.
    Lasting(String),
}

/// The document that is posted: what happened, and the alarm after it.
pub(super) fn body(kind: TransitionKind, alarm: &Alarm, now: Timestamp) -> Result<String> {
    let tenant = &alarm.device.tenant;
    let document = json!({
        "type": event_type(kind),
        "timestamp": now.to_string(),
        "data": {
            "name": name::child(tenant, "alarms", alarm.uid),
            "rule": name::child(tenant, "rules", &alarm.rule),
            "rule_revision": alarm.revision,
            "device": name::device(tenant, &alarm.device.device),
            "severity": alarm.severity,
            "state": alarm.state,
            "raise_time": alarm.raised_at.to_string(),
            "acknowledge_time": alarm.acknowledged_at.map(|at| at.to_string()),
            "clear_time": alarm.cleared_at.map(|at| at.to_string()),
            "clear_reason": alarm.clear_reason,
            "labels": alarm.labels,
            "values": alarm.values,
        },
    });
    serde_json::to_string(&document)
        .map_err(|source| Error::internal("cannot encode a webhook").with_source(source))
}

/// The client, made at the first call: its certificates take memory that most installations do not need.
#[derive(Default)]
pub(super) struct Caller(OnceLock<Client>);

impl Caller {
    fn client(&self, timeout: Duration) -> Result<&Client, Failure> {
        if let Some(client) = self.0.get() {
            return Ok(client);
        }
        let client = Client::builder()
            .timeout(timeout)
            .redirect(redirect::Policy::none()) // the rule names the address, nobody else
            .no_proxy()
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::Passing(format!("cannot make an http client: {error}")))?;
        Ok(self.0.get_or_init(|| client))
    }

    /// Posts once. Any 2xx is success.
    pub(super) async fn post(&self, row: &Row, timeout: Duration, now: Timestamp) -> Result<(), Failure> {
        let super::Job::Webhook { url, headers, body } = &row.job else {
            return Err(Failure::Lasting("it is no webhook".to_owned()));
        };
        let mut request = self.client(timeout)?.post(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", row.transition.to_string())
            .header("webhook-timestamp", now.as_micros().div_euclid(1_000_000).to_string())
            .body(body.clone())
            .build()
            .map_err(|error| Failure::Lasting(reason(&error)))?;
        let answer =
            self.client(timeout)?.execute(request).await.map_err(|error| Failure::Passing(reason(&error)))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            StatusCode::GONE => Err(Failure::Lasting("it answered 410 Gone".to_owned())),
            status => Err(Failure::Passing(format!("it answered {status}"))),
        }
    }
}

/// The innermost cause, which is the one that tells a person what to do; never the address, which may hold a secret.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it did not answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    if std::ptr::addr_eq(cause, error as &dyn std::error::Error) {
        "it could not be called".to_owned()
    } else {
        cause.to_string()
    }
}
