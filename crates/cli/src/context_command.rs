//! `weir context …`

use clap::Subcommand;
use serde_json::{Value, json};
use weir_core::Result;

use crate::{
    Global,
    context::{Context, Contexts},
    exit::usage,
    output::{self, Show},
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List contexts; * is the current one
    List,
    /// Make a context the current one
    Use {
        /// Its name
        name: String,
    },
    /// Add or replace a context from --addr and --token, and use it
    #[command(after_help = "Example:\n  weir context set prod --addr weir.example.com:8081 --token wa_…")]
    Set {
        /// Its name
        name: String,
        /// Address of the MQTT listener
        #[arg(long)]
        mqtt_addr: Option<String>,
        /// Address of the HTTP device API
        #[arg(long)]
        http_addr: Option<String>,
        /// Address of the admin listener
        #[arg(long)]
        admin_addr: Option<String>,
    },
    /// Forget a context
    Delete {
        /// Its name
        name: String,
    },
}

pub(crate) fn run(command: Command, global: &Global) -> Result<()> {
    let mut contexts = Contexts::load()?;
    match command {
        Command::List => {
            let current = contexts.current.clone();
            let listed: Vec<_> = contexts
                .contexts
                .into_iter()
                .map(|(name, context)| Listed { current: current.as_ref() == Some(&name), name, context })
                .collect();
            output::list(global.output, &listed)
        }
        Command::Use { name } => {
            if !contexts.contexts.contains_key(&name) {
                return Err(usage(format!(
                    "there is no context {name}; `weir context list` shows those there are"
                )));
            }
            contexts.current = Some(name);
            contexts.save()
        }
        Command::Set { name, mqtt_addr, http_addr, admin_addr } => {
            let (Some(addr), Some(token)) = (global.addr.clone(), global.token.clone()) else {
                return Err(usage("give --addr and --token"));
            };
            Contexts::remember(
                &name,
                Context { addr, token, mqtt: mqtt_addr, http: http_addr, admin: admin_addr },
            )
        }
        Command::Delete { name } => {
            if contexts.contexts.remove(&name).is_none() {
                return Err(usage(format!("there is no context {name}")));
            }
            contexts.current = contexts.current.filter(|current| *current != name);
            contexts.save()
        }
    }
}

struct Listed {
    name: String,
    current: bool,
    context: Context,
}

impl Show for Listed {
    const COLUMNS: &'static [&'static str] = &["name", "current", "addr"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            if self.current { "*".to_owned() } else { String::new() },
            self.context.addr.clone(),
        ]
    }
    fn json(&self) -> Value {
        json!({"name": self.name, "current": self.current, "addr": self.context.addr})
    }
}
