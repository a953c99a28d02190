//! The services that run in other processes, as this one reaches them.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use weir_clients::{CachedRegistry, CommandsClient, Gateway, Identity, Peer, RegistryClient, StorageClient};
use weir_core::{
    Clock, Error, ErrorKind, Result,
    port::{Registry, Signals},
};
use weir_grpc::{ServiceKey, tls};

use crate::config::{Auth, Config};

/// Peers by the name of their service; made when they are asked for first.
pub(crate) struct Peers {
    addresses: BTreeMap<&'static str, Vec<String>>,
    identity: Option<Identity>,
    made: BTreeMap<&'static str, Peer>,
}

impl Peers {
    /// What the configuration says of other processes.
    ///
    /// # Errors
    /// `CONFIG_INVALID`; `PLAINTEXT_REFUSED` for an address off loopback without TLS; those of the files.
    pub(crate) fn new(config: &Config) -> Result<Self> {
        config.peers.check()?;
        let addresses = config.peers.named().map(|(name, addresses)| (name, addresses.clone())).into();
        Ok(Self { addresses, identity: identity(config)?, made: BTreeMap::new() })
    }

    /// The registry, with what is remembered of its answers.
    ///
    /// # Errors
    /// As of [`Peers::peer`].
    pub(crate) async fn registry(
        &mut self,
        signals: Arc<dyn Signals>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<dyn Registry>> {
        let client = RegistryClient::new(self.peer("registry")?);
        Ok(CachedRegistry::start(Arc::new(client), signals, clock).await)
    }

    /// Commands.
    ///
    /// # Errors
    /// As of [`Peers::peer`].
    pub(crate) fn commands(&mut self) -> Result<Arc<CommandsClient>> {
        Ok(Arc::new(CommandsClient::new(self.peer("commands")?)))
    }

    /// Storage.
    ///
    /// # Errors
    /// As of [`Peers::peer`].
    pub(crate) fn storage(&mut self) -> Result<Arc<StorageClient>> {
        Ok(Arc::new(StorageClient::new(self.peer("storage")?)))
    }

    /// Hands on calls of users for the services that this process does not run and that have an address.
    ///
    /// # Errors
    /// As of [`Peers::peer`].
    pub(crate) fn gateway(&mut self, here: &[&str]) -> Result<Gateway> {
        let elsewhere: Vec<_> = self
            .addresses
            .iter()
            .filter(|(name, addresses)| !here.contains(name) && !addresses.is_empty())
            .map(|(name, _)| *name)
            .collect();
        let mut peers = Vec::with_capacity(elsewhere.len());
        for name in elsewhere {
            peers.push((package(name), self.peer(name)?));
        }
        Ok(Gateway::new(peers))
    }

    /// One of them.
    ///
    /// # Errors
    /// `PEER_MISSING` where it has no address, or this process nothing to be known by; those of [`Peer::new`].
    fn peer(&mut self, name: &'static str) -> Result<Peer> {
        if let Some(peer) = self.made.get(name) {
            return Ok(peer.clone());
        }
        let missing = |key: String, message: String| {
            Err(Error::new(ErrorKind::FailedPrecondition, "PEER_MISSING", message).with_field(key))
        };
        let addresses = self.addresses.get(name).map(Vec::as_slice).unwrap_or_default();
        if addresses.is_empty() {
            let key = format!("peers.{name}");
            let message = format!(
                "{name} runs in another process, and {key} does not say where; for example {key} = \
                                   [\"http://127.0.0.1:8081\"]"
            );
            return missing(key, message);
        }
        let Some(identity) = &self.identity else {
            let message = "services know each other by certificates (section tls) or, on loopback, by a key \
                           (auth.service_key_file); `weir init` makes either";
            return missing("auth.service_key_file".to_owned(), message.to_owned());
        };
        let peer = Peer::new(name, addresses, identity)?;
        self.made.insert(name, peer.clone());
        Ok(peer)
    }
}

/// The package of a service's public contracts.
fn package(name: &str) -> &'static str {
    match name {
        "registry" => "weir.registry.v1",
        "commands" => "weir.commands.v1",
        "storage" => "weir.storage.v1",
        "analytics" => "weir.analytics.v1",
        _ => "weir.ingest.v1",
    }
}

/// Who this process is to others: by certificate where it has one, else by the key.
fn identity(config: &Config) -> Result<Option<Identity>> {
    if let Some(files) = tls_files(config)? {
        return Ok(Some(Identity::Certificate { files, server_name: None }));
    }
    Ok(service_key(&config.auth)?.map(Identity::Key))
}

/// The files of TLS, where it is configured.
///
/// # Errors
/// `CONFIG_INVALID` where some are given and some are not.
pub(crate) fn tls_files(config: &Config) -> Result<Option<tls::Files>> {
    let files = config.tls.files()?;
    Ok(files.map(|[cert, key, ca]| {
        let [cert, key, ca] = [cert, key, ca].map(PathBuf::from);
        tls::Files { cert, key, ca }
    }))
}

/// The key by which services know each other, where it is configured.
///
/// # Errors
/// `SERVICE_KEY_MISSING` where the file cannot be read; `SERVICE_KEY_INVALID`.
pub(crate) fn service_key(auth: &Auth) -> Result<Option<ServiceKey>> {
    let Some(file) = &auth.service_key_file else { return Ok(None) };
    let text = std::fs::read_to_string(file).map_err(|source| {
        let message =
            format!("cannot read the service key file {}: {source}; `weir init` makes one", file.display());
        Error::new(ErrorKind::FailedPrecondition, "SERVICE_KEY_MISSING", message)
            .with_field("auth.service_key_file")
    })?;
    ServiceKey::parse(&text).map(Some)
}
