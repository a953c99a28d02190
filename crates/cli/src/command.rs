//! `weir command …`

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use weir_core::Result;
use weir_grpc::{convert::from_duration, from_status};
use weir_proto::commands::v1 as pb;

use crate::{
    context::Caller,
    convert::{find, id, json_text, json_time, parse_span, short, time},
    output::{self, Show},
    page,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send a command; it waits for the device
    #[command(
        after_help = "Example:\n  weir command send room-1 ventilate --payload '{\"speed\": 2}' --ttl 1h"
    )]
    Send(Send),
    /// Send a command and wait for the answer
    #[command(
        after_help = "Examples:\n  weir command invoke room-1 ventilate --wait 10s\n  weir command invoke room-1 reboot --ttl 30s -o json"
    )]
    Invoke {
        #[command(flatten)]
        send: Send,
        /// How long to wait for the answer; the command itself goes on until its --ttl
        #[arg(long, default_value = "30s", value_name = "SPAN", value_parser = parse_span)]
        wait: Duration,
    },
    /// Show a command
    #[command(after_help = "Example:\n  weir command get 01a206564fa375c089212b7e789441ae")]
    Get {
        /// Its id
        id: String,
    },
    /// List commands, newest first
    #[command(
        after_help = "Examples:\n  weir command list --device room-1\n  weir command list --state failed -o csv"
    )]
    List {
        /// Only of this device
        #[arg(long)]
        device: Option<String>,
        /// Only in this state: queued, sent, delivered, succeeded, failed, expired, canceled
        #[arg(long)]
        state: Option<String>,
    },
    /// Cancel a command that has not been answered
    #[command(after_help = "Example:\n  weir command cancel 01a206564fa375c089212b7e789441ae")]
    Cancel {
        /// Its id
        id: String,
    },
    /// Watch commands as their state changes
    #[command(after_help = "Example:\n  weir command watch --device room-1")]
    Watch {
        /// Only of this device
        #[arg(long)]
        device: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct Send {
    /// The device
    device: String,
    /// The command's name: 1 to 64 of [A-Za-z0-9_.-]
    command: String,
    /// A JSON document
    #[arg(long, default_value = "{}", value_name = "JSON")]
    payload: String,
    /// How long it may wait for its answer, at most 30d
    #[arg(long, default_value = "10m", value_name = "SPAN", value_parser = parse_span)]
    ttl: Duration,
    /// When the device's next command may leave: after this one's delivery or response
    #[arg(long, default_value = "delivery", value_name = "WHEN")]
    order: String,
    /// Idempotency key: the same again is the same command
    #[arg(long, default_value = "", value_name = "KEY", hide_default_value = true)]
    request_id: String,
}

impl Send {
    fn request(self, caller: &Caller) -> Result<pb::SendCommandRequest> {
        let orders = [("delivery", pb::CommandOrder::OnDelivery), ("response", pb::CommandOrder::OnResponse)];
        Ok(pb::SendCommandRequest {
            device: caller.device(&self.device)?,
            command: self.command,
            payload: self.payload,
            ttl: Some(from_duration(self.ttl)),
            order: find("--order", &self.order, &orders)?.into(),
            request_id: self.request_id,
        })
    }
}

const STATES: [(&str, pb::CommandState); 7] = [
    ("queued", pb::CommandState::Queued),
    ("sent", pb::CommandState::Sent),
    ("delivered", pb::CommandState::Delivered),
    ("succeeded", pb::CommandState::Succeeded),
    ("failed", pb::CommandState::Failed),
    ("expired", pb::CommandState::Expired),
    ("canceled", pb::CommandState::Canceled),
];

pub(crate) async fn run(command: Command, caller: &Caller) -> Result<()> {
    let mut stub = caller.connection.commands();
    match command {
        Command::Send(send) => {
            let answer = stub.send_command(send.request(caller)?).await.map_err(from_status)?.into_inner();
            output::one(caller.format, &answer.command.unwrap_or_default())
        }
        Command::Invoke { send, wait } => {
            let request = pb::InvokeCommandRequest {
                send: Some(send.request(caller)?),
                wait: Some(from_duration(wait)),
            };
            let answer = stub.invoke_command(request).await.map_err(from_status)?.into_inner();
            output::one(caller.format, &answer.command.unwrap_or_default())
        }
        Command::Get { id } => {
            let name = caller.name("commands", &id)?;
            let answer =
                stub.get_command(pb::GetCommandRequest { name }).await.map_err(from_status)?.into_inner();
            output::one(caller.format, &answer.command.unwrap_or_default())
        }
        Command::List { device, state } => {
            let device = device.map(|id| caller.device(&id)).transpose()?.unwrap_or_default();
            let state = state.map(|state| find("--state", &state, &STATES)).transpose()?.unwrap_or_default();
            let found = page::all(async |page_token| {
                let request = pb::ListCommandsRequest {
                    parent: caller.parent()?,
                    page_size: page::SIZE,
                    page_token,
                    device: device.clone(),
                    state: state.into(),
                };
                let page = stub.list_commands(request).await.map_err(from_status)?.into_inner();
                Ok((page.commands, page.next_page_token))
            });
            output::list(caller.format, &found.await?)
        }
        Command::Cancel { id } => {
            let request =
                pb::CancelCommandRequest { name: caller.name("commands", &id)?, request_id: String::new() };
            let answer = stub.cancel_command(request).await.map_err(from_status)?.into_inner();
            output::one(caller.format, &answer.command.unwrap_or_default())
        }
        Command::Watch { device } => {
            let device = device.map(|id| caller.device(&id)).transpose()?.unwrap_or_default();
            let request =
                pb::WatchCommandsRequest { parent: caller.parent()?, device, resume_cursor: String::new() };
            let mut events = stub.watch_commands(request).await.map_err(from_status)?.into_inner();
            let mut stream = output::Stream::new(caller.format);
            while let Some(event) = events.message().await.map_err(from_status)? {
                if let Some(command) = event.command {
                    stream.item(&command)?;
                }
            }
            Ok(())
        }
    }
}

impl Show for pb::Command {
    const COLUMNS: &'static [&'static str] =
        &["id", "device", "command", "state", "created", "finished", "response"];
    fn cells(&self) -> Vec<String> {
        vec![
            id(&self.name),
            id(&self.device),
            self.command.clone(),
            short(self.state().as_str_name(), "COMMAND_STATE"),
            time(self.create_time.as_ref()),
            time(self.finish_time.as_ref()),
            self.response.clone(),
        ]
    }
    fn json(&self) -> Value {
        json!({
            "id": id(&self.name),
            "name": self.name,
            "device": id(&self.device),
            "command": self.command,
            "payload": self.payload,
            "state": short(self.state().as_str_name(), "COMMAND_STATE"),
            "order": short(self.order().as_str_name(), "COMMAND_ORDER"),
            "create_time": json_time(self.create_time.as_ref()),
            "send_time": json_time(self.send_time.as_ref()),
            "deliver_time": json_time(self.deliver_time.as_ref()),
            "finish_time": json_time(self.finish_time.as_ref()),
            "expire_time": json_time(self.expire_time.as_ref()),
            "response": json_text(&self.response),
            "error": json_text(&self.error),
            "delivery_unknown": self.delivery_unknown,
            "actor": self.actor,
            "request_id": self.request_id,
            "position": self.position,
        })
    }
}
