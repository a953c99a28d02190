//! The whole configuration of `weir serve`: one section for each component, each declared by the component itself.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weir_config::{ByteSize, Durability, duration};
use weir_core::{Error, ErrorKind, Result};

/// Everything that can be configured. Each key can also be given as `WEIR__SECTION__KEY`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Where Weir listens.
    pub(crate) listen: Listen,
    /// Where the embedded engines keep their data.
    pub(crate) data: Data,
    /// The log that every reading and command goes through.
    pub(crate) log: Log,
    /// NATS JetStream, where `log.engine` is `nats`.
    pub(crate) nats: weir_log_nats::Config,
    /// Where everything else is kept.
    pub(crate) store: Store,
    /// ScyllaDB or Apache Cassandra, where `store.engine` is `cql`.
    pub(crate) cql: weir_store_scylla::Config,
    /// Where the other services are, for a process that does not run all of them.
    pub(crate) peers: Peers,
    /// Certificates of the gRPC listener, and this process's identity towards its peers.
    pub(crate) tls: Tls,
    /// Secrets for the hashes of tokens.
    pub(crate) auth: Auth,
    /// How the process ends.
    pub(crate) drain: Drain,
    /// What the process tells about itself.
    pub(crate) logs: weir_observability::Config,
    /// Tenants, tokens, profiles, devices.
    pub(crate) registry: weir_registry::Config,
    /// The device edge.
    pub(crate) ingest: weir_ingest::Config,
    /// Telemetry and queries.
    pub(crate) storage: weir_storage::Config,
    /// Rules, alarms and their actions.
    pub(crate) analytics: weir_analytics::Config,
    /// Commands.
    pub(crate) commands: weir_commands::Config,
}

impl Config {
    /// Whether engines and state are shared with other processes.
    ///
    /// # Errors
    /// `CONFIG_INVALID` where log and store are not of one kind.
    pub(crate) fn is_shared(&self) -> Result<bool> {
        match (self.log.engine, self.store.engine) {
            (LogEngine::Embedded, StoreEngine::Embedded) => Ok(false),
            (LogEngine::Nats, StoreEngine::Cql) => Ok(true),
            (log, store) => Err(Error::invalid(
                "store.engine",
                "CONFIG_INVALID",
                format!(
                    "log.engine is {log:?} and store.engine is {store:?}: give log.engine = \"nats\" with store.engine = \
                     \"cql\", or neither"
                )
                .to_lowercase(),
            )),
        }
    }

    /// Gives each service what it shares with the log: said once by the user, needed by all.
    pub(crate) fn share(&mut self) {
        let (partitions, keep) = (self.log.partitions, self.log.keep);
        self.ingest.partitions = partitions;
        self.ingest.durability = self.log.durability;
        self.storage.partitions = partitions;
        self.storage.keep = keep;
        self.analytics.partitions = partitions;
        self.commands.partitions = partitions;
        self.commands.log_keep = keep;
    }
}

/// Where Weir listens.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Listen {
    /// The address of every listener; loopback unless you say otherwise.
    #[schemars(with = "String")]
    pub(crate) address: IpAddr,
    /// MQTT 3.1.1 and 5 over TCP.
    pub(crate) mqtt_port: u16,
    /// The device API over HTTP.
    pub(crate) http_port: u16,
    /// The gRPC API.
    pub(crate) grpc_port: u16,
    /// `/livez`, `/readyz`, `/metrics`.
    pub(crate) admin_port: u16,
    /// gRPC connections at most; never more than a quarter of the files that the process may open. Past it the oldest
    /// that has made no call makes room.
    pub(crate) grpc_connections: usize,
    /// Allows listening off loopback without TLS: tokens and data then cross the network readable.
    pub(crate) insecure: bool,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            mqtt_port: 1883, // IANA's for MQTT
            http_port: 8080,
            grpc_port: 8081,
            admin_port: 8082,
            grpc_connections: 10_000, // as many as the services of a large site and its people hold open
            insecure: false,
        }
    }
}

impl Listen {
    /// Refuses to listen in the clear off loopback unless told to. `with_edge`: for devices too, which is always in the
    /// clear; `with_tls`: for gRPC with certificates.
    ///
    /// # Errors
    /// `PLAINTEXT_REFUSED` that names the key and the flag.
    pub(crate) fn check(&self, with_edge: bool, with_tls: bool) -> Result<()> {
        if self.address.is_loopback() || self.insecure || (with_tls && !with_edge) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::FailedPrecondition,
            "PLAINTEXT_REFUSED",
            format!(
                "listening on {} without TLS would show tokens and data to the network; give --insecure (listen.insecure = \
                 true) if something else protects it, or listen on 127.0.0.1",
                self.address
            ),
        )
        .with_field("listen.address"))
    }

    /// Bounds the gRPC connections by the files that this process may open, so that they never take those of devices.
    pub(crate) fn share(&mut self, files: u64) {
        let quarter = usize::try_from(files / 4).unwrap_or(usize::MAX).max(1);
        self.grpc_connections = self.grpc_connections.min(quarter);
    }

    /// The address of one port.
    pub(crate) fn socket(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }
}

/// Where the embedded engines keep their data.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Data {
    /// The directory; one process at a time.
    #[schemars(with = "String")]
    pub(crate) dir: PathBuf,
    /// Memory for cached blocks of the embedded store.
    pub(crate) cache: ByteSize,
}

impl Default for Data {
    fn default() -> Self {
        // 8 MiB hold the indexes of some hundred thousand readings; an idle process stays under 40 MB with it.
        Self { dir: PathBuf::from("weir-data"), cache: ByteSize::mib(8) }
    }
}

/// What carries the log, the signals and the leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogEngine {
    /// Files in `data.dir`, for one process.
    #[default]
    Embedded,
    /// NATS JetStream (section `nats`), for any number of processes.
    Nats,
}

/// What keeps telemetry and records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StoreEngine {
    /// Files in `data.dir`, for one process.
    #[default]
    Embedded,
    /// ScyllaDB or Apache Cassandra (section `cql`), for any number of processes.
    Cql,
}

/// Where everything else is kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Store {
    /// `embedded`, or `cql` (section `cql`). Log and store are embedded both, or neither.
    pub(crate) engine: StoreEngine,
}

/// Where the other services are: gRPC addresses such as `http://127.0.0.1:8081` or `https://registry:8081`. A name that
/// resolves to many addresses is all of them; calls are shared out over them.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Peers {
    /// Registry.
    pub(crate) registry: Vec<String>,
    /// Commands.
    pub(crate) commands: Vec<String>,
    /// Storage.
    pub(crate) storage: Vec<String>,
    /// Analytics; only for calls of users that this process hands on.
    pub(crate) analytics: Vec<String>,
    /// Ingest; only for calls of users that this process hands on.
    pub(crate) ingest: Vec<String>,
    /// Allows `http://` to a peer off loopback: tokens and data then cross the network readable.
    pub(crate) insecure: bool,
}

impl Peers {
    /// Every service and its addresses.
    pub(crate) fn named(&self) -> [(&'static str, &Vec<String>); 5] {
        [
            ("registry", &self.registry),
            ("commands", &self.commands),
            ("storage", &self.storage),
            ("analytics", &self.analytics),
            ("ingest", &self.ingest),
        ]
    }

    /// Refuses to cross a network in the clear unless told to.
    ///
    /// # Errors
    /// `PLAINTEXT_REFUSED` that names the key.
    pub(crate) fn check(&self) -> Result<()> {
        let plaintext = self.named().into_iter().find_map(|(name, addresses)| {
            let address = addresses.iter().find(|address| is_plaintext_off_loopback(address))?;
            Some((name, address))
        });
        let Some((name, address)) = plaintext.filter(|_| !self.insecure) else { return Ok(()) };
        let message = format!(
            "peers.{name} has {address}, which would show tokens and data to the network; use https with section tls, or \
             set peers.insecure = true if something else protects it"
        );
        Err(Error::new(ErrorKind::FailedPrecondition, "PLAINTEXT_REFUSED", message)
            .with_field(format!("peers.{name}")))
    }
}

/// A name other than `localhost` is taken for one off loopback: what it resolves to may change.
fn is_plaintext_off_loopback(address: &str) -> bool {
    let address = address.to_ascii_lowercase();
    let Some(authority) = address.strip_prefix("http://") else { return false };
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host != "localhost" && !host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Certificates of the gRPC listener, and this process's identity towards its peers.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tls {
    /// The certificate chain of this process, PEM.
    #[schemars(with = "Option<String>")]
    pub(crate) cert_file: Option<PathBuf>,
    /// Its private key, PEM.
    #[schemars(with = "Option<String>")]
    pub(crate) key_file: Option<PathBuf>,
    /// The authority that signs the certificates of all services, PEM.
    #[schemars(with = "Option<String>")]
    pub(crate) ca_file: Option<PathBuf>,
}

impl Tls {
    /// The three files, or none.
    ///
    /// # Errors
    /// `CONFIG_INVALID` where some are given and some are not.
    pub(crate) fn files(&self) -> Result<Option<[&Path; 3]>> {
        match (&self.cert_file, &self.key_file, &self.ca_file) {
            (Some(cert), Some(key), Some(ca)) => Ok(Some([cert, key, ca])),
            (None, None, None) => Ok(None),
            _ => Err(Error::invalid(
                "tls",
                "CONFIG_INVALID",
                "tls.cert_file, tls.key_file and tls.ca_file belong together: give all three, or none",
            )),
        }
    }
}

/// The log that every reading and command goes through.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// `embedded`, or `nats` (section `nats`). Log and store are embedded both, or neither.
    pub(crate) engine: LogEngine,
    /// What an acknowledgement survives: `power-loss` or `process`.
    pub(crate) durability: Durability,
    /// How many partitions each stream has, 1 to 4,096; fixed at the first start.
    #[schemars(range(min = 1, max = 4096))]
    pub(crate) partitions: u16,
    /// How long frames are kept after every reader is done with them, for live tails and repairs.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub(crate) keep: Duration,
    /// At this size of a stream the log refuses (and never forgets).
    pub(crate) max_bytes: ByteSize,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            engine: LogEngine::Embedded,
            durability: Durability::PowerLoss,
            partitions: 16, // enough for sixteen owners of each reader; few enough to keep frames full on one box
            keep: Duration::from_secs(3_600),
            max_bytes: ByteSize::gib(8), // about a day of 1,000 readings/s with the store away
        }
    }
}

/// Secrets for the hashes of tokens.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Auth {
    /// A file that `weir init` made: one pepper a line, the first for new tokens, the rest for old ones. Required by
    /// `weir serve`.
    #[schemars(with = "Option<String>")]
    pub(crate) pepper_file: Option<PathBuf>,
    /// A file with the key by which services know each other where there is no TLS between them; `weir init` makes one.
    #[schemars(with = "Option<String>")]
    pub(crate) service_key_file: Option<PathBuf>,
}

/// How the process ends.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Drain {
    /// How long it stays up after it says not ready, so that load balancers look elsewhere first.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub(crate) endpoint_delay: Duration,
    /// How long the rest may take.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub(crate) deadline: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        // 0 where nothing balances load; 15 s so that the whole end stays under 20 s, less than Kubernetes' 30.
        Self { endpoint_delay: Duration::ZERO, deadline: Duration::from_secs(15) }
    }
}

/// The JSON Schema of the configuration, with every default: what `docs/configuration.md` is made from.
///
/// # Errors
/// `Internal` where it cannot be written.
pub(crate) fn schema() -> Result<String> {
    let failed = |source| Error::internal("cannot write the schema").with_source(source);
    let mut schema = serde_json::to_value(schemars::schema_for!(Config)).map_err(failed)?;
    if let Some(object) = schema.as_object_mut() {
        object.insert("defaults".to_owned(), serde_json::to_value(Config::default()).map_err(failed)?);
    }
    serde_json::to_string_pretty(&schema).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_in_the_clear_is_refused_off_loopback_by_its_key() {
        let peers = |address: &str| Peers { storage: vec![address.to_owned()], ..Peers::default() };
        for near in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://storage:8081"] {
            assert!(peers(near).check().is_ok(), "{near}");
        }
        for far in [
            "http://storage:8081",
            "HTTP://storage:8081",
            "http://10.1.2.3:8081",
            "http://localhost.example.com:1",
        ] {
            assert_eq!(peers(far).check().unwrap_err().field(), Some("peers.storage"), "{far}");
            assert!(Peers { insecure: true, ..peers(far) }.check().is_ok());
        }
    }

    #[test]
    fn log_and_store_are_shared_both_or_neither() {
        let mut config = Config::default();
        assert!(!config.is_shared().unwrap());
        config.log.engine = LogEngine::Nats;
        assert_eq!(config.is_shared().unwrap_err().field(), Some("store.engine"));
        config.store.engine = StoreEngine::Cql;
        assert!(config.is_shared().unwrap());
    }

    #[test]
    fn certificates_are_given_whole_or_not_at_all() {
        let mut tls = Tls::default();
        assert!(tls.files().unwrap().is_none());
        tls.cert_file = Some("a".into());
        assert!(tls.files().is_err());
        (tls.key_file, tls.ca_file) = (Some("b".into()), Some("c".into()));
        assert!(tls.files().unwrap().is_some());
    }
}
