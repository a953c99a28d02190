//! `weir serve`

use std::{net::SocketAddr, path::PathBuf};

use weir_core::{Error, ErrorKind, Result};
use weir_registry::Peppers;

use crate::{
    config::{Config, Listen},
    node::Node,
    pepper, signals,
    targets::{self, REGISTRY, Target},
};

/// `weir serve`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  weir init --dir /etc/weir\n  weir serve --target all --config /etc/weir/weir.toml"
)]
pub(crate) struct Args {
    /// Which services: all, or some of registry,commands,storage,analytics,ingest
    #[arg(long, default_value = "all", value_name = "TARGETS")]
    target: String,
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where data is kept (data.dir)
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    ports: Ports,
    /// Allow listening off loopback without TLS (listen.insecure)
    #[arg(long)]
    insecure: bool,
}

/// Flags that move listeners.
#[derive(Debug, clap::Args)]
pub(crate) struct Ports {
    /// Address of every listener (listen.address)
    #[arg(long, value_name = "ADDR")]
    listen: Option<std::net::IpAddr>,
    /// MQTT (listen.mqtt_port); 0 for any
    #[arg(long, value_name = "PORT")]
    mqtt_port: Option<u16>,
    /// Device API over HTTP (listen.http_port); 0 for any
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// gRPC API (listen.grpc_port); 0 for any
    #[arg(long, value_name = "PORT")]
    grpc_port: Option<u16>,
    /// Health and metrics (listen.admin_port); 0 for any
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
}

impl Ports {
    /// Puts the flags over the configuration.
    pub(crate) fn apply(&self, listen: &mut Listen) {
        listen.address = self.listen.unwrap_or(listen.address);
        listen.mqtt_port = self.mqtt_port.unwrap_or(listen.mqtt_port);
        listen.http_port = self.http_port.unwrap_or(listen.http_port);
        listen.grpc_port = self.grpc_port.unwrap_or(listen.grpc_port);
        listen.admin_port = self.admin_port.unwrap_or(listen.admin_port);
    }
}

/// Runs services until a signal, then drains.
///
/// # Errors
/// One clear line for each thing that can be wrong at start.
pub(crate) async fn run(args: Args) -> Result<()> {
    let mut config: Config = weir_config::load(args.config.as_deref())?;
    args.ports.apply(&mut config.listen);
    config.listen.insecure |= args.insecure;
    config.data.dir = args.data_dir.unwrap_or(config.data.dir);
    let targets = targets::parse(&args.target)?;
    targets::check(&targets, &config)?;
    weir_observability::start(&config.logs)?;
    let stop = signals::stop()?;
    let node = Node::start(config.clone(), peppers(&config, &targets)?, &targets).await?;
    if !node.has_token().await? {
        node.stop().await;
        let message = "there is no token to do anything with; `weir init` makes the first";
        return Err(Error::new(ErrorKind::FailedPrecondition, "TOKEN_MISSING", message));
    }
    node.accept();
    let at = node.addresses;
    let shown = |at: Option<SocketAddr>| at.map(tracing::field::display);
    tracing::info!(targets = args.target, mqtt = shown(at.mqtt), http = shown(at.http), grpc = %at.grpc, admin = %at.admin, "ready");
    stop.await?;
    tracing::info!("draining");
    node.stop().await;
    tracing::info!("stopped");
    Ok(())
}

/// The peppers, which only the registry needs.
///
/// # Errors
/// `PEPPER_MISSING` that names the key.
pub(crate) fn peppers(config: &Config, targets: &[&Target]) -> Result<Option<Peppers>> {
    if targets.iter().all(|target| target.name != REGISTRY) {
        return Ok(None);
    }
    let file = config.auth.pepper_file.as_deref().ok_or_else(|| {
        let message =
            "no pepper is configured (auth.pepper_file); `weir init` makes one, with the first token";
        Error::new(ErrorKind::FailedPrecondition, "PEPPER_MISSING", message).with_field("auth.pepper_file")
    })?;
    pepper::read(file).map(Some)
}
