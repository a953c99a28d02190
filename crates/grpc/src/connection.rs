//! Connections of a gRPC listener before anybody has said who they are: few, and not for long.
//!
//! A connection has a seat. Until a call over it was let through it may be ended: after [`Seats::patience`], or earlier, the
//! oldest first, where all seats are taken. So connections that say nothing cost nobody else theirs.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt as _, task::AtomicWaker};
use prometheus::IntCounter;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::Sleep,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;
use tonic::transport::server::Connected;

use crate::{ServerMetrics, identity, tls};

/// After an accept that failed for want of file descriptors: time for some to come back.
const PAUSE: Duration = Duration::from_millis(50);

/// The seats of one listener.
#[derive(Debug)]
pub struct Seats {
    max: usize,
    patience: Duration,
    taken: AtomicUsize,
    unknown: Mutex<VecDeque<Weak<Seat>>>,
    /// Connections that got no seat, or lost theirs to another.
    refused: Option<IntCounter>,
}

/// One connection's seat; whoever lets a call through says so with [`Seat::known`].
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    known: AtomicBool,
    evicted: AtomicBool,
    /// Whether the other end has shown the certificate of a service.
    service: AtomicBool,
    waker: AtomicWaker,
    peer: Option<SocketAddr>,
}

impl Seats {
    /// `max` connections at most, each with `patience` to make a call that is let through.
    pub fn new(max: usize, patience: Duration) -> Arc<Self> {
        Arc::new(Self::empty(max, patience))
    }

    fn empty(max: usize, patience: Duration) -> Self {
        let (taken, unknown) = (AtomicUsize::new(0), Mutex::default());
        Self { max: max.max(1), patience, taken, unknown, refused: None }
    }

    /// As [`Seats::new`], told in `metrics`.
    pub fn measured(max: usize, patience: Duration, metrics: &ServerMetrics) -> Arc<Self> {
        let refused = Some(metrics.connections_refused.clone());
        let seats = Arc::new(Self { refused, ..Self::empty(max, patience) });
        metrics.connections_max.set(i64::try_from(seats.max).unwrap_or(i64::MAX));
        let taken = Arc::clone(&seats);
        metrics.connections.by(move || taken.taken.load(Ordering::Acquire) as f64);
        seats
    }

    /// A seat; where all are taken that of the oldest connection which is not known, else none.
    fn take(self: &Arc<Self>, peer: Option<SocketAddr>) -> Option<Arc<Seat>> {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if self.taken.load(Ordering::Acquire) >= self.max {
            self.refused.iter().for_each(IntCounter::inc);
            if !evict_oldest(&mut unknown) {
                return None;
            }
        }
        self.taken.fetch_add(1, Ordering::AcqRel);
        let seat = Arc::new(Seat {
            seats: Arc::clone(self),
            known: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
            service: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            peer,
        });
        // Those at the front that have gone or are known make room, so that the queue is no longer than the seats.
        while unknown.front().is_some_and(|seat| seat.upgrade().is_none_or(|seat| seat.is_known())) {
            unknown.pop_front();
        }
        if unknown.len() >= self.max.saturating_mul(2) {
            unknown.retain(|seat| seat.upgrade().is_some_and(|seat| !seat.is_known()));
        }
        unknown.push_back(Arc::downgrade(&seat));
        Some(seat)
    }
}

fn evict_oldest(unknown: &mut VecDeque<Weak<Seat>>) -> bool {
    while let Some(seat) = unknown.pop_front() {
        if let Some(seat) = seat.upgrade().filter(|seat| !seat.is_known()) {
            seat.evicted.store(true, Ordering::Release);
            seat.waker.wake();
            return true;
        }
    }
    false
}

impl Seat {
    /// A call over this connection was let through.
    pub fn known(&self) {
        self.known.store(true, Ordering::Release);
    }

    /// The other end.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Whether the other end has shown a service's certificate; its chain was checked in the handshake.
    pub(crate) fn is_service(&self) -> bool {
        self.service.load(Ordering::Acquire)
    }

    fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The connections of `listener` that got a seat; with `tls`, once their handshake is done.
pub fn incoming(
    listener: TcpListener,
    seats: Arc<Seats>,
    tls: Option<Arc<tls::Listener>>,
) -> impl Stream<Item = io::Result<Connection>> {
    // Each that shakes hands has a seat, so there are no more of them than seats.
    let width = seats.max;
    seated(listener, seats)
        .map(move |seated| {
            let tls = tls.clone();
            async move {
                match tls {
                    None => Some(Ok(Connection(Either::Left(seated)))),
                    Some(tls) => shake_hands(seated, tls.config()).await.map(Ok),
                }
            }
        })
        .buffer_unordered(width)
        .filter_map(std::future::ready)
}

/// None where it fails or takes longer than the seat's patience: that is the other end's concern.
async fn shake_hands(seated: Seated, config: Arc<ServerConfig>) -> Option<Connection> {
    let seat = Arc::clone(&seated.seat);
    match TlsAcceptor::from(config).accept(seated).await {
        Ok(stream) => {
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            seat.service.store(certificate.is_some_and(identity::is_service), Ordering::Release);
            Some(Connection(Either::Right(Box::new(stream))))
        }
        Err(error) => {
            tracing::debug!(peer = ?seat.peer, error = %error, "a tls handshake failed");
            None
        }
    }
}

fn seated(listener: TcpListener, seats: Arc<Seats>) -> impl Stream<Item = Seated> {
    futures::stream::unfold((listener, seats), |(listener, seats)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    drop(stream.set_nodelay(true)); // only speed is lost without it
                    if let Some(seat) = seats.take(Some(peer)) {
                        let until = Box::pin(tokio::time::sleep(seats.patience));
                        return Some((Seated { stream, seat, until }, (listener, seats)));
                    }
                }
                // Of one connection, or for want of descriptors: the listener itself goes on.
                Err(error) => {
                    tracing::warn!(error = %error, "a grpc connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}

/// A connection that gRPC is served on.
pub struct Connection(Either<Seated, Box<TlsStream<Seated>>>);

impl Connected for Connection {
    type ConnectInfo = Arc<Seat>;
    fn connect_info(&self) -> Self::ConnectInfo {
        Arc::clone(match &self.0 {
            Either::Left(seated) => &seated.seat,
            Either::Right(stream) => &stream.get_ref().0.seat,
        })
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        pin!(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        pin!(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.0).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        pin!(&mut self.0).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

/// A connection with a seat.
struct Seated {
    stream: TcpStream,
    seat: Arc<Seat>,
    until: Pin<Box<Sleep>>,
}

impl AsyncRead for Seated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.seat.is_known() {
            self.seat.waker.register(cx.waker());
            if self.seat.evicted.load(Ordering::Acquire) || self.until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        pin!(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Seated {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        pin!(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        pin!(&mut self.stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use tokio::{io::AsyncReadExt as _, net::TcpStream};

    use super::*;

    async fn listen(max: usize, patience: Duration) -> (SocketAddr, Pin<Box<dyn Stream<Item = Seated>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (address, Box::pin(super::seated(listener, Seats::new(max, patience))))
    }

    #[tokio::test]
    async fn the_oldest_unknown_connection_makes_room_and_a_known_one_stays() {
        let (address, mut incoming) = listen(2, Duration::from_secs(60)).await;
        let mut clients = Vec::new();
        let mut seated = Vec::new();
        for _ in 0..2 {
            clients.push(TcpStream::connect(address).await.unwrap());
            seated.push(incoming.next().await.unwrap());
        }
        seated[0].seat.known();
        clients.push(TcpStream::connect(address).await.unwrap());
        let mut third = incoming.next().await.unwrap();
        let mut byte = [0];
        let ended = seated[1].read(&mut byte).await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        let waits = tokio::time::timeout(Duration::from_millis(20), seated[0].read(&mut byte)).await;
        assert!(waits.is_err(), "a known connection is left alone");
        let waits = tokio::time::timeout(Duration::from_millis(20), third.read(&mut byte)).await;
        assert!(waits.is_err(), "the newest has its time");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_makes_no_call_ends_when_patience_does() {
        let (address, mut incoming) = listen(8, Duration::from_secs(10)).await;
        let _client = TcpStream::connect(address).await.unwrap();
        let mut seated = incoming.next().await.unwrap();
        let mut byte = [0];
        assert_eq!(seated.read(&mut byte).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
