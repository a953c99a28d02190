//! `weir profile …`

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use weir_core::Result;
use weir_grpc::{convert::from_duration, from_status};
use weir_proto::registry::v1 as pb;

use crate::{
    context::Caller,
    convert::{find, id, json_text, json_time, parse_span, short, span},
    exit::usage,
    output::{self, Show},
    page,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a profile
    #[command(
        after_help = "Example:\n  weir profile create meter --metric count:int64 --metric power:double:W --future 1h"
    )]
    Create {
        /// 1 to 63 of [a-z0-9-]
        id: String,
        #[command(flatten)]
        facts: Facts,
    },
    /// Show a profile
    #[command(after_help = "Example:\n  weir profile get meter -o yaml")]
    Get {
        /// Its id
        id: String,
    },
    /// List profiles
    #[command(after_help = "Example:\n  weir profile list")]
    List,
    /// Change a profile; what is not named stays
    #[command(after_help = "Example:\n  weir profile update meter --metric voltage:double:V --past 7d")]
    Update {
        /// Its id
        id: String,
        #[command(flatten)]
        facts: Facts,
    },
    /// Delete a profile that no device uses
    #[command(after_help = "Example:\n  weir profile delete meter")]
    Delete {
        /// Its id
        id: String,
    },
}

#[derive(Debug, Args)]
pub struct Facts {
    /// A declared metric: name, type (double, int64, bool, string, bytes), UCUM unit; may be given more than once
    #[arg(long = "metric", value_name = "NAME:TYPE[:UNIT]")]
    metrics: Vec<String>,
    /// Its devices are gateways: they may speak for child devices
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    gateway: Option<bool>,
    /// How far behind now an event time may be: 30d
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    past: Option<Duration>,
    /// How far ahead of now an event time may be: 10m
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    future: Option<Duration>,
    /// What happens to an event time out of range: refuse it, or take its arrival: refuse, arrival
    #[arg(long, value_name = "WHAT")]
    on_bad_time: Option<String>,
}

impl Facts {
    fn apply(self, profile: &mut pb::Profile) -> Result<()> {
        for text in &self.metrics {
            let metric = metric(text)?;
            profile.metrics.retain(|known| known.name != metric.name);
            profile.metrics.push(metric);
        }
        profile.gateway = self.gateway.unwrap_or(profile.gateway);
        let time = profile.time.get_or_insert_default();
        time.past = self.past.map(from_duration).or(time.past.take());
        time.future = self.future.map(from_duration).or(time.future.take());
        if let Some(text) = self.on_bad_time {
            let known = [("refuse", pb::OnBadTime::Refuse), ("arrival", pb::OnBadTime::Arrival)];
            time.set_on_bad_time(find("--on-bad-time", &text, &known)?);
        }
        Ok(())
    }
}

fn metric(text: &str) -> Result<pb::Metric> {
    // The type is looked for from the right, since a metric's name may hold colons.
    let known = [
        ("double", pb::MetricType::Double),
        ("int64", pb::MetricType::Int64),
        ("bool", pb::MetricType::Bool),
        ("string", pb::MetricType::String),
        ("bytes", pb::MetricType::Bytes),
    ];
    let parts: Vec<&str> = text.split(':').collect();
    let at = parts.iter().rposition(|part| known.iter().any(|(name, _)| name == part)).filter(|at| *at > 0);
    let at = at.ok_or_else(|| {
        usage(format!("--metric {text:?} must be NAME:TYPE[:UNIT], such as power:double:W"))
    })?;
    let (name, rest) = parts.split_at(at);
    let (kind, unit) = rest.split_first().unwrap_or((&"", &[]));
    let kind = find("--metric", kind, &known)?;
    Ok(pb::Metric { name: name.join(":"), r#type: kind.into(), unit: unit.join(":"), ..Default::default() })
}

pub(crate) async fn run(command: Command, caller: &Caller) -> Result<()> {
    let mut stub = caller.connection.profiles();
    match command {
        Command::Create { id, facts } => {
            let mut profile = pb::Profile::default();
            facts.apply(&mut profile)?;
            let request = pb::CreateProfileRequest {
                parent: caller.parent()?,
                profile_id: id,
                profile: Some(profile),
                ..Default::default()
            };
            let answer = stub.create_profile(request).await.map_err(from_status)?.into_inner();
            output::one(caller.format, &answer.profile.unwrap_or_default())
        }
        Command::Get { id } => output::one(caller.format, &get(caller, &id).await?),
        Command::List => {
            let found = page::all(async |page_token| {
                let request =
                    pb::ListProfilesRequest { parent: caller.parent()?, page_size: page::SIZE, page_token };
                let page = stub.list_profiles(request).await.map_err(from_status)?.into_inner();
                Ok((page.profiles, page.next_page_token))
            });
            output::list(caller.format, &found.await?)
        }
        Command::Update { id, facts } => {
            let mut profile = get(caller, &id).await?;
            facts.apply(&mut profile)?;
            let request = pb::UpdateProfileRequest { profile: Some(profile), ..Default::default() };
            let answer = stub.update_profile(request).await.map_err(from_status)?.into_inner();
            output::one(caller.format, &answer.profile.unwrap_or_default())
        }
        Command::Delete { id } => {
            let request =
                pb::DeleteProfileRequest { name: caller.name("profiles", &id)?, ..Default::default() };
            stub.delete_profile(request).await.map_err(from_status)?;
            output::note(&format!("profile {id} is deleted"));
            Ok(())
        }
    }
}

async fn get(caller: &Caller, id: &str) -> Result<pb::Profile> {
    let request = pb::GetProfileRequest { name: caller.name("profiles", id)? };
    let answer = caller.connection.profiles().get_profile(request).await.map_err(from_status)?.into_inner();
    Ok(answer.profile.unwrap_or_default())
}

impl Show for pb::Profile {
    const COLUMNS: &'static [&'static str] = &["id", "metrics", "gateway", "revision"];
    fn cells(&self) -> Vec<String> {
        let metrics: Vec<_> = self.metrics.iter().map(|metric| metric.name.clone()).collect();
        vec![id(&self.name), metrics.join(","), self.gateway.to_string(), self.revision.to_string()]
    }
    fn json(&self) -> Value {
        let time = self.time.unwrap_or_default();
        let metrics = self.metrics.iter().map(|metric| {
            json!({
                "name": metric.name,
                "type": short(metric.r#type().as_str_name(), "METRIC_TYPE"),
                "unit": json_text(&metric.unit),
                "description": json_text(&metric.description),
            })
        });
        json!({
            "id": id(&self.name),
            "name": self.name,
            "metrics": metrics.collect::<Vec<_>>(),
            "gateway": self.gateway,
            "time": {
                "past": span(time.past.as_ref()),
                "future": span(time.future.as_ref()),
                "on_bad_time": short(time.on_bad_time().as_str_name(), "ON_BAD_TIME"),
            },
            "revision": self.revision,
            "etag": self.etag,
            "create_time": json_time(self.create_time.as_ref()),
            "update_time": json_time(self.update_time.as_ref()),
        })
    }
}
