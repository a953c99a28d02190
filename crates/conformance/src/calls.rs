//! Call ports over the network, for the suites of those that answer them: a real server on loopback, and peers of it by each
//! way in which a service can be known.
//!
//! The suites themselves are with the services, since what they ask must first be put there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a suite fails by panicking, as a test does")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tonic::{service::Routes, transport::Server};
use weir_clients::{Identity, Peer, certificates::Authority};
use weir_core::port::Registry;
use weir_grpc::{
    AuthLayer, ServiceKey,
    connection::{self, Seats},
    tls,
};

/// More than a suite opens.
const SEATS: usize = 256;
/// Long enough for a machine that builds beside the tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server of one service on two ports: without TLS for the service key, and with it for certificates.
pub struct Loopback {
    name: &'static str,
    plain: SocketAddr,
    secure: SocketAddr,
    key: ServiceKey,
    dir: TempDir,
    stop: watch::Sender<bool>,
    serving: Vec<JoinHandle<()>>,
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

impl Loopback {
    /// Serves `routes`; `registry` says who the others are.
    pub async fn serve(name: &'static str, routes: Routes, registry: Arc<dyn Registry>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_certificates(dir.path());
        let key = ServiceKey::parse(&ServiceKey::generate().unwrap()).unwrap();
        let (stop, stopped) = watch::channel(false);
        let mut addresses = Vec::new();
        let mut serving = Vec::new();
        for secure in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            let tls = secure.then(|| tls::Listener::new(files(dir.path())).unwrap());
            let layer = AuthLayer::new(Arc::clone(&registry)).with_service_key(Some(key.clone()));
            let server = Server::builder().layer(layer).add_routes(routes.clone());
            let incoming = connection::incoming(listener, Seats::new(SEATS, PATIENCE), tls);
            let mut stopped = stopped.clone();
            serving.push(tokio::spawn(async move {
                let stopped = async { drop(stopped.wait_for(|stopped| *stopped).await) };
                server.serve_with_incoming_shutdown(incoming, stopped).await.unwrap();
            }));
        }
        let [plain, secure] = addresses.as_slice() else { panic!("two listeners") };
        Self { name, plain: *plain, secure: *secure, key, dir, stop, serving }
    }

    /// Its address without TLS.
    pub fn plain(&self) -> String {
        format!("http://{}", self.plain)
    }

    /// Its address with TLS.
    pub fn secure(&self) -> String {
        format!("https://localhost:{}", self.secure.port())
    }

    /// The key of its services.
    pub fn key(&self) -> &ServiceKey {
        &self.key
    }

    /// A service by its key.
    pub fn by_key(&self) -> Identity {
        Identity::Key(self.key.clone())
    }

    /// A service by its certificate.
    pub fn by_certificate(&self) -> Identity {
        Identity::Certificate { files: files(self.dir.path()), server_name: None }
    }

    /// Somebody with a certificate of the same authority who is no service.
    pub fn by_other_certificate(&self) -> Identity {
        let files = tls::Files {
            cert: self.dir.path().join("other"),
            key: self.dir.path().join("other.key"),
            ..files(self.dir.path())
        };
        Identity::Certificate { files, server_name: None }
    }

    /// The service as each kind of service sees it.
    pub fn peers(&self) -> [(&'static str, Peer); 2] {
        let by_key = Peer::new(self.name, &[self.plain()], &self.by_key()).unwrap();
        let by_certificate = Peer::new(self.name, &[self.secure()], &self.by_certificate()).unwrap();
        [("by the service key", by_key), ("by mutual TLS", by_certificate)]
    }

    /// Ends it: its ports are free then.
    pub async fn end(mut self) {
        self.stop.send_replace(true);
        for serving in std::mem::take(&mut self.serving) {
            serving.abort();
            drop(serving.await);
        }
    }
}

fn files(dir: &Path) -> tls::Files {
    let file = |name: &str| -> PathBuf { dir.join(name) };
    tls::Files { cert: file("cert"), key: file("key"), ca: file("ca") }
}

fn write_certificates(dir: &Path) {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let authority = Authority::make().unwrap();
    let (cert, key) = authority.certificate(&names, Some(weir_grpc::identity::SERVICE_URI)).unwrap();
    let (other, other_key) = authority.certificate(&names, Some("spiffe://weir/device")).unwrap();
    let ca = authority.pem();
    for (name, pem) in [("ca", ca), ("cert", cert), ("key", key), ("other", other), ("other.key", other_key)]
    {
        fs::write(dir.join(name), pem).unwrap();
    }
}
