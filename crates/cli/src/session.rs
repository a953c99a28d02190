//! `weir session …`

use clap::Subcommand;
use serde_json::{Value, json};
use weir_core::Result;
use weir_grpc::from_status;
use weir_proto::ingest::v1 as pb;

use crate::{
    context::Caller,
    convert::{id, json_time, time},
    output::{self, Show},
    page,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List sessions: those that are open, and those that may be resumed
    #[command(after_help = "Examples:\n  weir session list\n  weir session list --device room-1")]
    List {
        /// Only of this device
        #[arg(long)]
        device: Option<String>,
    },
}

pub(crate) async fn run(command: Command, caller: &Caller) -> Result<()> {
    let Command::List { device } = command;
    let parent = device.as_ref().map_or_else(|| caller.parent(), |device| caller.device(device))?;
    let mut stub = caller.connection.sessions();
    let found = page::all(async |page_token| {
        let request = pb::ListSessionsRequest { parent: parent.clone(), page_size: page::SIZE, page_token };
        let page = stub.list_sessions(request).await.map_err(from_status)?.into_inner();
        Ok((page.sessions, page.next_page_token))
    });
    output::list(caller.format, &found.await?)
}

impl Show for pb::Session {
    const COLUMNS: &'static [&'static str] =
        &["id", "device", "connected", "protocol", "remote_address", "connected_at", "last_seen"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.client_id.clone(),
            id(&self.device),
            self.connected.to_string(),
            self.protocol.clone(),
            self.remote_address.clone(),
            time(self.connect_time.as_ref()),
            time(self.last_seen_time.as_ref()),
        ]
    }
    fn json(&self) -> Value {
        json!({
            "id": self.client_id,
            "name": self.name,
            "device": id(&self.device),
            "connected": self.connected,
            "protocol": self.protocol,
            "remote_address": self.remote_address,
            "subscriptions": self.subscriptions,
            "connect_time": json_time(self.connect_time.as_ref()),
            "last_seen_time": json_time(self.last_seen_time.as_ref()),
            "expire_time": json_time(self.expire_time.as_ref()),
        })
    }
}
