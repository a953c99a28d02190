//! Another service of this Weir, wherever its processes are.
//!
//! A peer has one or more addresses. Every name is resolved again every few seconds, and each address it has then is one
//! endpoint; a call goes to the less busy of two that were reached last (power of two choices; Mitzenmacher 2001). A peer
//! that is not there is no error of the start: its calls are `Unavailable` until it is.
//!
//! Every call has a deadline, which the peer is told. What fails before the peer has answered is tried again within it, a
//! few times and within a budget for all calls, so that a peer that is down is not held down by those who wait for it.
//! That is right because every method of the call ports may be repeated: those of [`weir_core::port::Registry`] and
//! [`weir_core::port::TelemetryReader`] only read; a Send is known by its request id; of two attaches only the epoch of
//! the last answer is used; of two detaches the one that ends earlier counts; and what was sent, delivered or answered
//! once more is so already.
//!
//! Rejected: proxies beside each process, since they are one more thing to run; a stream of health checks, since it tells
//! no more than a connection that answers pings.

mod call;
mod endpoints;

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
};
use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use tower::retry::budget::TpsBudget;
use weir_core::{Error, ErrorKind, Result};
use weir_grpc::{ServiceKey, tls};

use self::endpoints::{Endpoints, Target};

/// Changes of endpoints that wait to be seen by the next call: a service has fewer processes.
const CHANGES: usize = 1_024;
/// How long what was tried counts for the budget of retries.
const BUDGET_TTL: Duration = Duration::from_secs(10);
/// Retries a second that are always there, so that a process with few calls has some.
const BUDGET_MIN: u32 = 10;
/// Retries for each call: more would double the load of a peer that is coming back.
const BUDGET_SHARE: f32 = 0.2;

/// Who this process is to its peers.
#[derive(Debug, Clone)]
pub enum Identity {
    /// A service by its certificate: over TLS, for addresses with `https`.
    Certificate {
        /// The certificate, and the authority that those of the peers are of. Read again when they change.
        files: tls::Files,
        /// The name in the peers' certificates, where it is another than the one in the address.
        server_name: Option<String>,
    },
    /// A service by the key that all of them share: without TLS, for addresses with `http`.
    Key(ServiceKey),
}

/// Another service. Cheap to clone; its connections end with the last clone.
#[derive(Clone)]
pub struct Peer {
    inner: Arc<Inner>,
}

struct Inner {
    name: &'static str,
    addresses: String,
    channel: Channel,
    authorization: Option<MetadataValue<Ascii>>,
    /// How many endpoints were reached by the last look; none before the first.
    reached: watch::Receiver<Option<usize>>,
    /// Asks for a look now.
    look: Arc<Notify>,
    budget: TpsBudget,
    looking: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

impl Peer {
    /// The service `name` at `addresses` (`http://host:port` or `https://host:port`), to which this process is `identity`.
    /// Called within a runtime; returns before anything is resolved.
    ///
    /// # Errors
    /// `PEER_ADDRESS_INVALID` for what is no address, or of another scheme than the identity needs; `TLS_FILE_UNREADABLE`
    /// and `TLS_FILE_INVALID` for the files of the identity.
    pub fn new(name: &'static str, addresses: &[String], identity: &Identity) -> Result<Self> {
        let targets = addresses
            .iter()
            .map(|address| Target::parse(address, identity))
            .collect::<Result<Vec<_>>>()
            .map_err(|error| error.with_field(format!("peers.{name}")))?;
        if targets.is_empty() {
            let message = format!("{name} has no address");
            return Err(Error::invalid(format!("peers.{name}"), "PEER_ADDRESS_INVALID", message));
        }
        let authorization = match identity {
            Identity::Certificate { .. } => None,
            Identity::Key(key) => Some(bearer(key)?),
        };
        let (channel, changes) = Channel::balance_channel(CHANGES);
        let (tell, reached) = watch::channel(None);
        let look = Arc::new(Notify::new());
        let endpoints = Endpoints::new(name, targets, identity, changes)?;
        let looking = tokio::spawn(endpoints.keep(tell, Arc::clone(&look)));
        let inner = Inner {
            name,
            addresses: addresses.join(", "),
            channel,
            authorization,
            reached,
            look,
            budget: TpsBudget::new(BUDGET_TTL, BUDGET_MIN, BUDGET_SHARE),
            looking,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The service's name.
    pub fn name(&self) -> &'static str {
        self.inner.name
    }

    /// Waits until the service was reached.
    ///
    /// # Errors
    /// `Unavailable` where it was not within `patience`.
    pub async fn wait_ready(&self, patience: Duration) -> Result<()> {
        let mut reached = self.inner.reached.clone();
        let waiting = reached.wait_for(|reached| reached.is_some_and(|reached| reached > 0));
        match tokio::time::timeout(patience, waiting).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.unreachable("nobody answers there")),
        }
    }

    /// Checks that the service was reached by the last look, of which there is one at least.
    async fn reached(&self) -> Result<()> {
        let mut reached = self.inner.reached.clone();
        let known =
            reached.wait_for(Option::is_some).await.is_ok_and(|reached| reached.is_some_and(|n| n > 0));
        if known {
            return Ok(());
        }
        self.inner.look.notify_one();
        Err(self.unreachable("nobody answers there"))
    }

    fn unreachable(&self, why: &str) -> Error {
        let Inner { name, addresses, .. } = &*self.inner;
        let message = format!("{name} cannot be reached at {addresses}: {why}");
        Error::new(ErrorKind::Unavailable, "PEER_UNREACHABLE", message)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("name", &self.inner.name)
            .field("addresses", &self.inner.addresses)
            .finish_non_exhaustive()
    }
}

fn bearer(key: &ServiceKey) -> Result<MetadataValue<Ascii>> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", key.reveal())
        .parse()
        .map_err(|_| Error::internal("a service key cannot be put into a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

type Changes =
    mpsc::Sender<tonic::transport::channel::Change<std::net::SocketAddr, tonic::transport::Endpoint>>;
