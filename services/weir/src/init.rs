//! `weir init`

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use weir_clients::certificates;
use weir_core::{Error, ErrorKind, Result, TenantId, principal::Scope};

use crate::{
    config::Config,
    engines, migrate, pepper, signals,
    targets::{Running, TARGETS, parse},
};

/// `weir init`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir init --dir /etc/weir --data-dir /var/lib/weir
  weir serve --target all --config /etc/weir/weir.toml

  weir init --dir /etc/weir --nats nats://127.0.0.1:4222 --cql 127.0.0.1
  weir serve --target storage --config /etc/weir/weir.toml --grpc-port 9083 --admin-port 9183

  weir init --dir /etc/weir --nats nats://nats:4222 --nats-replicas 3 --nats-sync-always --cql scylla --cql-replicas 3 \\
    --peers 'https://{service}:8081'")]
pub(crate) struct Args {
    /// Where weir.toml, the pepper, the key of the services and their certificates are written
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// Where data is kept (embedded engines)
    #[arg(long, default_value = "weir-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// The first tenant
    #[arg(long, default_value = "default", value_name = "TENANT")]
    first_tenant: String,
    /// Say so and end well where there is a token already
    #[arg(long)]
    if_needed: bool,
    #[command(flatten)]
    shared: Shared,
}

/// Engines that many processes share.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Many processes")]
struct Shared {
    /// NATS servers: the log of a Weir of many processes
    #[arg(long, value_name = "URL", value_delimiter = ',', requires = "cql")]
    nats: Vec<String>,
    /// Servers that hold each frame
    #[arg(long, value_name = "COUNT", default_value_t = 1, requires = "nats")]
    nats_replicas: usize,
    /// Declare that every NATS server runs with `sync_interval: always`, so that acknowledgements survive a power cut; else
    /// they survive a crash of the process (log.durability = "process")
    #[arg(long, requires = "nats")]
    nats_sync_always: bool,
    /// ScyllaDB or Cassandra nodes: the store of a Weir of many processes
    #[arg(long, value_name = "HOST", value_delimiter = ',', requires = "nats")]
    cql: Vec<String>,
    /// Nodes that hold each row
    #[arg(long, value_name = "COUNT", default_value_t = 1, requires = "cql")]
    cql_replicas: usize,
    /// Where the services are, with {service} for the name; https makes certificates for those names. Without it: on this
    /// machine, on ports of their own
    #[arg(long, value_name = "URL", requires = "nats")]
    peers: Option<String>,
}

/// Makes pepper, configuration, first tenant and first token; prints the token, this once. Where engines are shared, also
/// the schema, and what the services know each other by.
///
/// # Errors
/// `ALREADY_INITIALIZED` where there is a token already; those of the engines.
pub(crate) async fn run(args: Args) -> Result<()> {
    let tenant = TenantId::new(&args.first_tenant)?;
    make_dir(&args.dir)?;
    let dir = absolute(&args.dir);
    let is_shared = !args.shared.nats.is_empty();
    if !is_shared {
        make_dir(&args.data_dir)?;
    }
    let peppers = pepper::make(&dir.join("pepper"))?;
    let config_file = dir.join("weir.toml");
    if !config_file.exists() {
        let text = match is_shared {
            true => shared_config(&args.shared, &dir)?,
            false => embedded_config(&dir, &absolute(&args.data_dir)),
        };
        fs::write(&config_file, text).map_err(|source| cannot_write(&config_file, source))?;
    }
    let config: Config = weir_config::load(Some(&config_file))?;
    if config.is_shared()? {
        migrate::run_all(&config).await?;
    }
    // The embedded readers record which log they read before anything is published; registry alone touches no log.
    let targets = if config.is_shared()? { "registry" } else { "all" };
    let engines = engines::open(&config).await?;
    let running = Running::start(config, engines, Some(peppers), &parse(targets)?).await?;
    let token = first_token(&running, &tenant).await;
    weir_runtime::drain(&running.services(), std::time::Duration::from_secs(10)).await;
    match token? {
        Some(token) => {
            signals::say(&token)?;
            signals::complain(&next_steps(&tenant, &config_file, is_shared));
            Ok(())
        }
        None if args.if_needed => {
            signals::complain("there is a token already; nothing to do");
            Ok(())
        }
        None => Err(Error::new(
            ErrorKind::FailedPrecondition,
            "ALREADY_INITIALIZED",
            "there is a token already; `weir token create` makes more",
        )),
    }
}

/// The first token, or none where there is one already.
async fn first_token(running: &Running, tenant: &TenantId) -> Result<Option<String>> {
    let registry = running.registry.clone().ok_or_else(|| Error::internal("registry has not started"))?;
    if registry.any_token().await? {
        return Ok(None);
    }
    registry.ensure_tenant(tenant).await?;
    let scopes = [Scope::Platform, Scope::Admin];
    registry.create_token(Some(tenant), &scopes, "first token, by weir init").await.map(Some)
}

fn embedded_config(dir: &Path, data_dir: &Path) -> String {
    format!(
        "# The configuration of Weir; every key is in docs/configuration.md.\n\n[data]\ndir = {data_dir:?}\n\n[auth]\n\
         pepper_file = {:?}\n\n[listen]\naddress = \"127.0.0.1\"\n",
        dir.join("pepper")
    )
}

/// The configuration of services that share engines; makes what they know each other by.
fn shared_config(shared: &Shared, dir: &Path) -> Result<String> {
    let key_file = dir.join("service.key");
    pepper::write_secret(&key_file, &format!("{}\n", weir_grpc::ServiceKey::generate()?))?;
    let durability = if shared.nats_sync_always { "power-loss" } else { "process" };
    let mut text = format!(
        "# The configuration of Weir, the same for every service; every key is in docs/configuration.md.\n\n[log]\nengine = \
         \"nats\"\ndurability = {durability:?}\n\n[nats]\nservers = {:?}\nreplicas = {}\nsync_always = {}\n\n[store]\nengine = \
         \"cql\"\n\n[cql]\nhosts = {:?}\nreplication_factor = {}\n\n[auth]\npepper_file = {:?}\nservice_key_file = \
         {key_file:?}\n\n[listen]\naddress = \"127.0.0.1\"\n\n[peers]\n",
        shared.nats,
        shared.nats_replicas,
        shared.nats_sync_always,
        shared.cql,
        shared.cql_replicas,
        dir.join("pepper"),
    );
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    for target in &TARGETS {
        let peer = match &shared.peers {
            Some(template) => template.replace("{service}", target.name),
            None => format!("http://127.0.0.1:{}", target.loopback_grpc_port),
        };
        let host = peer.rsplit("://").next().unwrap_or_default().rsplit_once(':').map(|(host, _)| host);
        names.extend(host.map(str::to_owned));
        let _infallible = writeln!(text, "{} = [{peer:?}]", target.name);
    }
    if shared.peers.as_ref().is_some_and(|template| template.starts_with("https://")) {
        names.sort();
        names.dedup();
        let made = certificates::make(&names)?;
        let file = |name: &str| dir.join(name);
        pepper::write_secret(&file("ca.key"), &made.ca_key)?;
        pepper::write_secret(&file("ca.pem"), &made.ca)?;
        pepper::write_secret(&file("service.pem"), &made.cert)?;
        pepper::write_secret(&file("service-key.pem"), &made.key)?;
        let _infallible = write!(
            text,
            "\n[tls]\nca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}\n",
            file("ca.pem"),
            file("service.pem"),
            file("service-key.pem")
        );
    }
    Ok(text)
}

fn next_steps(tenant: &TenantId, config_file: &Path, is_shared: bool) -> String {
    let config = config_file.display();
    let mut text = format!(
        "tenant {tenant}, token with scopes platform and admin: printed above, only this once\nnext:\n"
    );
    if is_shared {
        for target in &TARGETS {
            let port = target.loopback_grpc_port;
            let _infallible = writeln!(
                text,
                "  weir serve --target {} --config {config} --grpc-port {port} --admin-port {}",
                target.name,
                port + 100
            );
        }
    } else {
        let _infallible = writeln!(text, "  weir serve --target all --config {config}");
    }
    text + "  weir context set here --addr 127.0.0.1:8081 --mqtt-addr 127.0.0.1:1883 --http-addr 127.0.0.1:8080 --token TOKEN"
}

fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|source| cannot_write(dir, source))
}

fn absolute(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn cannot_write(what: &Path, source: std::io::Error) -> Error {
    Error::unavailable(format!("cannot write {}: {source}", what.display()))
}
