//! `weir tenant …`

use clap::Subcommand;
use serde_json::{Value, json};
use weir_core::{Result, TenantId, name};
use weir_grpc::from_status;
use weir_proto::registry::v1 as pb;

use crate::{
    context::Caller,
    convert::{id, json_time, time},
    output::{self, Show},
    page,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a tenant; then give it a token: weir token create --tenant ID --scope admin
    #[command(
        after_help = "Examples:\n  weir tenant create acme\n  weir token create --tenant acme --scope admin"
    )]
    Create {
        /// 1 to 63 of [a-z0-9-]
        id: String,
        /// A name for people
        #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
        display_name: String,
    },
    /// Show a tenant
    #[command(after_help = "Example:\n  weir tenant get acme")]
    Get {
        /// Its id
        id: String,
    },
    /// List tenants
    #[command(after_help = "Examples:\n  weir tenant list\n  weir tenant list -o csv")]
    List,
    /// Change a tenant; what is not named stays
    #[command(
        after_help = "Examples:\n  weir tenant update acme --display-name 'Acme Ltd'\n  weir tenant update acme --disable"
    )]
    Update {
        /// Its id
        id: String,
        /// A name for people
        #[arg(long, value_name = "TEXT")]
        display_name: Option<String>,
        /// Refuse its tokens and devices
        #[arg(long, alias = "disabled", conflicts_with = "enable")]
        disable: bool,
        /// Take its tokens and devices again
        #[arg(long, alias = "enabled")]
        enable: bool,
    },
    /// Show whose token this is, and what it may do
    #[command(after_help = "Example:\n  weir tenant self")]
    #[command(name = "self")]
    Own,
}

pub(crate) async fn run(command: Command, caller: &Caller) -> Result<()> {
    let mut stub = caller.connection.tenants();
    match command {
        Command::Create { id, display_name } => {
            let tenant = Some(pb::Tenant { display_name, ..Default::default() });
            let request = pb::CreateTenantRequest { tenant_id: id, tenant, ..Default::default() };
            let answer = stub.create_tenant(request).await.map_err(from_status)?.into_inner();
            output::one(caller.format, &answer.tenant.unwrap_or_default())
        }
        Command::Get { id } => {
            let name = name::tenant(&TenantId::new(id)?);
            let answer =
                stub.get_tenant(pb::GetTenantRequest { name }).await.map_err(from_status)?.into_inner();
            output::one(caller.format, &answer.tenant.unwrap_or_default())
        }
        Command::List => {
            let found = page::all(async |page_token| {
                let request = pb::ListTenantsRequest { page_size: page::SIZE, page_token };
                let page = stub.list_tenants(request).await.map_err(from_status)?.into_inner();
                Ok((page.tenants, page.next_page_token))
            });
            output::list(caller.format, &found.await?)
        }
        Command::Update { id, display_name, disable, enable } => {
            let mut paths = Vec::new();
            paths.extend(display_name.is_some().then(|| "display_name".to_owned()));
            paths.extend((disable || enable).then(|| "disabled".to_owned()));
            let tenant = pb::Tenant {
                name: name::tenant(&TenantId::new(id)?),
                display_name: display_name.unwrap_or_default(),
                disabled: disable,
                ..Default::default()
            };
            let update_mask = Some(prost_types::FieldMask { paths });
            let request = pb::UpdateTenantRequest { tenant: Some(tenant), update_mask, ..Default::default() };
            let answer = stub.update_tenant(request).await.map_err(from_status)?.into_inner();
            output::one(caller.format, &answer.tenant.unwrap_or_default())
        }
        Command::Own => output::one(caller.format, caller.own()),
    }
}

impl Show for pb::Tenant {
    const COLUMNS: &'static [&'static str] = &["id", "display_name", "disabled", "created"];
    fn cells(&self) -> Vec<String> {
        vec![
            id(&self.name),
            self.display_name.clone(),
            self.disabled.to_string(),
            time(self.create_time.as_ref()),
        ]
    }
    fn json(&self) -> Value {
        json!({
            "id": id(&self.name),
            "name": self.name,
            "display_name": self.display_name,
            "disabled": self.disabled,
            "etag": self.etag,
            "create_time": json_time(self.create_time.as_ref()),
            "update_time": json_time(self.update_time.as_ref()),
        })
    }
}

impl Show for pb::GetSelfResponse {
    const COLUMNS: &'static [&'static str] = &["token", "tenant", "scopes"];
    fn cells(&self) -> Vec<String> {
        vec![self.token_id.clone(), id(&self.tenant), self.scopes.join(" ")]
    }
    fn json(&self) -> Value {
        json!({"token": self.token_id, "tenant": id(&self.tenant), "scopes": self.scopes})
    }
}
