//! Accepts sockets, tells connections of changes, and ends in order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::broadcast::error::RecvError,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{handshake, server::Server};
use crate::{access::Change, edge::Edge};

/// How long accepting pauses when the process has no file descriptor left: one is free as soon as the evicted connection's
/// task has run.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Serves MQTT on `listener` until `stop`; returns when every connection has ended in order, which each does within a few
/// seconds.
pub(crate) async fn serve(listener: TcpListener, edge: Arc<Edge>, stop: CancellationToken) {
    let server = Server::new(edge, stop.clone());
    let connections = TaskTracker::new();
    connections.spawn(tell_changes(Arc::clone(&server)));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                connections.spawn(connection(Arc::clone(&server), stream, remote));
            }
            Err(error) => {
                tracing::warn!(%error, "mqtt listener cannot accept");
                server.edge.unauthenticated.evict_oldest();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// One socket. Its seat is taken before its task first runs, so that a flood of sockets is bounded as it comes in.
fn connection(server: Arc<Server>, stream: TcpStream, remote: SocketAddr) -> impl Future<Output = ()> {
    let seat = server.edge.unauthenticated.enter();
    // Acknowledgements are small and written together: waiting for more would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
    handshake::serve(server, stream, remote, seat)
}

/// Rings at the connections whose device may have lost its access.
async fn tell_changes(server: Arc<Server>) {
    let mut changes = server.edge.access.changes();
    loop {
        let change = tokio::select! {
            () = server.stop.cancelled() => return,
            change = changes.recv() => match change {
                Ok(change) => change,
                Err(RecvError::Lagged(_)) => Change::Unknown,
                Err(RecvError::Closed) => return,
            },
        };
        server.saw_change();
        match change {
            Change::Device(_, uid) => server.changes.ring(uid),
            Change::Tenant(_) | Change::Unknown => server.changes.ring_all(),
            Change::Token(_) => {} // no device's
        }
    }
}
