//! A way to a server that can be cut or stall.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// Connections are there and carry nothing.
    Stalled,
    /// Connections are closed, and none is made.
    Cut,
}

/// Forwards connections to one server.
pub(crate) struct Proxy {
    port: u16,
    way: Arc<watch::Sender<Way>>,
}

impl Proxy {
    /// To a server at `nats://host:port`.
    pub(crate) async fn to(server: &str) -> Self {
        let server = server.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let way = Arc::new(watch::Sender::new(Way::Open));
        let seen = way.subscribe();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if *seen.borrow() == Way::Cut {
                    continue; // closes it
                }
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                let ((from, to), (back_from, back_to)) = (client.into_split(), server.into_split());
                tokio::spawn(forward(from, back_to, seen.clone()));
                tokio::spawn(forward(back_from, to, seen.clone()));
            }
        });
        Self { port, way }
    }

    pub(crate) fn address(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn cut(&self) {
        self.way.send_replace(Way::Cut);
    }

    pub(crate) fn stall(&self) {
        self.way.send_replace(Way::Stalled);
    }

    pub(crate) fn heal(&self) {
        self.way.send_replace(Way::Open);
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: watch::Receiver<Way>) {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let count = tokio::select! {
            biased;
            _ = way.wait_for(|way| *way == Way::Cut) => return,
            count = from.read(&mut bytes) => count.unwrap_or(0),
        };
        if count == 0 || way.wait_for(|way| *way != Way::Stalled).await.is_err() {
            return;
        }
        if *way.borrow() == Way::Cut || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
