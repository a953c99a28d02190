//! `weir context …`

use std::fs;

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
    #[command(after_help = "Example:\n  weir context list")]
    List,
    /// Make a context the current one
    #[command(after_help = "Example:\n  weir context use prod")]
    Use {
        /// Its name
        name: String,
    },
    /// Add or replace a context from --addr and --token, and use it
    #[command(
        after_help = "Example:\n  weir context set prod --addr weir.example.com:8081 --token TOKEN --mqtt-addr weir.example.com:1883"
    )]
    Set {
        /// Its name
        name: String,
        /// Address of the MQTT listener
        #[arg(long, value_name = "HOST:PORT")]
        mqtt_addr: Option<String>,
        /// Address of the HTTP device API
        #[arg(long, value_name = "HOST:PORT")]
        http_addr: Option<String>,
        /// Address of the admin listener
        #[arg(long, value_name = "HOST:PORT")]
        admin_addr: Option<String>,
    },
    /// Forget a context
    #[command(after_help = "Example:\n  weir context delete prod")]
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
            // A context is used from any directory.
            let ca_file =
                global.ca_file.as_ref().map(|file| fs::canonicalize(file).unwrap_or_else(|_| file.clone()));
            Contexts::remember(
                &name,
                Context { addr, token, ca_file, mqtt: mqtt_addr, http: http_addr, admin: admin_addr },
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
    const COLUMNS: &'static [&'static str] = &["id", "current", "addr"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            if self.current { "*".to_owned() } else { String::new() },
            self.context.addr.clone(),
        ]
    }
    fn json(&self) -> Value {
        json!({"id": self.name, "current": self.current, "addr": self.context.addr})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_listed_by_its_id_and_without_its_token() {
        let listed = Listed {
            name: "dev".to_owned(),
            current: true,
            context: Context { token: "a secret".to_owned(), ..Default::default() },
        };
        assert_eq!(Listed::COLUMNS[0], "id");
        assert_eq!(listed.cells()[0], "dev");
        assert!(!listed.json().to_string().contains("secret"));
    }
}
