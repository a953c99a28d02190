//! The section `cql` of the configuration.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weir_core::{Error, Result};

/// As Cassandra and ScyllaDB limit a keyspace's name.
const KEYSPACE_BYTES_MAX: usize = 48;

/// The CQL servers and how they are used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Some of the cluster's nodes, as `host:port` (9042 where no port is given); the others are found through them.
    pub hosts: Vec<String>,
    /// The keyspace, made by `weir migrate`: 1 to 48 lowercase letters, digits and `_`, a letter first.
    pub keyspace: String,
    /// How many nodes hold each row; 3 outlives the loss of one. Used by `weir migrate` when it makes the keyspace.
    pub replication_factor: u8,
    /// The data centre that holds the rows and whose nodes are asked. Where it is given, `weir migrate` makes the keyspace
    /// with `NetworkTopologyStrategy`, else with `SimpleStrategy`, which is for one data centre.
    pub data_center: Option<String>,
    /// The user to log in as, where the cluster asks for one.
    pub user: Option<String>,
    /// The file with the user's password.
    pub password_file: Option<PathBuf>,
    /// Encrypts connections. Where it is absent, they are plaintext.
    pub tls: Option<TlsConfig>,
    /// How long one request may take. Above the servers' own time-outs (2 s for a write and 1.8 s for contention by
    /// default), so that it is the server that gives up first and tells.
    #[serde(with = "weir_config::duration")]
    #[schemars(with = "String")]
    pub request_timeout: Duration,
    /// Requests that may be under way at once from this process; past it callers wait.
    pub concurrency: usize,
}

/// How connections to CQL servers are encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// PEM file of the authorities that sign the servers' certificates.
    pub ca_file: PathBuf,
    /// PEM file of this client's certificate chain, where the servers ask for one.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the private key of that certificate.
    pub key_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hosts: vec!["127.0.0.1:9042".to_owned()],
            keyspace: "weir".to_owned(),
            replication_factor: 3,
            data_center: None,
            user: None,
            password_file: None,
            tls: None,
            request_timeout: Duration::from_secs(5),
            concurrency: 256, // where one client on two cores wrote most; a server queues what is more
        }
    }
}

impl Config {
    /// Checks what a type cannot say.
    ///
    /// # Errors
    /// `CONFIG_INVALID` with the key.
    pub fn validate(&self) -> Result<()> {
        let refuse = |key: &str, text: String| Err(Error::invalid(key, "CONFIG_INVALID", text));
        if self.hosts.is_empty() {
            return refuse("cql.hosts", "cql.hosts names no server".to_owned());
        }
        if !is_name(&self.keyspace) {
            let text = format!(
                "cql.keyspace {:?} must be 1 to {KEYSPACE_BYTES_MAX} lowercase letters, digits and _, a letter first",
                self.keyspace
            );
            return refuse("cql.keyspace", text);
        }
        if self.replication_factor == 0 {
            return refuse("cql.replication_factor", "cql.replication_factor must be at least 1".to_owned());
        }
        if let Some(name) = &self.data_center
            && (name.is_empty() || name.chars().any(|c| c == '\'' || c.is_control()))
        {
            let text = format!("cql.data_center {name:?} must be a name without quotes");
            return refuse("cql.data_center", text);
        }
        if self.user.is_some() != self.password_file.is_some() {
            let text = "cql.user and cql.password_file are given together or not at all".to_owned();
            return refuse("cql.password_file", text);
        }
        if self.request_timeout.is_zero() || self.concurrency == 0 {
            let text = "cql.request_timeout and cql.concurrency must be more than 0".to_owned();
            return refuse("cql.request_timeout", text);
        }
        match &self.tls {
            Some(tls) if tls.cert_file.is_some() != tls.key_file.is_some() => {
                let text =
                    "cql.tls.cert_file and cql.tls.key_file are given together or not at all".to_owned();
                refuse("cql.tls.key_file", text)
            }
            _ => Ok(()),
        }
    }
}

/// Whether a keyspace may be so called without quotes; it is put into CQL text as it is.
fn is_name(name: &str) -> bool {
    name.len() <= KEYSPACE_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_value_is_named_by_its_key() {
        Config::default().validate().unwrap();
        let with = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.validate().unwrap_err().field().map(str::to_owned)
        };
        assert_eq!(with(|config| config.hosts.clear()).as_deref(), Some("cql.hosts"));
        for name in ["", "Weir", "1weir", "weir;drop", "w-r", &"w".repeat(49)] {
            let config = Config { keyspace: name.to_owned(), ..Config::default() };
            assert_eq!(config.validate().unwrap_err().field(), Some("cql.keyspace"), "{name}");
        }
        assert_eq!(with(|config| config.replication_factor = 0).as_deref(), Some("cql.replication_factor"));
        assert_eq!(with(|c| c.data_center = Some("a'b".to_owned())).as_deref(), Some("cql.data_center"));
        assert_eq!(with(|c| c.user = Some("weir".to_owned())).as_deref(), Some("cql.password_file"));
        assert_eq!(with(|config| config.concurrency = 0).as_deref(), Some("cql.request_timeout"));
        let tls = |config: &mut Config| {
            config.tls = Some(TlsConfig { cert_file: Some("cert".into()), ..TlsConfig::default() });
        };
        assert_eq!(with(tls).as_deref(), Some("cql.tls.key_file"));
    }
}
