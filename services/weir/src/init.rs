//! `weir init`

use std::{fs, path::PathBuf};

use weir_core::{Error, ErrorKind, Result, TenantId, principal::Scope};

use crate::{
    config::Config,
    engines, pepper, signals,
    targets::{Running, parse},
};

/// `weir init`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  weir init --dir /etc/weir --data-dir /var/lib/weir\n  weir serve --target all --config /etc/weir/weir.toml"
)]
pub(crate) struct Args {
    /// Where weir.toml and the pepper are written
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// Where data is kept
    #[arg(long, default_value = "weir-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// The first tenant
    #[arg(long, default_value = "default", value_name = "TENANT")]
    first_tenant: String,
}

/// Makes pepper, configuration, first tenant and first token; prints the token, this once.
///
/// # Errors
/// `ALREADY_INITIALIZED` where there is a token already.
pub(crate) async fn run(args: Args) -> Result<()> {
    let tenant = TenantId::new(&args.first_tenant)?;
    let failed =
        |what: &PathBuf, source| Error::unavailable(format!("cannot write {}: {source}", what.display()));
    fs::create_dir_all(&args.dir).map_err(|source| failed(&args.dir, source))?;
    fs::create_dir_all(&args.data_dir).map_err(|source| failed(&args.data_dir, source))?;
    let absolute = |path: &PathBuf| fs::canonicalize(path).unwrap_or_else(|_| path.clone());
    let (dir, data_dir) = (absolute(&args.dir), absolute(&args.data_dir));
    let pepper_file = dir.join("pepper");
    let peppers = pepper::make(&pepper_file)?;
    let mut config = Config::default();
    config.data.dir.clone_from(&data_dir);
    let engines = engines::open(&config).await?;
    let running = Running::start(config, engines, peppers, &parse("all")?).await?;
    let registry = running.registry.clone().ok_or_else(|| Error::internal("registry has not started"))?;
    if registry.any_token().await? {
        let message = format!("{} has a token already; `weir token create` makes more", data_dir.display());
        return Err(Error::new(ErrorKind::FailedPrecondition, "ALREADY_INITIALIZED", message));
    }
    registry.ensure_tenant(&tenant).await?;
    let token = registry
        .create_token(Some(&tenant), &[Scope::Platform, Scope::Admin], "first token, by weir init")
        .await?;
    weir_runtime::drain(&running.services(), std::time::Duration::from_secs(10)).await;
    let config_file = dir.join("weir.toml");
    if !config_file.exists() {
        let text = format!(
            "# The configuration of Weir; every key is in docs/configuration.md.\n\n[data]\ndir = {:?}\n\n[auth]\npepper_file \
             = {:?}\n\n[listen]\naddress = \"127.0.0.1\"\n",
            data_dir.display().to_string(),
            pepper_file.display().to_string()
        );
        fs::write(&config_file, text).map_err(|source| failed(&config_file, source))?;
    }
    signals::say(&token)?;
    signals::complain(&format!(
        "tenant {tenant}, token with scopes platform and admin: printed above, only this once\nnext:\n  weir serve --target \
         all --config {}\n  weir context set here --addr 127.0.0.1:8081 --mqtt-addr 127.0.0.1:1883 --http-addr 127.0.0.1:8080 \
         --token TOKEN",
        config_file.display()
    ));
    Ok(())
}
