//! `weir dev`: everything on this machine.

use std::{path::PathBuf, sync::Arc};

use weir_cli::context::{Context, Contexts};
use weir_core::{Error, ErrorKind, Result, TenantId, port::Registry as _, principal::Scope};
use weir_observability::LogFormat;

use crate::{
    config::Config,
    demo, engines,
    listeners::Addresses,
    node::Node,
    pepper,
    serve::Ports,
    signals::{self, say},
    targets,
};

/// The tenant of `weir dev`.
const TENANT: &str = "default";

/// `weir dev`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  weir dev --demo
  weir dev --data-dir /tmp/weir --mqtt-port 2883")]
pub(crate) struct Args {
    /// Replay real sensor data: a room that gets stuffy, engines that wear out
    #[arg(long)]
    demo: bool,
    /// With --demo: exit after one pass, 0 only if everything happened as it must
    #[arg(long, requires = "demo")]
    once: bool,
    /// Where state is kept
    #[arg(long, default_value = "weir-data", value_name = "DIR")]
    data_dir: PathBuf,
    #[command(flatten)]
    ports: Ports,
    /// Allow listening off loopback without TLS
    #[arg(long)]
    insecure: bool,
    /// Log level or directives, to standard error
    #[arg(long, default_value = "warn", env = "WEIR_LOG", value_name = "LEVEL")]
    log: String,
}

/// Runs until a signal, or until the demo has passed once.
///
/// # Errors
/// One clear line for each thing that can be wrong at start; `DEMO_FAILED` where an expectation did not hold.
pub(crate) async fn run(args: Args) -> Result<()> {
    let mut config: Config = weir_config::load(None)?;
    config.data.dir.clone_from(&args.data_dir);
    config.listen.insecure |= args.insecure;
    args.ports.apply(&mut config.listen);
    weir_observability::start(&weir_observability::Config { level: args.log, format: LogFormat::Pretty })?;
    let stop = signals::stop()?;
    let begin = std::time::Instant::now();
    engines::prepare(&args.data_dir)?;
    let peppers = pepper::make(&secrets(&args.data_dir)?.join("pepper"))?;
    let node = Node::start(config, Some(peppers), &targets::parse("all")?).await?;
    let token = token(&node, &args.data_dir).await?;
    let context = context(node.addresses, token);
    Contexts::remember("dev", context.clone())?;
    node.accept();
    say(&greeting(node.addresses, &args.data_dir, begin.elapsed()))?;
    let played = if args.demo {
        let place = demo::place(&context).await?;
        tokio::select! {
            played = demo::run(&place, args.once) => played,
            stopped = stop => stopped.and_then(|()| interrupted(args.once)),
        }
    } else {
        say(&next_steps())?;
        stop.await
    };
    node.stop().await;
    played
}

/// With `--once` a demo that was interrupted has not shown what it was asked for.
fn interrupted(once: bool) -> Result<()> {
    if once {
        Err(Error::new(ErrorKind::Cancelled, "INTERRUPTED", "the demo was interrupted"))
    } else {
        Ok(())
    }
}

/// Pepper and token are kept with the data, so that one folder is all there is to keep or delete.
fn secrets(data_dir: &std::path::Path) -> Result<PathBuf> {
    let dir = data_dir.join("secrets");
    std::fs::create_dir_all(&dir)
        .map_err(|source| Error::unavailable(format!("cannot make {}: {source}", dir.display())))?;
    Ok(dir)
}

async fn token(node: &Node, data_dir: &std::path::Path) -> Result<String> {
    let registry = node.registry()?;
    let tenant = TenantId::new(TENANT)?;
    registry.ensure_tenant(&tenant).await?;
    let file = secrets(data_dir)?.join("token");
    if let Ok(token) = std::fs::read_to_string(&file)
        && registry.authenticate(token.trim()).await.is_ok()
    {
        return Ok(token.trim().to_owned());
    }
    drop(std::fs::remove_file(&file)); // a token that no longer works
    let token = registry.create_token(Some(&tenant), &[Scope::Platform, Scope::Admin], "weir dev").await?;
    pepper::write_secret(&file, &format!("{token}\n"))?;
    Ok(token)
}

fn context(at: Addresses, token: String) -> Context {
    Context {
        addr: at.grpc.to_string(),
        token,
        mqtt: at.mqtt.map(|at| at.to_string()),
        http: at.http.map(|at| at.to_string()),
        admin: Some(at.admin.to_string()),
    }
}

fn greeting(at: Addresses, data_dir: &std::path::Path, took: std::time::Duration) -> String {
    format!("Weir is ready ({} ms): {at}  data {}", took.as_millis(), data_dir.display())
}

fn next_steps() -> String {
    let weir = program();
    format!(
        "
Connect a device of your own (prints its token, and lines for mosquitto_pub and Python), watch it, put a rule on it:

  {weir} device connect my-device
  {weir} telemetry tail --device my-device
  {weir} rule create hot --when 'temp > 30' --for 1m --command cool-down

Ctrl-C ends it; the data stays."
    )
}

/// How to call this program from this shell.
pub(crate) fn program() -> Arc<str> {
    let Ok(this) = std::env::current_exe() else { return "weir".into() };
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join("weir") == this) {
        return "weir".into();
    }
    let here = std::env::current_dir().unwrap_or_default();
    match this.strip_prefix(&here) {
        Ok(relative) => format!("./{}", relative.display()).into(),
        Err(_) => this.display().to_string().into(),
    }
}
