//! Which endpoints a peer has: names resolved again and again, addresses tried, certificates read again when they change.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use http::Uri;
use tokio::{
    net::{TcpStream, lookup_host},
    sync::{Notify, watch},
    time::timeout,
};
use tonic::transport::{ClientTlsConfig, Endpoint, channel::Change};
use weir_core::{Error, ErrorKind, Result};
use weir_grpc::tls::{Pems, Watched};

use super::{Changes, Identity};

/// Names are resolved, addresses tried and files looked at so often: what changes is seen within the time that a person
/// waits, at a cost of nothing.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// So often where nobody was reached: a service that starts is found when it listens.
const LOOK_EVERY_UNREACHED: Duration = Duration::from_millis(200);
/// Looks that calls ask for are no closer than this.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// A resolver answers, or asks the next server, within this.
const RESOLVE_MAX: Duration = Duration::from_secs(5);
/// An address that takes longer is as good as away.
const TRY_MAX: Duration = Duration::from_secs(2);
/// Addresses tried at once.
const TRY_WIDTH: usize = 32;
/// More processes of one service than a Weir has; the rest is left out.
const ENDPOINTS_MAX: usize = 256;
/// With TLS.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A process that answers no ping for this long is gone: its calls fail then, and go elsewhere.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_MAX: Duration = Duration::from_secs(5);

/// One address as it was configured.
#[derive(Debug, Clone)]
pub(super) struct Target {
    uri: Uri,
    host: Arc<str>,
    port: u16,
}

impl Target {
    /// # Errors
    /// `PEER_ADDRESS_INVALID`.
    pub(super) fn parse(address: &str, identity: &Identity) -> Result<Self> {
        let (scheme, port) = match identity {
            Identity::Certificate { .. } => ("https", 443),
            Identity::Key(_) => ("http", 80),
        };
        let invalid = |what: &str| {
            let message = format!("{address:?} {what}; expected such as {scheme}://127.0.0.1:8081");
            Error::new(ErrorKind::InvalidArgument, "PEER_ADDRESS_INVALID", message)
        };
        let uri: Uri = address.parse().map_err(|_| invalid("is no address"))?;
        match (uri.scheme_str(), identity) {
            (Some(found), _) if found == scheme => {}
            (Some("http"), Identity::Certificate { .. }) => {
                return Err(invalid("has no TLS, and a certificate is what peers know this process by"));
            }
            (Some("https"), Identity::Key(_)) => {
                return Err(invalid("has TLS, and this process has no certificate (tls.cert_file)"));
            }
            _ => return Err(invalid("is no address")),
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| invalid("has no host"))?;
        if !matches!(uri.path_and_query().map_or("", |path| path.as_str()), "" | "/") {
            return Err(invalid("has a path"));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').into();
        Ok(Self { host, port: uri.port_u16().unwrap_or(port), uri })
    }
}

/// TLS to the peers.
struct Tls {
    watched: Watched,
    server_name: Option<String>,
}

impl Tls {
    /// Reads the files again if they changed.
    fn renew(&mut self, name: &str) -> bool {
        match self.watched.renew(check) {
            Ok(renewed) => {
                if renewed {
                    tracing::info!(peer = name, "new certificates are in use");
                }
                renewed
            }
            Err(error) => {
                tracing::warn!(peer = name, error = %error, "certificates changed and cannot be used; the old ones stay");
                false
            }
        }
    }

    fn config(&self, host: &str) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .ca_certificate(self.watched.pems().authority())
            .identity(self.watched.pems().identity())
            .domain_name(self.server_name.as_deref().unwrap_or(host))
            .timeout(CONNECT_MAX)
    }
}

/// Whether TLS can be made of them.
fn check(pems: &Pems) -> Result<()> {
    let config = ClientTlsConfig::new().ca_certificate(pems.authority()).identity(pems.identity());
    Endpoint::from_static("https://localhost").tls_config(config).map(drop).map_err(|source| {
        let message = "the certificate, its key or the authority cannot be used";
        Error::new(ErrorKind::FailedPrecondition, "TLS_FILE_INVALID", message).with_source(source)
    })
}

/// The endpoints of one peer.
pub(super) struct Endpoints {
    name: &'static str,
    targets: Vec<Target>,
    tls: Option<Tls>,
    changes: Changes,
    /// The addresses that each target had when it was last resolved.
    resolved: Vec<Vec<SocketAddr>>,
    /// Those that calls go to.
    used: BTreeSet<SocketAddr>,
}

impl Endpoints {
    /// # Errors
    /// Those of the identity's files.
    pub(super) fn new(
        name: &'static str,
        targets: Vec<Target>,
        identity: &Identity,
        changes: Changes,
    ) -> Result<Self> {
        let tls = match identity {
            Identity::Key(_) => None,
            Identity::Certificate { files, server_name } => {
                let watched = Watched::new(files.clone(), check)?;
                Some(Tls { watched, server_name: server_name.clone() })
            }
        };
        let resolved = vec![Vec::new(); targets.len()];
        Ok(Self { name, targets, tls, changes, resolved, used: BTreeSet::new() })
    }

    /// Looks until nobody needs it, and tells how many were reached.
    pub(super) async fn keep(mut self, tell: watch::Sender<Option<usize>>, asked: Arc<Notify>) {
        loop {
            let reached = self.look().await;
            let before = tell.send_replace(Some(reached));
            match (before, reached) {
                (None | Some(1..), 0) => tracing::warn!(peer = self.name, "peer cannot be reached"),
                (None | Some(0), 1..) => tracing::info!(peer = self.name, reached, "peer reached"),
                _ => {}
            }
            let every = if reached == 0 { LOOK_EVERY_UNREACHED } else { LOOK_EVERY };
            let asked = async {
                tokio::time::sleep(LOOK_PAUSE).await;
                asked.notified().await;
            };
            drop(timeout(every, asked).await); // either way it is time
        }
    }

    async fn look(&mut self) -> usize {
        self.resolve().await;
        let renewed = self.tls.as_mut().is_some_and(|tls| tls.renew(self.name));
        let mut known = BTreeMap::new();
        for (target, addresses) in self.targets.iter().zip(&self.resolved) {
            for address in addresses {
                if known.len() < ENDPOINTS_MAX {
                    known.entry(*address).or_insert_with(|| target.clone());
                }
            }
        }
        let tried = stream::iter(known).map(|(address, target)| async move {
            let connected = timeout(TRY_MAX, TcpStream::connect(address)).await;
            matches!(connected, Ok(Ok(_))).then_some((address, target))
        });
        let reached: BTreeMap<SocketAddr, Target> =
            tried.buffer_unordered(TRY_WIDTH).filter_map(async |reached| reached).collect().await;
        for (address, target) in &reached {
            if renewed || !self.used.contains(address) {
                match self.endpoint(*address, target) {
                    Ok(endpoint) => self.change(Change::Insert(*address, endpoint)).await,
                    Err(error) => {
                        tracing::error!(peer = self.name, error = ?error, "an endpoint cannot be used")
                    }
                }
            }
        }
        let used: BTreeSet<_> = reached.into_keys().collect();
        for gone in self.used.difference(&used) {
            self.change(Change::Remove(*gone)).await;
        }
        self.used = used;
        self.used.len()
    }

    /// Resolves every name. One that the resolver does not answer for keeps its addresses: names fail more often than
    /// processes move.
    async fn resolve(&mut self) {
        for (target, resolved) in self.targets.iter().zip(&mut self.resolved) {
            match timeout(RESOLVE_MAX, lookup_host((&*target.host, target.port))).await {
                Ok(Ok(addresses)) => *resolved = addresses.take(ENDPOINTS_MAX).collect(),
                Ok(Err(error)) => {
                    tracing::debug!(peer = self.name, host = &*target.host, error = %error, "a name was not resolved");
                }
                Err(_) => {
                    tracing::debug!(peer = self.name, host = &*target.host, "the resolver does not answer")
                }
            }
        }
    }

    async fn change(&self, change: Change<SocketAddr, Endpoint>) {
        // The other end is in the channel of the peer, which ends this task when it goes.
        drop(self.changes.send(change).await);
    }

    fn endpoint(&self, address: SocketAddr, target: &Target) -> Result<Endpoint, tonic::transport::Error> {
        let scheme = target.uri.scheme_str().unwrap_or_default();
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?
            .origin(target.uri.clone())
            .connect_timeout(CONNECT_MAX)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_MAX)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        match &self.tls {
            Some(tls) => endpoint.tls_config(tls.config(&target.host)),
            None => Ok(endpoint),
        }
    }
}
