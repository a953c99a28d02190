//! `weir operator`

use std::{io::Read as _, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use weir_clients::certificates;
use weir_core::{Error, Result};
use weir_operator::{Binary, Certificates};
use weir_registry::Peppers;

use crate::{config::Config, engines, signals};

/// `weir operator`
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  weir operator                                  against the cluster of this pod, or of KUBECONFIG
  weir operator wait --name weir --timeout 5m
  weir operator render -f cluster.yaml | kubectl apply -f -"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

/// How the operator runs.
#[derive(Debug, clap::Args)]
struct Run {
    /// Keep the WeirClusters of this namespace; of all if absent
    #[arg(long, value_name = "NAMESPACE", env = "WEIR_OPERATOR_NAMESPACE")]
    namespace: Option<String>,
    /// The Lease by which one of several operators is chosen, in the namespace that they run in
    #[arg(long, value_name = "NAME", default_value = "weir-operator")]
    lease: String,
    /// By what this one is known; the name of its pod or machine if absent
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Where /livez, /readyz and /metrics are
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8082")]
    admin: SocketAddr,
    /// Bring the definitions of Weir's kinds to this release at start
    #[arg(long)]
    apply_crds: bool,
    /// What is logged: error, warn, info, debug, trace, or directives
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
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
    /// Wait until a WeirCluster is ready as its spec is now
    #[command(after_help = "Example:\n  weir operator wait --name weir --timeout 5m")]
    Wait {
        /// Its name
        #[arg(long, value_name = "NAME")]
        name: String,
        /// Its namespace; that of the pod or context if absent
        #[arg(long, value_name = "NAMESPACE")]
        namespace: Option<String>,
        /// How long at most
        #[arg(long, value_name = "SPAN", default_value = "5m", value_parser = weir_config::duration::parse)]
        timeout: Duration,
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
    let Some(command) = args.command else { return serve(args.run).await };
    match command {
        Command::Wait { name, namespace, timeout } => {
            let namespace = namespace.as_deref();
            weir_operator::wait(namespace, &name, timeout, signals::complain).await?;
            signals::say(&format!("{name} is ready"))
        }
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

async fn serve(args: Run) -> Result<()> {
    let logs = weir_observability::Config { level: args.log_level, ..weir_observability::Config::default() };
    weir_observability::start(&logs)?;
    let stop = CancellationToken::new();
    let signal = signals::stop()?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        drop(signal.await); // it resolves at the first signal
        stopping.cancel();
    });
    let options = weir_operator::Options {
        namespace: args.namespace,
        lease: args.lease,
        identity: args.identity.unwrap_or_else(engines::hostname),
        admin: args.admin,
        apply_crds: args.apply_crds,
    };
    weir_operator::run(options, Arc::new(Here), stop).await
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
