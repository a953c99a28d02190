//! `weir token …`

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use weir_core::Result;
use weir_grpc::{convert::from_duration, from_status};
use weir_proto::registry::v1 as pb;

use crate::{
    context::Caller,
    convert::{id, json_time, parse_span, short, time},
    output::{self, Show},
    page,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a token and print it, this once
    #[command(
        after_help = "Examples:\n  weir token create --scope write\n  weir token create --scope read --scope write --ttl 30d --display-name ci"
    )]
    Create {
        /// What it may do; may be given more than once, or several with commas
        #[arg(long = "scope", value_name = "SCOPE", required = true, value_delimiter = ',')]
        scopes: Vec<Scope>,
        /// How long it works: 30d, 12h; until revoked if not given
        #[arg(long, value_name = "SPAN", value_parser = parse_span)]
        ttl: Option<Duration>,
        /// A name for people
        #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
        display_name: String,
    },
    /// List tokens, without their secrets
    #[command(after_help = "Example:\n  weir token list")]
    List,
    /// Revoke a token: it stops working at once
    #[command(after_help = "Example:\n  weir token revoke ef4c37a00cdef3d5")]
    Revoke {
        /// Its id
        id: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Scope {
    /// Tenants and their first tokens
    Platform,
    /// Everything within the tenant
    Admin,
    /// Devices, profiles, credentials
    Provision,
    /// Publishing telemetry and sending commands
    Write,
    /// Reading everything of the tenant
    Read,
}

impl From<Scope> for pb::Scope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Platform => Self::Platform,
            Scope::Admin => Self::Admin,
            Scope::Provision => Self::Provision,
            Scope::Write => Self::Write,
            Scope::Read => Self::Read,
        }
    }
}

pub(crate) async fn run(command: Command, caller: &Caller) -> Result<()> {
    let mut stub = caller.connection.tokens();
    match command {
        Command::Create { scopes, ttl, display_name } => {
            let request = pb::CreateTokenRequest {
                parent: caller.parent()?,
                scopes: scopes.into_iter().map(|scope| pb::Scope::from(scope).into()).collect(),
                display_name,
                ttl: ttl.map(from_duration),
            };
            let answer = stub.create_token(request).await.map_err(from_status)?.into_inner();
            output::secret(
                caller.format,
                &id(&answer.token.unwrap_or_default().name),
                &answer.secret,
                "token",
            )
        }
        Command::List => {
            let found = page::all(async |page_token| {
                let request =
                    pb::ListTokensRequest { parent: caller.parent()?, page_size: page::SIZE, page_token };
                let page = stub.list_tokens(request).await.map_err(from_status)?.into_inner();
                Ok((page.tokens, page.next_page_token))
            });
            output::list(caller.format, &found.await?)
        }
        Command::Revoke { id } => {
            let name = caller.name("tokens", &id)?;
            stub.revoke_token(pb::RevokeTokenRequest { name }).await.map_err(from_status)?;
            output::note(&format!("token {id} is revoked"));
            Ok(())
        }
    }
}

impl Show for pb::Token {
    const COLUMNS: &'static [&'static str] = &["id", "scopes", "display_name", "expires", "created"];
    fn cells(&self) -> Vec<String> {
        let scopes: Vec<_> = self.scopes().map(|scope| short(scope.as_str_name(), "SCOPE")).collect();
        vec![
            id(&self.name),
            scopes.join(" "),
            self.display_name.clone(),
            time(self.expire_time.as_ref()),
            time(self.create_time.as_ref()),
        ]
    }
    fn json(&self) -> Value {
        json!({
            "id": id(&self.name),
            "name": self.name,
            "scopes": self.scopes().map(|scope| short(scope.as_str_name(), "SCOPE")).collect::<Vec<_>>(),
            "display_name": self.display_name,
            "expire_time": json_time(self.expire_time.as_ref()),
            "create_time": json_time(self.create_time.as_ref()),
        })
    }
}
