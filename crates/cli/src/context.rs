//! Which Weir, as whom: contexts in `$XDG_CONFIG_HOME/weir/config.toml`, and the caller of one command.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use weir_clients::Connection;
use weir_core::{DeviceId, Error, Result, TenantId, name};
use weir_grpc::from_status;
use weir_proto::registry::v1::{GetSelfRequest, GetSelfResponse};

use crate::{Format, Global, exit::usage};

/// Every context of this user.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Contexts {
    /// The name of the one in use.
    pub current: Option<String>,
    /// By name.
    pub contexts: BTreeMap<String, Context>,
}

/// One Weir, and a token for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    /// Address of the gRPC API.
    pub addr: String,
    /// API token.
    pub token: String,
    /// The authority (PEM) that signed the server's certificate, for an address with `https://`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Address of the MQTT listener, for replay, simulate and bench.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<String>,
    /// Address of the HTTP device API, for replay and bench.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Address of the admin listener, for bench.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
}

impl Context {
    /// Connects, over TLS where the address is one with `https://`.
    ///
    /// # Errors
    /// `USAGE` for an authority that is missing or cannot be read; those of the connection.
    pub async fn connect(&self) -> Result<Connection> {
        if !self.addr.starts_with("https://") {
            return Connection::open(&self.addr, &self.token).await;
        }
        let file = self.ca_file.as_ref().ok_or_else(|| {
            usage(format!("{} needs --ca-file: the ca.pem that `weir init` made", self.addr))
        })?;
        let ca = fs::read(file).map_err(|error| usage(format!("cannot read {}: {error}", file.display())))?;
        Connection::open_tls(&self.addr, &self.token, &ca).await
    }
}

impl Contexts {
    /// Where the contexts are kept.
    ///
    /// # Errors
    /// `USAGE` where neither XDG_CONFIG_HOME nor HOME is set.
    pub fn path() -> Result<PathBuf> {
        let home = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))
            .ok_or_else(|| usage("neither XDG_CONFIG_HOME nor HOME is set; give --addr and --token"))?;
        Ok(home.join("weir").join("config.toml"))
    }

    /// Reads them; none where there is no file.
    ///
    /// # Errors
    /// `USAGE` for a file that cannot be read.
    pub fn load() -> Result<Self> {
        Self::read(&Self::path()?)
    }

    fn read(path: &Path) -> Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|error| usage(format!("cannot read {}: {error}", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(usage(format!("cannot read {}: {error}", path.display()))),
        }
    }

    /// Writes them, readable by this user alone, all or nothing.
    ///
    /// # Errors
    /// `USAGE` for a file that cannot be written.
    pub fn save(&self) -> Result<()> {
        self.write(&Self::path()?)
    }

    fn write(&self, path: &Path) -> Result<()> {
        let failed = |error: std::io::Error| usage(format!("cannot write {}: {error}", path.display()));
        let text = toml::to_string(self)
            .map_err(|error| usage(format!("cannot write {}: {error}", path.display())))?;
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(failed)?;
        }
        let new = path.with_extension(format!("toml.{}", std::process::id()));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .map_err(failed)?;
        file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        fs::rename(&new, path).map_err(failed)
    }

    /// Adds or replaces a context and makes it the current one.
    ///
    /// # Errors
    /// As [`Contexts::load`] and [`Contexts::save`].
    pub fn remember(name: &str, context: Context) -> Result<()> {
        let mut contexts = Self::load()?;
        contexts.contexts.insert(name.to_owned(), context);
        contexts.current = Some(name.to_owned());
        contexts.save()
    }

    /// The context that the flags and the environment choose: flag, then environment, then the current one.
    ///
    /// # Errors
    /// `USAGE` where there is none, with what to do.
    pub fn choose(global: &Global) -> Result<Context> {
        if let (Some(addr), Some(token)) = (&global.addr, &global.token) {
            return Ok(Context {
                addr: addr.clone(),
                token: token.clone(),
                ca_file: global.ca_file.clone(),
                ..Context::default()
            });
        }
        let contexts = Self::load()?;
        let mut context = match global.context.as_ref().or(contexts.current.as_ref()) {
            Some(name) => contexts.contexts.get(name).cloned().ok_or_else(|| {
                usage(format!("there is no context {name}; `weir context list` shows those there are"))
            })?,
            None if global.addr.is_some() => return Err(usage("no token: give --token or WEIR_TOKEN")),
            None => {
                return Err(usage(
                    "no context: start `weir dev`, or give --addr and --token, or `weir context set`",
                ));
            }
        };
        if let Some(addr) = &global.addr {
            context = Context { addr: addr.clone(), mqtt: None, http: None, admin: None, ..context };
        }
        if let Some(token) = &global.token {
            context.token.clone_from(token);
        }
        if global.ca_file.is_some() {
            context.ca_file.clone_from(&global.ca_file);
        }
        Ok(context)
    }
}

/// A connection as somebody, and how they want to see things.
pub struct Caller {
    /// The connection.
    pub connection: Connection,
    /// Where it leads.
    pub context: Context,
    /// How to print.
    pub format: Format,
    tenant: Option<TenantId>,
    own: GetSelfResponse,
}

impl Caller {
    /// Connects and asks who this is.
    ///
    /// # Errors
    /// `UNREACHABLE`, or `UNAUTHENTICATED` for a wrong token.
    pub async fn open(global: &Global) -> Result<Self> {
        let context = Contexts::choose(global)?;
        let tenant = global.tenant.as_ref().map(TenantId::new).transpose()?;
        let connection = context.connect().await?;
        let own = connection.tenants().get_self(GetSelfRequest {}).await.map_err(from_status)?.into_inner();
        Ok(Self { connection, context, format: global.output, tenant, own })
    }

    /// Who the caller is.
    pub fn own(&self) -> &GetSelfResponse {
        &self.own
    }

    /// The tenant of this command: the flag's, else the token's.
    ///
    /// # Errors
    /// `USAGE` for a token that is bound to none, without the flag.
    pub fn tenant(&self) -> Result<TenantId> {
        match &self.tenant {
            Some(tenant) => Ok(tenant.clone()),
            None if self.own.tenant.is_empty() => {
                Err(usage("this token is bound to no tenant; give --tenant"))
            }
            None => name::parse_tenant("tenant", &self.own.tenant),
        }
    }

    /// Whether the command line names a tenant.
    pub fn names_tenant(&self) -> bool {
        self.tenant.is_some()
    }

    /// `tenants/{tenant}`.
    ///
    /// # Errors
    /// As [`Caller::tenant`].
    pub fn parent(&self) -> Result<String> {
        Ok(name::tenant(&self.tenant()?))
    }

    /// The full name of something of the tenant; a full name is taken as it is.
    ///
    /// # Errors
    /// As [`Caller::tenant`].
    pub fn name(&self, collection: &str, id: &str) -> Result<String> {
        if id.starts_with("tenants/") {
            Ok(id.to_owned())
        } else {
            Ok(name::child(&self.tenant()?, collection, id))
        }
    }

    /// The full name of a device.
    ///
    /// # Errors
    /// As [`Caller::tenant`], or `ID_INVALID`.
    pub fn device(&self, id: &str) -> Result<String> {
        if id.starts_with("tenants/") {
            Ok(id.to_owned())
        } else {
            Ok(name::device(&self.tenant()?, &DeviceId::new(id)?))
        }
    }

    /// The address of the MQTT listener.
    ///
    /// # Errors
    /// `USAGE` where neither flag nor context has one.
    pub fn mqtt(&self, flag: Option<&str>) -> Result<String> {
        address(flag, self.context.mqtt.as_deref(), "--mqtt-addr")
    }

    /// The address of the HTTP device API.
    ///
    /// # Errors
    /// `USAGE` where neither flag nor context has one.
    pub fn http(&self, flag: Option<&str>) -> Result<String> {
        address(flag, self.context.http.as_deref(), "--http-addr")
    }
}

fn address(flag: Option<&str>, context: Option<&str>, name: &str) -> Result<String, Error> {
    flag.or(context)
        .map(str::to_owned)
        .ok_or_else(|| usage(format!("the context has no such address; give {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_survive_their_file_which_only_their_user_may_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weir").join("config.toml");
        assert!(Contexts::read(&path).unwrap().contexts.is_empty(), "no file is no contexts");
        let dev = Context {
            addr: "127.0.0.1:8081".to_owned(),
            token: "a token".to_owned(),
            mqtt: Some("127.0.0.1:1883".to_owned()),
            ..Default::default()
        };
        let mut contexts = Contexts { current: Some("dev".to_owned()), ..Default::default() };
        contexts.contexts.insert("dev".to_owned(), dev.clone());
        contexts.write(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        contexts.contexts.insert("other.one".to_owned(), Context::default());
        contexts.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = Contexts::read(&path).unwrap();
        assert_eq!(read.current.as_deref(), Some("dev"));
        assert_eq!(read.contexts.get("dev"), Some(&dev));
        assert_eq!(read.contexts.len(), 2);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_damaged_file_is_a_usage_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, "current = ").unwrap();
        let error = Contexts::read(&path).unwrap_err();
        assert_eq!(error.reason(), "USAGE");
        assert!(error.message().contains("config.toml"), "{error}");
    }
}
