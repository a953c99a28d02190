//! `weir operator`

use std::{io::Read as _, path::PathBuf};

use weir_clients::certificates;
use weir_core::{Error, Result};
use weir_operator::{Binary, Certificates};
use weir_registry::Peppers;

use crate::{config::Config, signals};

/// `weir operator`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir operator render -f cluster.yaml | kubectl apply -f -")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print what the operator would make of a WeirCluster, for sites that apply it themselves
    #[command(after_help = "Example:\n  weir operator render -f cluster.yaml | kubectl apply -f -")]
    Render {
        /// The WeirCluster; - for standard input
        #[arg(short = 'f', long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the definitions of Weir's kinds
    #[command(after_help = "Example:\n  weir operator crds | kubectl apply --server-side -f -")]
    Crds,
}

/// Does what the command says.
///
/// # Errors
/// `CLUSTER_INVALID` with the path of what is wrong.
pub(crate) async fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Render { file } => {
            let rendered = weir_operator::render(&read(&file)?, &Here)?;
            let mut secrets = String::new();
            for secret in &rendered.secrets {
                secrets.push_str(&format!("\n# needs, kept by you: {secret}"));
            }
            signals::say(&format!("# made by `weir operator render`{secrets}\n{}", rendered.yaml.trim_end()))
        }
        Command::Crds => signals::say(weir_operator::crds()?.trim_end()),
    }
}

fn read(file: &std::path::Path) -> Result<String> {
    let mut text = String::new();
    let done = match file.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text).map(drop),
        _ => std::fs::read_to_string(file).map(|read| text = read),
    };
    done.map_err(|source| {
        Error::invalid("file", "FILE_UNREADABLE", format!("cannot read {}: {source}", file.display()))
    })?;
    Ok(text)
}

/// What this binary knows and the operator may not depend on.
struct Here;

impl Binary for Here {
    fn pepper(&self) -> Result<String> {
        Peppers::generate().map(|pepper| format!("{pepper}\n"))
    }

    fn token(&self) -> Result<String> {
        weir_registry::token()
    }

    fn certificates(&self, names: &[String]) -> Result<Certificates> {
        let made = certificates::make(names)?;
        Ok(Certificates { ca: made.ca, cert: made.cert, key: made.key })
    }

    fn check_config(&self, toml: &str) -> Result<()> {
        let config: Config = weir_config::parse(toml)?;
        config.is_shared()?;
        config.peers.check()
    }
}
