//! Bearer authentication for every method but reflection and health (RFC 6750 over gRPC metadata).

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use tonic::{Extensions, Status, body::Body};
use tower::{Layer, Service};
use weir_core::{Error, Result, port::Registry, principal::Principal};

use crate::{access::WhileAllowed, connection::Seat, to_status};

/// What anybody may call: reflection describes public contracts, and a load balancer asks for health without a token.
const OPEN: [&str; 3] = [
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
    "/grpc.health.v1.Health/",
];

/// Puts the [`Principal`] of the bearer token into the request's extensions, or refuses.
#[derive(Clone)]
pub struct AuthLayer {
    registry: Arc<dyn Registry>,
}

impl AuthLayer {
    /// Authenticates against `registry`.
    pub fn new(registry: Arc<dyn Registry>) -> Self {
        Self { registry }
    }
}

impl<S> Layer<S> for AuthLayer {
    type Service = Authenticated<S>;
    fn layer(&self, inner: S) -> Self::Service {
        Authenticated { inner, registry: Arc::clone(&self.registry) }
    }
}

/// A service behind [`AuthLayer`].
#[derive(Clone)]
pub struct Authenticated<S> {
    inner: S,
    registry: Arc<dyn Registry>,
}

impl<S> Service<http::Request<Body>> for Authenticated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, std::result::Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<std::result::Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready); // the clone that was polled ready is the one to call
        let registry = Arc::clone(&self.registry);
        Box::pin(async move {
            if OPEN.iter().any(|open| request.uri().path().starts_with(open)) {
                return inner.call(request).await; // the connection stays unknown, so it has its ten seconds
            }
            let allowed = match bearer(request.headers()).map(Arc::<str>::from) {
                Ok(token) => registry.authenticate(&token).await.map(|principal| (token, principal)),
                Err(error) => Err(error),
            };
            let (token, principal) = match allowed {
                Ok(allowed) => allowed,
                Err(error) => return Ok(to_status(error).into_http()),
            };
            if let Some(seat) = request.extensions().get::<Arc<Seat>>() {
                seat.known();
            }
            request.extensions_mut().insert(principal);
            let answer = inner.call(request).await?;
            Ok(answer.map(|body| Body::new(WhileAllowed::new(body, registry, token))))
        })
    }
}

/// The principal of an `Authorization: Bearer` header.
///
/// # Errors
/// `Unauthenticated` without one, or what the registry says of it.
pub async fn authenticate(registry: &dyn Registry, headers: &http::HeaderMap) -> Result<Principal> {
    registry.authenticate(bearer(headers)?).await
}

fn bearer(headers: &http::HeaderMap) -> Result<&str> {
    let header =
        headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match header.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(Error::unauthenticated("no bearer token: send the header `authorization: Bearer <token>`")),
    }
}

/// The caller, as [`AuthLayer`] found it.
///
/// # Errors
/// `UNAUTHENTICATED` where no layer has run.
#[allow(clippy::result_large_err)] // tonic's own error type
pub fn principal(extensions: &Extensions) -> std::result::Result<&Principal, Status> {
    extensions.get::<Principal>().ok_or_else(|| Status::unauthenticated("no bearer token"))
}
