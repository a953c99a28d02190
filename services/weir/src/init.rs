//! `weir init`

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use prometheus::Registry;
use weir_clients::certificates;
use weir_core::{Error, ErrorKind, Result, TenantId, principal::Scope};
use weir_grpc::ServiceKey;
use weir_registry::Peppers;

use crate::{
    config::Config,
    engines, migrate, pepper,
    serve::peppers,
    signals,
    targets::{EDGE, REGISTRY, Running, TARGETS, Target, parse},
};

/// `weir init`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir init --dir /etc/weir --data-dir /var/lib/weir
  weir serve --target all --config /etc/weir/weir.toml

  weir init --dir /etc/weir --nats nats://127.0.0.1:4222 --cql 127.0.0.1
  weir serve --target storage --config /etc/weir/weir.toml --grpc-port 9083 --admin-port 9183

  weir init --config /etc/weir/weir.toml --first-token-file /etc/weir/secrets/token --if-needed

  weir init --dir /etc/weir --nats nats://nats:4222 --nats-replicas 3 --nats-sync-always --cql scylla --cql-replicas 3 \\
    --peers 'https://{service}:8081'")]
pub(crate) struct Args {
    /// A configuration that is there already, with every file that it names: only the schema, the first tenant and the first
    /// token are made
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dir", "data_dir", "nats", "cql"])]
    config: Option<PathBuf>,
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
    #[arg(long, conflicts_with = "another_token")]
    if_needed: bool,
    /// Make one more token of the first tenant, for whoever has lost the first
    #[arg(long)]
    another_token: bool,
    /// The first token is the one in this file, which is not shown; `wa_` and what follows it
    #[arg(long, value_name = "FILE", conflicts_with = "another_token")]
    first_token_file: Option<PathBuf>,
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
    /// A further name or address in the certificates: by which users reach a service; may be given more than once
    #[arg(long, value_name = "NAME", requires = "peers")]
    name: Vec<String>,
}

/// Makes pepper, configuration, first tenant and first token; prints the token, this once. Where engines are shared, also
/// the schema, and what the services know each other by.
///
/// # Errors
/// `ALREADY_INITIALIZED` where there is a token already; those of the engines.
pub(crate) async fn run(args: Args) -> Result<()> {
    let tenant = TenantId::new(&args.first_tenant)?;
    let (config_file, config, peppers) = match &args.config {
        Some(file) => {
            let config: Config = weir_config::load(Some(file))?;
            let peppers = peppers(&config, &parse(REGISTRY)?)?;
            (file.clone(), config, peppers)
        }
        None => prepare(&args)?,
    };
    let imported = args.first_token_file.as_deref().map(read_token).transpose()?;
    if config.is_shared()? {
        migrate::run_all(&config).await?;
    }
    // The embedded readers record which log they read before anything is published; registry alone touches no log.
    let targets = if config.is_shared()? { "registry" } else { "all" };
    let engines = engines::open(&config).await?;
    let running = Running::start(config, engines, peppers, Registry::new(), &parse(targets)?).await?;
    let told = match first_token(&running, &tenant, args.another_token, imported.as_deref()).await {
        Ok(Some(_)) if imported.is_some() => {
            Ok(format!("tenant {tenant}, its first token is the one that was given"))
        }
        // At once: a token that was made and not shown cannot be had again.
        Ok(Some(token)) => signals::say(&token).map(|()| next_steps(&tenant, &config_file, &args.shared)),
        Ok(None) if args.if_needed => Ok("there is a token already; nothing to do".to_owned()),
        Ok(None) => Err(Error::new(
            ErrorKind::FailedPrecondition,
            "ALREADY_INITIALIZED",
            "there is a token already; `weir token create` makes more, and `weir init --another-token` one for whoever has \
             lost it",
        )),
        Err(error) => Err(error),
    };
    weir_runtime::drain(&running.services(), std::time::Duration::from_secs(10)).await;
    signals::complain(&told?);
    Ok(())
}

/// Makes the files, unless they are there: configuration, pepper, and what the services know each other by.
fn prepare(args: &Args) -> Result<(PathBuf, Config, Option<Peppers>)> {
    make_dir(&args.dir)?;
    let dir = absolute(&args.dir);
    let is_shared = !args.shared.nats.is_empty();
    if !is_shared {
        make_dir(&args.data_dir)?;
    }
    let config_file = dir.join("weir.toml");
    let text = match is_shared {
        true => shared_config(&args.shared, &dir)?,
        false => embedded_config(&dir, &absolute(&args.data_dir)),
    };
    let config = write_config(&config_file, &text, is_shared && !args.if_needed)?;
    let peppers = pepper::make(&dir.join("pepper"))?;
    if is_shared {
        pepper::write_secret(&dir.join("service.key"), &format!("{}\n", ServiceKey::generate()?))?;
        make_certificates(&args.shared, &dir)?;
    }
    Ok((config_file, config, Some(peppers)))
}

/// A token that is known already.
fn read_token(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).map_err(|source| {
        let message = format!("cannot read the first token from {}: {source}", file.display());
        Error::new(ErrorKind::FailedPrecondition, "TOKEN_MISSING", message)
    })?;
    Ok(text.trim().to_owned())
}

/// Writes the configuration once it is known to be sound; one that is there already stays as it is.
///
/// # Errors
/// Those of the configuration; `CONFIG_EXISTS` where one that `must_agree` says something else.
fn write_config(file: &Path, text: &str, must_agree: bool) -> Result<Config> {
    if let Ok(known) = fs::read_to_string(file) {
        if must_agree && known != text {
            let message = format!(
                "{} is there and says something else than these flags; edit it and leave the flags out, or move it away",
                file.display()
            );
            return Err(Error::new(ErrorKind::FailedPrecondition, "CONFIG_EXISTS", message));
        }
        return weir_config::load(Some(file));
    }
    let new = file.with_extension("toml.new");
    fs::write(&new, text).map_err(|source| cannot_write(&new, source))?;
    let sound = weir_config::load(Some(&new)).and_then(|config: Config| {
        config.is_shared()?;
        config.peers.check()?;
        config.nats.check()?;
        config.cql.validate()?;
        Ok(config)
    });
    match sound {
        Ok(config) => fs::rename(&new, file).map(|()| config).map_err(|source| cannot_write(file, source)),
        Err(error) => {
            drop(fs::remove_file(&new)); // nothing is left of what cannot be used
            Err(error)
        }
    }
}

/// The first token, which may be `imported`, or `another`; none where there is one already: one that was revoked must not come
/// back.
async fn first_token(
    running: &Running,
    tenant: &TenantId,
    another: bool,
    imported: Option<&str>,
) -> Result<Option<String>> {
    let registry = running.registry.clone().ok_or_else(|| Error::internal("registry has not started"))?;
    if !another && registry.any_token().await? {
        return Ok(None);
    }
    registry.ensure_tenant(tenant).await?;
    let scopes = [Scope::Platform, Scope::Admin];
    let name = "first token, by weir init";
    if let Some(token) = imported {
        registry.import_token(Some(tenant), &scopes, name, token).await?;
        return Ok(Some(token.to_owned()));
    }
    registry.create_token(Some(tenant), &scopes, name).await.map(Some)
}

fn embedded_config(dir: &Path, data_dir: &Path) -> String {
    format!(
        "# The configuration of Weir; every key is in docs/configuration.md.\n\n[data]\ndir = {data_dir:?}\n\n[auth]\n\
         pepper_file = {:?}\n\n[listen]\naddress = \"127.0.0.1\"\n",
        dir.join("pepper")
    )
}

/// The configuration of services that share engines.
///
/// # Errors
/// `ADDRESS_INVALID` for peers without a host and a port.
fn shared_config(shared: &Shared, dir: &Path) -> Result<String> {
    let durability = if shared.nats_sync_always { "power-loss" } else { "process" };
    let mut text = format!(
        "# The configuration of Weir, the same for every service; every key is in docs/configuration.md.\n\n[log]\nengine = \
         \"nats\"\ndurability = {durability:?}\n\n[nats]\nservers = {:?}\nreplicas = {}\nsync_always = \
         {}\n\n[store]\nengine = \"cql\"\n\n[cql]\nhosts = {:?}\nreplication_factor = {}\n\n[auth]\npepper_file = \
         {:?}\nservice_key_file = {:?}\n\n[listen]\naddress = \"127.0.0.1\"\n\n[peers]\n",
        shared.nats,
        shared.nats_replicas,
        shared.nats_sync_always,
        shared.cql,
        shared.cql_replicas,
        dir.join("pepper"),
        dir.join("service.key"),
    );
    for target in &TARGETS {
        let peer = peer(shared, target);
        host(&peer)?;
        let _infallible = writeln!(text, "{} = [{peer:?}]", target.name);
    }
    if has_tls(shared) {
        let file = |name: &str| dir.join(name);
        let _infallible = write!(
            text,
            "\n[tls]\nca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}\n",
            file(CA),
            file(CERT),
            file(KEY)
        );
    }
    Ok(text)
}

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const CERT: &str = "service.pem";
const KEY: &str = "service-key.pem";

fn has_tls(shared: &Shared) -> bool {
    shared.peers.as_ref().is_some_and(|template| template.starts_with("https://"))
}

/// Where a service is.
fn peer(shared: &Shared, target: &Target) -> String {
    match &shared.peers {
        Some(template) => template.replace("{service}", target.name),
        None => format!("http://127.0.0.1:{}", target.loopback_grpc_port),
    }
}

/// The host of a peer's address, as a certificate names it.
///
/// # Errors
/// `ADDRESS_INVALID` without scheme, host or port.
fn host(peer: &str) -> Result<&str> {
    let authority = peer.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"));
    let parts = authority.and_then(|(_, authority)| authority.rsplit_once(':'));
    match parts {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(host.trim_start_matches('[').trim_end_matches(']'))
        }
        _ => Err(Error::invalid(
            "peers",
            "ADDRESS_INVALID",
            format!("--peers makes {peer:?} of a service; it must look like https://{{service}}:8081"),
        )),
    }
}

/// Makes authority and certificate where peers are reached over TLS, unless they are there.
///
/// # Errors
/// `TLS_FILES_PARTIAL` where only some of them are; those of the file system.
fn make_certificates(shared: &Shared, dir: &Path) -> Result<()> {
    if !has_tls(shared) {
        return Ok(());
    }
    let there = [CA, CA_KEY, CERT, KEY].iter().filter(|name| dir.join(name).exists()).count();
    if there == 4 {
        return Ok(());
    }
    if there > 0 {
        let message = format!(
            "{} holds some of {CA}, {CA_KEY}, {CERT} and {KEY}; put the missing ones back, or remove those there",
            dir.display()
        );
        return Err(Error::new(ErrorKind::FailedPrecondition, "TLS_FILES_PARTIAL", message));
    }
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    for target in &TARGETS {
        names.push(host(&peer(shared, target))?.to_owned());
    }
    names.extend(shared.name.iter().cloned());
    names.sort();
    names.dedup();
    let made = certificates::make(&names)?;
    pepper::write_secret(&dir.join(CA_KEY), &made.ca_key)?;
    pepper::write_secret(&dir.join(CA), &made.ca)?;
    pepper::write_secret(&dir.join(CERT), &made.cert)?;
    pepper::write_secret(&dir.join(KEY), &made.key)
}

fn next_steps(tenant: &TenantId, config_file: &Path, shared: &Shared) -> String {
    let config = config_file.display();
    let mut text = format!(
        "tenant {tenant}, token with scopes platform and admin: printed above, only this once\nnext:\n"
    );
    if shared.nats.is_empty() {
        let _infallible = writeln!(text, "  weir serve --target all --config {config}");
    }
    for target in TARGETS.iter().filter(|_| !shared.nats.is_empty()) {
        let _infallible = write!(text, "  weir serve --target {} --config {config}", target.name);
        let port = target.loopback_grpc_port;
        let _infallible = match &shared.peers {
            None => writeln!(text, " --grpc-port {port} --admin-port {}", port + 100),
            Some(_) if target.name == EDGE => writeln!(text, " --listen 0.0.0.0 --insecure"),
            Some(_) => writeln!(text, " --listen 0.0.0.0"),
        };
    }
    let (addr, ca) = match &shared.peers {
        Some(template) => (template.replace("{service}", EDGE), format!(" --ca-file {CA}")),
        None => ("127.0.0.1:8081".to_owned(), String::new()),
    };
    let ca = if has_tls(shared) { ca } else { String::new() };
    let device = host(&addr).unwrap_or("127.0.0.1");
    let _infallible = write!(
        text,
        "  weir context set here --addr {addr}{ca} --mqtt-addr {device}:1883 --http-addr {device}:8080 --token TOKEN"
    );
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_peer_is_what_a_certificate_names() {
        for (peer, expected) in [
            ("https://storage:8081", Some("storage")),
            ("https://[::1]:8081", Some("::1")),
            ("http://10.0.0.1:1", Some("10.0.0.1")),
            ("https://storage", None),
            ("storage:8081", None),
            ("https://:8081", None),
        ] {
            assert_eq!(host(peer).ok(), expected, "{peer}");
        }
    }

    #[test]
    fn a_configuration_that_cannot_be_used_leaves_nothing_behind_and_one_that_differs_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("weir.toml");
        let refused = write_config(&file, "[peers]\nstorage = [\"http://storage:1\"]\n", true).unwrap_err();
        assert_eq!(refused.reason(), "PLAINTEXT_REFUSED");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        write_config(&file, "[log]\npartitions = 8\n", true).unwrap();
        assert_eq!(write_config(&file, "[log]\npartitions = 8\n", true).unwrap().log.partitions, 8);
        let other = write_config(&file, "[log]\npartitions = 4\n", true).unwrap_err();
        assert_eq!(other.reason(), "CONFIG_EXISTS");
        assert_eq!(write_config(&file, "[log]\npartitions = 4\n", false).unwrap().log.partitions, 8);
    }
}
