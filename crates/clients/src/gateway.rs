//! One process answers for those beside it: calls of public services that it does not run go on to the peer that does, so
//! that a user's tool may talk to any one of them.
//!
//! What goes on is the call as it came, streams both ways, with its caller's token and deadline. Nothing of this process's
//! own authority is added: a call of a service is not forwarded, since behind a connection of ours it could not be told
//! from one of ours, and what only services may call is not forwarded at all.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, header};
use tonic::{Status, body::Body, service::Routes};
use tower::Service;
use weir_core::{Error, ErrorKind, Result, principal::Principal};
use weir_grpc::{is_internal, to_status};

use crate::Peer;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Forwards calls by the package of their service. Stands behind [`weir_grpc::AuthLayer`], which says who calls.
#[derive(Clone)]
pub struct Gateway {
    peers: Arc<BTreeMap<&'static str, Peer>>,
}

impl Gateway {
    /// Forwards the services of each package (`weir.registry.v1`) to a peer.
    pub fn new(peers: impl IntoIterator<Item = (&'static str, Peer)>) -> Self {
        Self { peers: Arc::new(peers.into_iter().collect()) }
    }

    /// `routes`, and what they do not have by way of this gateway.
    pub fn behind(self, routes: Routes) -> Routes {
        routes.into_axum_router().fallback_service(self).into()
    }

    /// Where a call goes on.
    ///
    /// # Errors
    /// `PermissionDenied` for what only services may call, and for every call of a service; `Unauthenticated` where no
    /// layer has said who calls; `Unimplemented` where nobody has it.
    fn peer<B>(&self, request: &Request<B>) -> Result<&Peer> {
        let path = request.uri().path();
        if is_internal(path) {
            return Err(Error::permission_denied("what services ask of each other is not forwarded"));
        }
        let service = path.strip_prefix('/').and_then(|path| path.split('/').next()).unwrap_or_default();
        let package = service.rsplit_once('.').map_or("", |(package, _)| package);
        let peer = self.peers.get(package).ok_or_else(|| {
            let message = format!("nobody here answers {service:?}");
            Error::new(ErrorKind::Unimplemented, "METHOD_UNKNOWN", message)
        })?;
        match request.extensions().get::<Principal>() {
            Some(Principal::Token { .. } | Principal::Device { .. }) => Ok(peer),
            Some(Principal::Service) => {
                Err(Error::permission_denied("calls of a service are not forwarded; ask the peer itself"))
            }
            None => Err(Error::unauthenticated("no bearer token")),
        }
    }
}

impl<B> Service<Request<B>> for Gateway
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, std::result::Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(())) // a call waits for its peer within its own deadline
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let peer = self.peer(&request).cloned();
        Box::pin(async move {
            let answer = match peer {
                Ok(peer) => peer.forward(onward(request)).await,
                Err(error) => Err(to_status(error)),
            };
            Ok(answer.unwrap_or_else(Status::into_http))
        })
    }
}

/// The call as it goes on: the same message, without what was found out about its connection.
fn onward<B>(request: Request<B>) -> Request<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    let mut onward = Request::new(Body::new(body));
    *onward.method_mut() = parts.method;
    *onward.version_mut() = parts.version;
    *onward.uri_mut() = parts.uri;
    *onward.headers_mut() = end_to_end(parts.headers);
    onward
}

/// Without headers that are of one connection (RFC 9113, section 8.2.2; RFC 9110, section 7.2).
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
    headers
}
