//! The listeners: bound before anything starts, so that a port in use is told at once and by name.

use std::{fmt, net::SocketAddr};

use tokio::net::TcpListener;
use weir_core::{Error, ErrorKind, Result};

use crate::config::Listen;

/// Every listener of the process, bound.
pub(crate) struct Listeners {
    /// Those for devices, where this process is the edge.
    pub(crate) edge: Option<Edge>,
    /// gRPC.
    pub(crate) grpc: TcpListener,
    /// Admin.
    pub(crate) admin: TcpListener,
}

/// The listeners for devices.
pub(crate) struct Edge {
    /// MQTT.
    pub(crate) mqtt: TcpListener,
    /// The device API over HTTP.
    pub(crate) http: TcpListener,
}

/// Where they are; with port 0 the port that the system chose.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    /// MQTT.
    pub(crate) mqtt: Option<SocketAddr>,
    /// The device API over HTTP.
    pub(crate) http: Option<SocketAddr>,
    /// gRPC.
    pub(crate) grpc: SocketAddr,
    /// Admin.
    pub(crate) admin: SocketAddr,
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(mqtt), Some(http)) = (self.mqtt, self.http) {
            write!(f, "mqtt {mqtt}  http {http}  ")?;
        }
        write!(f, "grpc {}  admin {}", self.grpc, self.admin)
    }
}

impl Listeners {
    /// Binds them all; those for devices only `with_edge`. gRPC will be served `with_tls`.
    ///
    /// # Errors
    /// `PORT_IN_USE` that names the port and the flag that moves it.
    pub(crate) async fn bind(listen: &Listen, with_edge: bool, with_tls: bool) -> Result<Self> {
        listen.check(with_edge, with_tls)?;
        let edge = match with_edge {
            true => Some(Edge {
                mqtt: bind(listen.socket(listen.mqtt_port), "mqtt").await?,
                http: bind(listen.socket(listen.http_port), "http").await?,
            }),
            false => None,
        };
        Ok(Self {
            edge,
            grpc: bind(listen.socket(listen.grpc_port), "grpc").await?,
            admin: bind(listen.socket(listen.admin_port), "admin").await?,
        })
    }

    /// Where they are.
    ///
    /// # Errors
    /// `Internal` where the system does not say.
    pub(crate) fn addresses(&self) -> Result<Addresses> {
        let address = |listener: &TcpListener| {
            listener
                .local_addr()
                .map_err(|source| Error::internal("a listener has no address").with_source(source))
        };
        Ok(Addresses {
            mqtt: self.edge.as_ref().map(|edge| address(&edge.mqtt)).transpose()?,
            http: self.edge.as_ref().map(|edge| address(&edge.http)).transpose()?,
            grpc: address(&self.grpc)?,
            admin: address(&self.admin)?,
        })
    }
}

async fn bind(address: SocketAddr, what: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|source| {
        let hint = format!("choose another with --{what}-port (listen.{what}_port)");
        let message = match source.kind() {
            std::io::ErrorKind::AddrInUse => format!("port {} for {what} is in use; {hint}", address.port()),
            _ => format!(
                "cannot listen on {address} for {what}: {source}; {hint}, or another address with --listen"
            ),
        };
        Error::new(ErrorKind::FailedPrecondition, "PORT_IN_USE", message)
            .with_field(format!("listen.{what}_port"))
    })
}
