//! Connections: accepted up to a limit, served, and closed where they are slow, idle or too many.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use super::{PROTOCOL, router};
use crate::{edge::Edge, unauthenticated::Seat};

/// A request's line and headers; hyper answers 431 above it. The least that hyper takes is half of it.
const HEADERS_MAX: usize = 16 * 1024;
/// How long a request that is under way may go on when the listener stops: the process ends within 20 s.
const STOP_GRACE: Duration = Duration::from_secs(12);
/// How long to wait where the process has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A connection's place among those that have not authenticated; left with its first good credential.
#[derive(Clone)]
pub(super) struct Door(Arc<Inner>);

struct Inner {
    seat: Mutex<Option<Arc<Seat>>>,
    left: Notify,
}

impl Door {
    fn new(seat: Seat) -> Self {
        Self(Arc::new(Inner { seat: Mutex::new(Some(Arc::new(seat))), left: Notify::new() }))
    }

    /// The connection has shown a good credential.
    pub(super) fn let_in(&self) {
        if self.0.seat.lock().take().is_some() {
            self.0.left.notify_one();
        }
    }

    fn seat(&self) -> Option<Arc<Seat>> {
        self.0.seat.lock().clone()
    }

    /// Returns when the connection must make room before it has authenticated; never after.
    async fn evicted(&self) {
        if let Some(seat) = self.seat() {
            tokio::select! {
                () = seat.evicted() => return,
                () = self.0.left.notified() => {}
            }
        }
        std::future::pending().await
    }
}

/// Serves until `stop`; then connections finish the request that they are in.
pub(crate) async fn serve(
    edge: Arc<Edge>,
    listener: TcpListener,
    stop: CancellationToken,
    connections: TaskTracker,
) {
    let router = router(Arc::clone(&edge), stop.clone());
    let seats = Arc::new(Semaphore::new(edge.config.limits.connections));
    loop {
        // At the limit the next connection waits in the listener's backlog.
        let accepted = async {
            let seat = Arc::clone(&seats).acquire_owned().await;
            (seat, listener.accept().await)
        };
        let (seat, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => return,
        };
        match (seat, accepted) {
            (Ok(seat), Ok((stream, _))) => {
                let (edge, router, stop) = (Arc::clone(&edge), router.clone(), stop.clone());
                connections.spawn(connection(edge, router, stream, seat, stop));
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "cannot accept a connection");
                edge.unauthenticated.evict_oldest();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            (Err(_), _) => return,
        }
    }
}

async fn connection(
    edge: Arc<Edge>,
    router: Router,
    stream: TcpStream,
    seat: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    let gauge = edge.metrics.connections.with_label_values(&[PROTOCOL.as_str()]);
    gauge.inc();
    let door = Door::new(edge.unauthenticated.enter());
    if wait_for_bytes(&edge, &stream, &door, &stop).await {
        exchange(&edge, router, stream, door, stop).await;
    }
    drop(seat);
    gauge.dec();
}

/// Waits for the first byte without any buffer, so that a connection that sends nothing holds nothing.
async fn wait_for_bytes(edge: &Edge, stream: &TcpStream, door: &Door, stop: &CancellationToken) -> bool {
    tokio::select! {
        readable = tokio::time::timeout(edge.config.http.header_timeout, stream.readable()) => {
            matches!(readable, Ok(Ok(())))
        }
        () = door.evicted() => false,
        () = stop.cancelled() => false,
    }
}

async fn exchange(edge: &Edge, router: Router, stream: TcpStream, door: Door, stop: CancellationToken) {
    if let Some(seat) = door.seat() {
        seat.hold(HEADERS_MAX);
    }
    drop(stream.set_nodelay(true)); // a socket that refuses is slower, no more
    let inside = door.clone();
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(inside.clone());
        router.clone().oneshot(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(edge.config.http.header_timeout)
        .max_buf_size(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    tokio::select! {
        done = served.as_mut() => return told(done),
        () = door.evicted() => return,
        () = stop.cancelled() => served.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        done = served.as_mut() => told(done),
        () = door.evicted() => {}
        () = tokio::time::sleep(STOP_GRACE) => {}
    }
}

fn told(done: Result<(), hyper::Error>) {
    if let Err(error) = done {
        tracing::debug!(%error, "a connection broke");
    }
}
