//! `weir device …`

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use weir_core::{ErrorKind, Result};
use weir_grpc::from_status;
use weir_proto::registry::v1 as pb;

use crate::{
    context::Caller,
    convert::{id, json_map, json_time, pairs, parse_pair, time},
    credential,
    output::{self, Show},
    page,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a device
    #[command(
        after_help = "Examples:\n  weir device create room-1 --label type=room --label floor=2\n  weir device create pump-7 --profile meter --attribute serial=A17 --disabled"
    )]
    Create {
        /// 1 to 128 of [A-Za-z0-9_.:-]
        id: String,
        #[command(flatten)]
        facts: Facts,
        /// Create it disabled
        #[arg(long, alias = "disable")]
        disabled: bool,
    },
    /// Create a device if it is not there, give it a credential, and show how to connect
    #[command(after_help = "Example:\n  weir device connect my-device")]
    Connect {
        /// 1 to 128 of [A-Za-z0-9_.:-]
        id: String,
    },
    /// Show a device
    #[command(after_help = "Examples:\n  weir device get room-1\n  weir device get room-1 -o yaml")]
    Get {
        /// Its id
        id: String,
    },
    /// List devices
    #[command(
        after_help = "Examples:\n  weir device list -l 'type=room,floor in (1,2)'\n  weir device list -o csv > devices.csv"
    )]
    List {
        /// Only those with these labels
        #[arg(short = 'l', long, default_value = "", value_name = "SELECTOR", hide_default_value = true)]
        selector: String,
    },
    /// Change a device; what is not named stays
    #[command(
        after_help = "Examples:\n  weir device update room-1 --label floor=3 --remove-label wing\n  weir device update room-1 --disable"
    )]
    Update {
        /// Its id
        id: String,
        #[command(flatten)]
        facts: Facts,
        /// Remove a label; may be given more than once
        #[arg(long, value_name = "KEY")]
        remove_label: Vec<String>,
        /// Remove an attribute; may be given more than once
        #[arg(long, value_name = "KEY")]
        remove_attribute: Vec<String>,
        /// Refuse its connections and messages
        #[arg(long, alias = "disabled", conflicts_with = "enable")]
        disable: bool,
        /// Take its connections and messages again
        #[arg(long, alias = "enabled")]
        enable: bool,
    },
    /// Delete a device: its credentials stop working, its telemetry is no longer reachable
    #[command(after_help = "Example:\n  weir device delete room-1")]
    Delete {
        /// Its id
        id: String,
    },
    /// A device's credentials
    #[command(subcommand, after_help = "Example:\n  weir device credential issue room-1 --ttl 90d")]
    Credential(credential::Command),
}

#[derive(Debug, Args)]
pub struct Facts {
    /// What selectors match; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_pair)]
    labels: Vec<(String, String)>,
    /// Facts for people and rules; may be given more than once
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = parse_pair)]
    attributes: Vec<(String, String)>,
    /// Its profile
    #[arg(long, value_name = "PROFILE")]
    profile: Option<String>,
    /// It is a gateway: it may speak for child devices
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    gateway: Option<bool>,
}

pub(crate) async fn run(command: Command, caller: &Caller) -> Result<()> {
    match command {
        Command::Create { id, facts, disabled } => {
            let device = pb::Device {
                profile: profile(caller, facts.profile.as_deref())?,
                labels: facts.labels.into_iter().collect(),
                attributes: facts.attributes.into_iter().collect(),
                gateway: facts.gateway.unwrap_or_default(),
                disabled,
                ..Default::default()
            };
            output::one(caller.format, &create(caller, &id, device).await?)
        }
        Command::Connect { id } => connect(caller, &id).await,
        Command::Get { id } => output::one(caller.format, &get(caller, &id).await?),
        Command::List { selector } => {
            let mut stub = caller.connection.devices();
            let found = page::all(async |page_token| {
                let request = pb::ListDevicesRequest {
                    parent: caller.parent()?,
                    page_size: page::SIZE,
                    page_token,
                    label_selector: selector.clone(),
                };
                let page = stub.list_devices(request).await.map_err(from_status)?.into_inner();
                Ok((page.devices, page.next_page_token))
            });
            output::list(caller.format, &found.await?)
        }
        Command::Update { id, facts, remove_label, remove_attribute, disable, enable } => {
            let mut device = get(caller, &id).await?;
            device.labels.retain(|key, _| !remove_label.contains(key));
            device.attributes.retain(|key, _| !remove_attribute.contains(key));
            device.labels.extend(facts.labels);
            device.attributes.extend(facts.attributes);
            if facts.profile.is_some() {
                device.profile = profile(caller, facts.profile.as_deref())?;
            }
            device.gateway = facts.gateway.unwrap_or(device.gateway);
            device.disabled = (device.disabled || disable) && !enable;
            let request = pb::UpdateDeviceRequest { device: Some(device), update_mask: None };
            let answer =
                caller.connection.devices().update_device(request).await.map_err(from_status)?.into_inner();
            output::one(caller.format, &answer.device.unwrap_or_default())
        }
        Command::Delete { id } => {
            let request = pb::DeleteDeviceRequest { name: caller.device(&id)?, etag: String::new() };
            caller.connection.devices().delete_device(request).await.map_err(from_status)?;
            output::note(&format!("device {id} is deleted"));
            Ok(())
        }
        Command::Credential(command) => credential::run(command, caller).await,
    }
}

async fn get(caller: &Caller, id: &str) -> Result<pb::Device> {
    let request = pb::GetDeviceRequest { name: caller.device(id)? };
    let answer = caller.connection.devices().get_device(request).await.map_err(from_status)?.into_inner();
    Ok(answer.device.unwrap_or_default())
}

async fn create(caller: &Caller, id: &str, device: pb::Device) -> Result<pb::Device> {
    let request = pb::CreateDeviceRequest {
        parent: caller.parent()?,
        device_id: id.to_owned(),
        device: Some(device),
        ..Default::default()
    };
    let answer = caller.connection.devices().create_device(request).await.map_err(from_status)?.into_inner();
    Ok(answer.device.unwrap_or_default())
}

fn profile(caller: &Caller, id: Option<&str>) -> Result<String> {
    id.map_or_else(|| Ok(String::new()), |id| caller.name("profiles", id))
}

async fn connect(caller: &Caller, id: &str) -> Result<()> {
    match create(caller, id, pb::Device::default()).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        created => drop(created?),
    }
    let (_, token) = credential::issue(caller, id, None).await?;
    let mqtt = caller.context.mqtt.as_deref().unwrap_or("127.0.0.1:1883");
    let http = caller.context.http.as_deref().unwrap_or("127.0.0.1:8080");
    let (host, port) = mqtt.rsplit_once(':').unwrap_or((mqtt, "1883"));
    output::line(&format!(
        "device {id} may connect; its token, shown only this once:

  {token}

with mosquitto_pub:

  mosquitto_pub -h {host} -p {port} -q 1 -u {id} -P {token} -t v1/telemetry -m '{{\"temp\": 21.5}}'

with curl:

  curl -H 'Authorization: Bearer {token}' -d '{{\"temp\": 21.5}}' -H 'Content-Type: application/json' http://{http}/v1/telemetry

with Python (pip install paho-mqtt):

  import paho.mqtt.publish as publish
  publish.single('v1/telemetry', '{{\"temp\": 21.5}}', qos=1, hostname='{host}', port={port},
                 auth={{'username': '{id}', 'password': '{token}'}})"
    ))
}

impl Show for pb::Device {
    const COLUMNS: &'static [&'static str] =
        &["id", "profile", "labels", "attributes", "disabled", "gateway", "created"];
    fn cells(&self) -> Vec<String> {
        vec![
            id(&self.name),
            id(&self.profile),
            pairs(&self.labels),
            pairs(&self.attributes),
            self.disabled.to_string(),
            self.gateway.to_string(),
            time(self.create_time.as_ref()),
        ]
    }
    fn json(&self) -> Value {
        json!({
            "id": id(&self.name),
            "name": self.name,
            "uid": self.uid,
            "profile": id(&self.profile),
            "labels": json_map(&self.labels),
            "attributes": json_map(&self.attributes),
            "disabled": self.disabled,
            "gateway": self.gateway,
            "etag": self.etag,
            "create_time": json_time(self.create_time.as_ref()),
            "update_time": json_time(self.update_time.as_ref()),
        })
    }
}
