//! A listener for short visits: few connections, none for long, so that nobody who only holds a socket open takes the
//! process's file descriptors.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};

/// Probes and scrapers are a handful; this leaves room for some that hang.
const CONNECTIONS_MAX: usize = 64;
/// A probe or a scrape takes milliseconds; whoever comes every few seconds connects anew.
const VISIT_MAX: Duration = Duration::from_secs(10);

/// The listener.
pub(crate) struct Brief {
    listener: TcpListener,
    visits: Arc<Semaphore>,
}

impl Brief {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self { listener, visits: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }
}

impl Listener for Brief {
    type Io = Visit;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed; without a permit the connection would only be one too many.
        let permit = Arc::clone(&self.visits).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (Visit { stream, until: Box::pin(tokio::time::sleep(VISIT_MAX)), _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// One connection.
pub(crate) struct Visit {
    stream: TcpStream,
    until: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Visit {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        pin!(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Visit {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        pin!(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_visit_that_says_nothing_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut brief = Brief::new(listener);
        let _client = TcpStream::connect(address).await.unwrap();
        let (mut visit, _) = brief.accept().await;
        assert_eq!(visit.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
