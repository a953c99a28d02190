//! The section `nats` of the configuration.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weir_core::{Error, Result};

/// NATS JetStream, where `log.engine` is `nats`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Addresses of servers, `nats://host:4222` or `tls://host:4222`; further ones are learned from the cluster.
    pub servers: Vec<String>,
    /// Begins the names of all streams, buckets and subjects, so that several Weirs can share one account: 1 to 32 of
    /// `[a-z0-9-]`.
    pub prefix: String,
    /// On how many servers each stream is kept: 1, 3 or 5. Streams that exist are raised to it, never lowered.
    pub replicas: u8,
    /// Declares that every server has `jetstream { sync_interval: always }`. A client cannot read that setting; with
    /// `log.durability = "power-loss"` it is required.
    pub sync_always: bool,
    /// User name; needs `password_file`.
    pub user: Option<String>,
    /// File with the password of `user`.
    pub password_file: Option<PathBuf>,
    /// File with a token.
    pub token_file: Option<PathBuf>,
    /// File with the seed of an nkey user.
    pub nkey_file: Option<PathBuf>,
    /// Credentials file (JWT and seed), as `nsc` writes it.
    pub creds_file: Option<PathBuf>,
    /// Certificates of the authorities that sign the servers' certificates (PEM); without it those of the system.
    pub ca_file: Option<PathBuf>,
    /// Certificate that shows the servers who this is (PEM); needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// Private key of `cert_file` (PEM).
    pub key_file: Option<PathBuf>,
    /// How long one publish or question may take before it is told as failed.
    #[serde(with = "weir_config::duration")]
    #[schemars(with = "String")]
    pub request_timeout: Duration,
    /// How long a start waits for a bus that is not there yet.
    #[serde(with = "weir_config::duration")]
    #[schemars(with = "String")]
    pub connect_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            servers: vec!["nats://127.0.0.1:4222".to_owned()],
            prefix: "weir".to_owned(),
            replicas: 1,
            sync_always: false,
            user: None,
            password_file: None,
            token_file: None,
            nkey_file: None,
            creds_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            // An election takes 4 to 9 s.
            request_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// Checks what no type can say.
    ///
    /// # Errors
    /// `CONFIG_INVALID` that names the key and what it may be.
    pub fn check(&self) -> Result<()> {
        let alphabet = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.servers.is_empty() {
            return Err(invalid("nats.servers", "must name at least one server"));
        }
        if self.servers.iter().any(|server| server.contains('@')) {
            let text = "must not hold a password; use nats.user with nats.password_file, or nats.token_file";
            return Err(invalid("nats.servers", text));
        }
        if self.prefix.is_empty() || self.prefix.len() > 32 || !self.prefix.bytes().all(alphabet) {
            return Err(invalid("nats.prefix", "must be 1 to 32 characters of [a-z0-9-]"));
        }
        if !matches!(self.replicas, 1 | 3 | 5) {
            return Err(invalid("nats.replicas", "must be 1, 3 or 5"));
        }
        if self.user.is_some() != self.password_file.is_some() {
            return Err(invalid("nats.user", "and nats.password_file must be given together"));
        }
        if self.cert_file.is_some() != self.key_file.is_some() {
            return Err(invalid("nats.cert_file", "and nats.key_file must be given together"));
        }
        let identities = [&self.password_file, &self.token_file, &self.nkey_file, &self.creds_file];
        if identities.into_iter().flatten().count() > 1 {
            let text = "and nats.token_file, nats.nkey_file, nats.creds_file exclude each other";
            return Err(invalid("nats.password_file", text));
        }
        let range = Duration::from_millis(100)..=Duration::from_secs(600);
        if !range.contains(&self.request_timeout) {
            return Err(invalid("nats.request_timeout", "must be 100ms to 10m"));
        }
        Ok(())
    }
}

fn invalid(key: &str, text: &str) -> Error {
    Error::invalid(key, "CONFIG_INVALID", format!("{key} {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_key() {
        let ok = Config::default();
        ok.check().unwrap();
        let file = || Some(PathBuf::from("f"));
        for (config, key) in [
            (Config { servers: vec![], ..ok.clone() }, "nats.servers"),
            (Config { servers: vec!["nats://a:b@host".to_owned()], ..ok.clone() }, "nats.servers"),
            (Config { prefix: "a.b".to_owned(), ..ok.clone() }, "nats.prefix"),
            (Config { prefix: String::new(), ..ok.clone() }, "nats.prefix"),
            (Config { replicas: 2, ..ok.clone() }, "nats.replicas"),
            (Config { user: Some("u".to_owned()), ..ok.clone() }, "nats.user"),
            (Config { cert_file: file(), ..ok.clone() }, "nats.cert_file"),
            (Config { token_file: file(), nkey_file: file(), ..ok.clone() }, "nats.password_file"),
            (Config { request_timeout: Duration::ZERO, ..ok.clone() }, "nats.request_timeout"),
        ] {
            let error = config.check().unwrap_err();
            assert_eq!((error.reason(), error.field()), ("CONFIG_INVALID", Some(key)), "{error}");
        }
    }
}
