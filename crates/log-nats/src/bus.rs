//! One process on the bus.

use std::sync::Arc;

use async_nats::jetstream;
use tokio::sync::watch;
use weir_config::{ByteSize, Durability};
use weir_core::{
    Error, ErrorKind, Result, Stream,
    port::{Leases, Log, Signals},
};

use crate::{
    api::Api,
    config::Config,
    connect::{self, Link},
    handle::Handle,
    leases::NatsLeases,
    log::NatsLog,
    reconcile,
    signals::NatsSignals,
};

/// Limit markers, which tell watchers of a lease that it expired, came with this server version.
const SERVER_MIN: (i64, i64, i64) = (2, 11, 0);
/// The largest frame is under 768 KiB; this leaves room for its subject and headers.
const PAYLOAD_MIN: usize = 800 * 1024;

/// What the whole of Weir asks of the bus, whatever engine it is.
#[derive(Debug, Clone)]
pub struct Options {
    /// Partitions of each stream.
    pub partitions: u16,
    /// What an acknowledged record survives.
    pub durability: Durability,
    /// The size at which each stream refuses.
    pub max_bytes: ByteSize,
    /// What this process is called in the servers' lists of connections, and in views of leases.
    pub client: String,
}

/// What the ports share: a connection and what was agreed on.
pub(crate) struct Shared {
    pub(crate) api: Api,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) config: Config,
    pub(crate) options: Options,
    pub(crate) link: watch::Receiver<Link>,
}

impl Shared {
    /// The name of a stream on the bus.
    pub(crate) fn stream_name(&self, stream: Stream) -> String {
        format!("{}_{stream}", self.config.prefix)
    }

    /// Begins the subjects of a stream's partitions.
    pub(crate) fn subject_of(&self, stream: Stream, partition: impl std::fmt::Display) -> String {
        format!("{}.log.{stream}.{partition}", self.config.prefix)
    }
}

/// A connection to the bus, with everything there that Weir needs.
pub struct Bus {
    shared: Arc<Shared>,
    log: Arc<NatsLog>,
    signals: Arc<NatsSignals>,
    leases: Arc<NatsLeases>,
}

impl Bus {
    /// Connects, and makes what is missing on the bus; any number of processes may do so at the same time.
    ///
    /// # Errors
    /// `Unavailable` where no server answers within [`Config::connect_timeout`]; `InvalidArgument` of the configuration;
    /// `FailedPrecondition` where the bus cannot keep a promise: it is too old (`BUS_TOO_OLD`), its `max_payload` is too
    /// small (`BUS_PAYLOAD_TOO_SMALL`), it refuses the credentials (`BUS_REFUSES_CREDENTIALS`), it has no JetStream
    /// (`BUS_WITHOUT_JETSTREAM`), a stream exists with other settings (`BUS_STREAM_UNSUITABLE`) or its subjects belong to
    /// another one (`BUS_SUBJECTS_TAKEN`), or power-loss durability is asked for and not declared (`BUS_NOT_SYNCED`).
    pub async fn connect(config: &Config, options: Options) -> Result<Self> {
        config.check()?;
        check_durability(config, options.durability)?;
        let (client, link) = connect::connect(config, &options.client).await?;
        check_server(&client)?;
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(config.request_timeout);
        let api = Api::new(client, config.request_timeout);
        let shared = Arc::new(Shared { api, jetstream, config: config.clone(), options, link });
        for stream in Stream::ALL {
            reconcile::stream(&shared, stream).await?;
        }
        reconcile::leases(&shared).await?;
        let handles = Stream::ALL.map(|stream| Arc::new(Handle::new(Arc::clone(&shared), stream)));
        Ok(Self {
            log: Arc::new(NatsLog::new(Arc::clone(&shared), handles)),
            signals: Arc::new(NatsSignals::new(Arc::clone(&shared))),
            leases: Arc::new(NatsLeases::new(Arc::clone(&shared))),
            shared,
        })
    }

    /// The log.
    pub fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.log) as Arc<dyn Log>
    }

    /// The signals.
    pub fn signals(&self) -> Arc<dyn Signals> {
        Arc::clone(&self.signals) as Arc<dyn Signals>
    }

    /// The leases.
    pub fn leases(&self) -> Arc<dyn Leases> {
        Arc::clone(&self.leases) as Arc<dyn Leases>
    }

    /// Which durability is in force, and how that is known.
    pub fn detail(&self) -> String {
        let config = &self.shared.config;
        let durability = match (self.shared.options.durability, config.sync_always) {
            (Durability::PowerLoss, _) => {
                "power-loss: file storage and synchronous persistence as the streams say, sync_interval always as \
                 nats.sync_always declares (no client can read it)"
            }
            (Durability::Process, true) => {
                "process was asked for; power-loss is given where nats.sync_always declares the truth"
            }
            (Durability::Process, false) => {
                "process: file storage as the streams say; sync_interval is not declared to be always, so a power cut of \
                 all replicas may lose the newest records"
            }
        };
        format!("nats, {} replicas, {durability}", config.replicas)
    }
}

/// A client can read neither `sync_interval` nor `varz`: they belong to the server's configuration and to the system account.
fn check_durability(config: &Config, durability: Durability) -> Result<()> {
    if durability == Durability::Process || config.sync_always {
        return Ok(());
    }
    let text = "log.durability is power-loss, which needs `jetstream { sync_interval: always }` on every NATS server; no \
                client can read that setting, so it must be declared: set it on the servers and then nats.sync_always = \
                true, or accept that a power cut may lose acknowledged readings with log.durability = \"process\"";
    Err(Error::new(ErrorKind::FailedPrecondition, "BUS_NOT_SYNCED", text).with_field("nats.sync_always"))
}

fn check_server(client: &async_nats::Client) -> Result<()> {
    let info = client.server_info();
    let (major, minor, patch) = SERVER_MIN;
    if !client.is_server_compatible(major, minor, patch) {
        let text = format!("the bus is nats-server {}, and must be {major}.{minor} or newer", info.version);
        return Err(Error::new(ErrorKind::FailedPrecondition, "BUS_TOO_OLD", text)
            .with_limit(format!("{major}.{minor}")));
    }
    if info.max_payload < PAYLOAD_MIN {
        let text = format!(
            "the bus has max_payload {} bytes, and must have at least {PAYLOAD_MIN} (its default is 1 MiB)",
            info.max_payload
        );
        return Err(
            Error::new(ErrorKind::FailedPrecondition, "BUS_PAYLOAD_TOO_SMALL", text).with_limit(PAYLOAD_MIN)
        );
    }
    Ok(())
}
