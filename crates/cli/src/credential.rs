//! `weir device credential …`

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};
use weir_core::Result;
use weir_grpc::{convert::from_duration, from_status};
use weir_proto::registry::v1 as pb;

use crate::{
    context::Caller,
    convert::{id, json_time, parse_span, time},
    output::{self, Show},
    page,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a credential for a device and print its token, this once
    #[command(
        after_help = "Example:\n  TOKEN=$(weir device credential issue room-1)\n  mosquitto_pub -q 1 -u room-1 -P \"$TOKEN\" -t v1/telemetry -m '{\"temp\": 21.5}'"
    )]
    Issue {
        /// The device
        device: String,
        /// How long it works: 30d, 12h; until revoked if not given
        #[arg(long, value_name = "SPAN", value_parser = parse_span)]
        ttl: Option<Duration>,
    },
    /// List a device's credentials, without their secrets
    #[command(after_help = "Example:\n  weir device credential list room-1")]
    List {
        /// The device
        device: String,
    },
    /// Revoke a credential: it stops working, and sessions that used it end
    #[command(after_help = "Example:\n  weir device credential revoke room-1 35de01dd1491d24d")]
    Revoke {
        /// The device
        device: String,
        /// The credential's id
        id: String,
    },
}

pub(crate) async fn run(command: Command, caller: &Caller) -> Result<()> {
    let mut stub = caller.connection.credentials();
    match command {
        Command::Issue { device, ttl } => {
            let (id, secret) = issue(caller, &device, ttl).await?;
            output::secret(caller.format, &id, &secret, &format!("credential of {device}:"))
        }
        Command::List { device } => {
            let found = page::all(async |page_token| {
                let parent = caller.device(&device)?;
                let request = pb::ListCredentialsRequest { parent, page_size: page::SIZE, page_token };
                let page = stub.list_credentials(request).await.map_err(from_status)?.into_inner();
                Ok((page.credentials, page.next_page_token))
            });
            output::list(caller.format, &found.await?)
        }
        Command::Revoke { device, id } => {
            let name = format!("{}/credentials/{id}", caller.device(&device)?);
            stub.revoke_credential(pb::RevokeCredentialRequest { name }).await.map_err(from_status)?;
            output::note(&format!("credential {id} of {device} is revoked"));
            Ok(())
        }
    }
}

/// Issues a credential: its id and the whole token.
pub(crate) async fn issue(caller: &Caller, device: &str, ttl: Option<Duration>) -> Result<(String, String)> {
    let request = pb::IssueCredentialRequest { parent: caller.device(device)?, ttl: ttl.map(from_duration) };
    let answer =
        caller.connection.credentials().issue_credential(request).await.map_err(from_status)?.into_inner();
    Ok((id(&answer.credential.unwrap_or_default().name), answer.secret))
}

impl Show for pb::Credential {
    const COLUMNS: &'static [&'static str] = &["id", "expires", "created"];
    fn cells(&self) -> Vec<String> {
        vec![id(&self.name), time(self.expire_time.as_ref()), time(self.create_time.as_ref())]
    }
    fn json(&self) -> Value {
        json!({
            "id": id(&self.name),
            "name": self.name,
            "expire_time": json_time(self.expire_time.as_ref()),
            "create_time": json_time(self.create_time.as_ref()),
        })
    }
}
