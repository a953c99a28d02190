//! `weir.commands.v1` on a loopback port.

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Status,
    service::{Interceptor, RoutesBuilder, interceptor::InterceptedService},
    transport::{Channel, Server},
};
use weir_grpc::AuthLayer;
use weir_proto::commands::v1::{
    command_service_client::CommandServiceClient, queue_service_client::QueueServiceClient,
};

use super::{AllDevices, Fixture};

/// Shows its token, `tenant:scope`, on every call.
#[derive(Clone)]
pub struct As(pub String);

impl Interceptor for As {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.0).parse().unwrap());
        Ok(request)
    }
}

pub type Client = CommandServiceClient<InterceptedService<Channel, As>>;
pub type QueueClient = QueueServiceClient<InterceptedService<Channel, As>>;

/// A service with its API on a port.
pub struct Served {
    pub fixture: Fixture,
    address: SocketAddr,
    stop: tokio_util::sync::CancellationToken,
    serving: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Served {
    pub async fn start() -> Self {
        Self::serve(Fixture::start().await).await
    }

    pub async fn serve(fixture: Fixture) -> Self {
        let mut routes = RoutesBuilder::default();
        fixture.service.add_routes(&mut routes);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = tokio_util::sync::CancellationToken::new();
        let server =
            Server::builder().layer(AuthLayer::new(Arc::new(AllDevices))).add_routes(routes.routes());
        let stopped = stop.clone().cancelled_owned();
        let serving =
            tokio::spawn(server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped));
        Self { fixture, address, stop, serving }
    }

    pub async fn client(&self, token: &str) -> Client {
        let channel =
            Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap();
        CommandServiceClient::with_interceptor(channel, As(token.to_owned()))
    }

    /// Ends what runs, and starts again on what the engines kept. The caller's clients are gone by then.
    pub async fn restart(self) -> Self {
        self.stop.cancel();
        self.serving.await.unwrap().unwrap();
        Self::serve(self.fixture.restart().await).await
    }
}
