//! The connection: who we are, how often it is tried, and what happens to it.

use std::{path::Path, time::Duration};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, connection::State};
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use weir_core::{Error, ErrorKind, Result};

use crate::{config::Config, error};

/// Between two attempts of a start to reach the bus.
const ATTEMPT_EVERY: Duration = Duration::from_millis(250);
/// The longest pause before a reconnect: signals must be back within 1 s after the bus is.
const RECONNECT_MAX: Duration = Duration::from_millis(400);
/// How often the link is compared with what the client says.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What a server may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// A connection whose other end is silently gone is given up after three of these; a server that is merely busy writing
/// to its disk answers sooner.
const PING_EVERY: Duration = Duration::from_secs(2);

/// What happened to the connection so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Link {
    pub(crate) connected: bool,
    /// How often it was made or lost.
    pub(crate) changes: u64,
    /// How often a subscription was too slow and lost messages.
    pub(crate) overruns: u64,
}

/// Connects, trying for [`Config::connect_timeout`].
pub(crate) async fn connect(config: &Config, name: &str) -> Result<(Client, watch::Receiver<Link>)> {
    let until = Instant::now() + config.connect_timeout;
    let (link, seen) = watch::channel(Link::default());
    loop {
        let options = options(config, name, link.clone()).await?;
        let failure = match options.connect(config.servers.clone()).await {
            Ok(client) => {
                // The event of this first connection is not one that anybody has to re-read for.
                let mut first = seen.clone();
                let _ = time::timeout(HANDSHAKE, first.wait_for(|link| link.connected)).await;
                tokio::spawn(keep_true(client.clone(), link));
                return Ok((client, seen));
            }
            Err(failure) => failure,
        };
        let servers = config.servers.join(", ");
        match failure.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                let text = format!(
                    "the bus at {servers} refuses who this is: {failure}; check the credentials in [nats]"
                );
                return Err(Error::new(ErrorKind::FailedPrecondition, "BUS_REFUSES_CREDENTIALS", text)
                    .with_source(failure));
            }
            ConnectErrorKind::ServerParse => {
                let text = format!("nats.servers is not a list of addresses: {failure}");
                return Err(Error::invalid("nats.servers", "CONFIG_INVALID", text));
            }
            _ if Instant::now() + ATTEMPT_EVERY >= until => {
                let waited = weir_config::duration::format(config.connect_timeout);
                let why = format!("no server answers within {waited}: {failure}");
                return Err(error::away(&format!("reach the bus at {servers}"), &why).with_source(failure));
            }
            _ => time::sleep(ATTEMPT_EVERY).await,
        }
    }
}

async fn options(config: &Config, name: &str, link: watch::Sender<Link>) -> Result<ConnectOptions> {
    let mut options = ConnectOptions::new()
        .name(name)
        .connection_timeout(HANDSHAKE)
        .ping_interval(PING_EVERY)
        .request_timeout(Some(config.request_timeout))
        .reconnect_delay_callback(|attempt| {
            Duration::from_millis(50)
                .saturating_mul(u32::try_from(attempt).unwrap_or(u32::MAX))
                .min(RECONNECT_MAX)
        })
        .event_callback(move |event| {
            note(&link, &event);
            std::future::ready(())
        });
    if let (Some(user), Some(file)) = (&config.user, &config.password_file) {
        options = options.user_and_password(user.clone(), secret("nats.password_file", file)?);
    }
    if let Some(file) = &config.token_file {
        options = options.token(secret("nats.token_file", file)?);
    }
    if let Some(file) = &config.nkey_file {
        options = options.nkey(secret("nats.nkey_file", file)?);
    }
    if let Some(file) = &config.creds_file {
        options = options
            .credentials_file(file)
            .await
            .map_err(|source| unreadable("nats.creds_file", file, source))?;
    }
    // The client reads the files again for each connection, so certificates may be renewed under it.
    if let Some(file) = &config.ca_file {
        options = options.add_root_certificates(file.clone()).require_tls(true);
    }
    if let (Some(cert), Some(key)) = (&config.cert_file, &config.key_file) {
        options = options.add_client_certificate(cert.clone(), key.clone()).require_tls(true);
    }
    Ok(options)
}

/// Events that come too fast are dropped by the client, also the one that says that it is connected again; what it says
/// when asked is true. Ends when nobody looks at the link any more.
async fn keep_true(client: Client, link: watch::Sender<Link>) {
    let mut differed = false;
    loop {
        tokio::select! {
            () = link.closed() => return,
            () = time::sleep(LOOK_EVERY) => {}
        }
        let connected = client.connection_state() == State::Connected;
        let differs = link.borrow().connected != connected;
        if differs && differed {
            link.send_modify(|link| *link = Link { connected, changes: link.changes + 1, ..*link });
        }
        differed = differs; // an event that is on its way may still come
    }
}

fn note(link: &watch::Sender<Link>, event: &Event) {
    match event {
        Event::Connected => {
            tracing::info!("connected to the bus");
            link.send_modify(|link| *link = Link { connected: true, changes: link.changes + 1, ..*link });
        }
        Event::Disconnected | Event::Closed => {
            tracing::warn!("lost the connection to the bus");
            link.send_modify(|link| *link = Link { connected: false, changes: link.changes + 1, ..*link });
        }
        Event::SlowConsumer(_) => link.send_modify(|link| link.overruns += 1),
        Event::LameDuckMode | Event::Draining => {}
        Event::ServerError(error) => tracing::warn!(%error, "the bus reports an error"),
        Event::ClientError(error) => tracing::debug!(%error, "the connection to the bus reports an error"),
    }
}

fn secret(key: &str, file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).map_err(|source| unreadable(key, file, source))?;
    Ok(text.trim().to_owned())
}

fn unreadable(key: &str, file: &Path, source: std::io::Error) -> Error {
    Error::invalid(key, "CONFIG_INVALID", format!("{key} {} cannot be read: {source}", file.display()))
        .with_source(source)
}
