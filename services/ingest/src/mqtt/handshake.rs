//! From the first byte to CONNACK: who connects, and whether it may.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, ConnectReturnCode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use weir_core::{Error, Result, Uid};

use super::{
    connection::{Connection, Peer},
    header,
    io::{Io, Moved},
    packets::{Broken, Hello, Version},
    protocol::{self, Protocol, Welcome},
    reason,
    server::Server,
    topics,
};
use crate::{access::Authenticated, sessions::Connect, unauthenticated::Seat};

/// The longest client id, in bytes: a device id's length.
const CLIENT_ID_MAX: usize = 128;

/// Serves one socket from its first byte to its last. What only some of its life needs is in boxes: a stranger who says
/// nothing costs as little as can be.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(
    server: Arc<Server>,
    stream: S,
    remote: SocketAddr,
    seat: Seat,
) {
    let opened = tokio::select! {
        biased;
        () = server.stop.cancelled() => return,
        () = seat.evicted() => {
            tracing::debug!(%remote, "closed before it authenticated, to make room");
            return;
        }
        opened = timeout(server.edge.config.limits.auth_timeout, open(&server, stream, remote, &seat)) => opened,
    };
    drop(seat);
    match opened {
        Ok(Some(mut connection)) => {
            let end = connection.run().await;
            Box::pin(connection.close(end)).await;
        }
        Ok(None) => {}
        Err(_) => tracing::debug!(%remote, "closed: it did not authenticate in time"),
    }
}

async fn open<S: AsyncRead + AsyncWrite + Unpin + Send>(
    server: &Arc<Server>,
    stream: S,
    remote: SocketAddr,
    seat: &Seat,
) -> Option<Box<Connection<S>>> {
    let mut io = Io::new(stream);
    match read_connect(server, &mut io, seat).await {
        Some(connect) => Box::pin(welcome(server, io, remote, connect)).await,
        None => {
            Box::pin(io.finish()).await;
            None
        }
    }
}

async fn welcome<S: AsyncRead + AsyncWrite + Unpin + Send>(
    server: &Arc<Server>,
    mut io: Io<S>,
    remote: SocketAddr,
    (level, connect): (Option<u8>, Vec<u8>),
) -> Option<Box<Connection<S>>> {
    let Some((mut protocol, hello)) = accept(level, &connect, &mut io.output) else {
        io.finish().await;
        return None;
    };
    drop(connect);
    let timed = server.edge.metrics.mqtt.connect.start_timer();
    let admitted = admit(server, &mut protocol, hello, remote).await;
    timed.observe_duration();
    match admitted {
        Ok(admitted) => {
            if protocol.welcome(admitted.welcome, &mut io.output).is_err() {
                return None; // the client takes no packet as large as a CONNACK
            }
            Some(Box::new(Connection::new(Arc::clone(server), io, protocol, admitted.peer)))
        }
        Err(error) => {
            tracing::debug!(%remote, %error, "refused");
            server.refused(&error);
            protocol.refuse(&error, &mut io.output);
            io.finish().await;
            None
        }
    }
}

/// The CONNECT with its protocol level. Where there is none that can be accepted, the refusal is in `io`'s output.
async fn read_connect<S: AsyncRead + AsyncWrite + Unpin>(
    server: &Server,
    io: &mut Io<S>,
    seat: &Seat,
) -> Option<(Option<u8>, Vec<u8>)> {
    loop {
        // Only a CONNECT may come first (MQTT 5.0, 3.1); what does not begin with one is not MQTT.
        if io.untaken().first().is_some_and(|first| *first != 0x10) {
            return None;
        }
        let level = header::connect_level(io.untaken());
        match io.packet(server.packet_max) {
            Ok(None) => {}
            Ok(Some(packet)) => {
                server.came(packet);
                return Some((level, packet.to_vec()));
            }
            Err(refused) => {
                // MQTT 3.1.1 has no code for it. Where the level is not there yet, MQTT 5's does no harm to an older client,
                // which is closed in any case.
                if level.is_none_or(|level| level >= 5) {
                    let broken = Broken::header(refused, server.packet_max);
                    let code = match refused {
                        header::Refused::TooLarge(_) => ConnectReasonCode::PacketTooLarge,
                        header::Refused::Malformed => ConnectReasonCode::MalformedPacket,
                    };
                    protocol::refuse_5(code, &broken.message, usize::MAX, &mut io.output);
                }
                return None;
            }
        }
        match io.moved(true).await {
            Moved::Closed => return None,
            Moved::Read | Moved::Flushed => seat.hold(io.held()),
        }
    }
}

fn accept(level: Option<u8>, packet: &[u8], output: &mut Vec<u8>) -> Option<(Protocol, Hello)> {
    match level {
        Some(level @ (4 | 5)) => match Protocol::accept(level, packet) {
            (protocol, Ok(hello)) => Some((protocol, hello)),
            (protocol, Err(code)) => {
                protocol.refuse_with(code, "the CONNECT packet cannot be accepted", output);
                None
            }
        },
        Some(level) if level > 5 => {
            let text = format!("protocol level {level} is not known, 4 (MQTT 3.1.1) and 5 are");
            protocol::refuse_5(ConnectReasonCode::UnsupportedProtocolVersion, &text, usize::MAX, output);
            None
        }
        Some(_) => {
            protocol::refuse_3_1_1(ConnectReturnCode::UnacceptableProtocolVersion, output);
            None
        }
        None => None,
    }
}

/// A client that may be here.
struct Admitted {
    welcome: Welcome,
    peer: Peer,
}

async fn admit(
    server: &Arc<Server>,
    protocol: &mut Protocol,
    hello: Hello,
    remote: SocketAddr,
) -> Result<Admitted> {
    check(&hello)?;
    let token = hello.token.as_deref().ok_or_else(|| {
        Error::unauthenticated(
            "no token: it goes into the password, or into the user name without a password",
        )
    })?;
    let changes_seen = server.changes_seen();
    let who = server.edge.access.authenticate(token).await?;
    if let Some(will) = &hello.will {
        check_will(server, &who, will.topic()).await.map_err(|error| error.with_field(reason::WILL_TOPIC))?;
    }
    let changes = server.changes.put_up(who.access.device.uid);
    let counted = server.connect()?;

    let version = protocol.version();
    let config = &server.edge.config.mqtt;
    let asked = Duration::from_secs(hello.expiry.into());
    let expiry = asked.min(config.session_expiry_max);
    let (keep_alive, silence_max) = keep_alive(version, hello.keep_alive, config.keep_alive_max);
    let assigned = hello.client_id.is_empty().then(|| Uid::random().to_string());
    let session = server
        .edge
        .sessions
        .open(Connect {
            device: who.access.key(),
            client_id: assigned.clone().unwrap_or(hello.client_id),
            protocol: version.as_str(),
            remote: remote.to_string(),
            clean_start: hello.clean_start,
            expiry,
        })
        .await?;
    let welcome = Welcome {
        session_present: session.present,
        packet_max: server.packet_max,
        receive_max: config.receive_max,
        expiry: (expiry != asked).then(|| u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX)),
        keep_alive,
        assigned_client_id: assigned,
    };
    let recheck = server.changes_seen() != changes_seen;
    let peer = Peer { who, session, will: hello.will, expiry, silence_max, changes, recheck, counted };
    Ok(Admitted { welcome, peer })
}

/// A will that could never be published is refused now: when it is due, nobody is there to be told.
async fn check_will(server: &Server, who: &Authenticated, topic: &str) -> Result<()> {
    match topics::upward(topic)?.child {
        Some(child) => server.edge.access.child(&who.access, child).await.map(drop),
        None => Ok(()),
    }
}

fn check(hello: &Hello) -> Result<()> {
    if hello.client_id.len() > CLIENT_ID_MAX {
        let text = format!(
            "a client id of {} bytes is over the limit of {CLIENT_ID_MAX} bytes",
            hello.client_id.len()
        );
        return Err(Error::invalid("client_id", "CLIENT_ID_INVALID", text).with_limit(CLIENT_ID_MAX));
    }
    if hello.client_id.is_empty() && !hello.clean_start {
        let text = "an empty client id needs a clean start: there is no session to resume without one";
        return Err(Error::invalid("client_id", "CLIENT_ID_INVALID", text));
    }
    if hello.extended_authentication {
        return Err(Error::not_built("authentication_method", "extended authentication"));
    }
    Ok(())
}

/// The keep-alive that the client is told, where it is not its own, and how long it may be silent.
fn keep_alive(version: Version, asked: u16, max: Duration) -> (Option<u16>, Duration) {
    let own = Duration::from_secs(asked.into());
    if asked > 0 && own <= max {
        return (None, own * 3 / 2); // MQTT 5.0, 3.1.2.10: one and a half times
    }
    match version {
        Version::V5 => (Some(u16::try_from(max.as_secs()).unwrap_or(u16::MAX)), max * 3 / 2),
        Version::V3_1_1 => (None, max),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;
    use crate::unauthenticated::SEAT_BYTES;

    #[test]
    fn what_a_stranger_costs_is_what_its_seat_counts() {
        const fn size_of_future<F: Future>(_: fn(Arc<Server>, TcpStream, SocketAddr, Seat) -> F) -> usize {
            size_of::<F>()
        }
        let task = size_of_future(serve::<TcpStream>);
        assert!(task + 512 <= SEAT_BYTES, "{task} bytes, and 512 for the socket's registration and the seat");
    }

    #[test]
    fn a_keep_alive_of_none_or_too_long_is_replaced_or_watched() {
        let max = Duration::from_secs(1_200);
        let seconds = Duration::from_secs;
        assert_eq!(keep_alive(Version::V5, 60, max), (None, seconds(90)));
        assert_eq!(keep_alive(Version::V3_1_1, 1_200, max), (None, seconds(1_800)));
        assert_eq!(keep_alive(Version::V5, 0, max), (Some(1_200), seconds(1_800)));
        assert_eq!(keep_alive(Version::V5, 1_201, max), (Some(1_200), seconds(1_800)));
        assert_eq!(keep_alive(Version::V3_1_1, 0, max), (None, seconds(1_200)));
        assert_eq!(keep_alive(Version::V3_1_1, 65_535, max), (None, seconds(1_200)));
    }
}
