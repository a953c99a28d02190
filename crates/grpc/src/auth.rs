//! Authentication for every method but reflection and health: bearer tokens (RFC 6750 over gRPC metadata), and services by
//! their certificate or key.
//!
//! A call that carries a bearer token is its holder's, also over the connection of a service, which forwards calls of users.
//! What services ask of each other is refused here to everybody else, by the list that the contracts give.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use tonic::{Extensions, Status, body::Body};
use tower::{Layer, Service};
use weir_core::{Error, Result, port::Registry, principal::Principal};

use crate::{
    access::WhileAllowed,
    connection::Seat,
    identity::{KEY_PREFIX, ServiceKey},
    is_internal, to_status,
};

/// What anybody may call: reflection describes public contracts, and a load balancer asks for health without a token.
const OPEN: [&str; 3] = [
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
    "/grpc.health.v1.Health/",
];

/// Puts the [`Principal`] of a call into its request's extensions, or refuses it.
#[derive(Clone)]
pub struct AuthLayer {
    registry: Arc<dyn Registry>,
    key: Option<ServiceKey>,
}

impl AuthLayer {
    /// Authenticates users and devices against `registry`, and services by their certificates where the listener has TLS.
    pub fn new(registry: Arc<dyn Registry>) -> Self {
        Self { registry, key: None }
    }

    /// Also knows services by this key.
    #[must_use]
    pub fn with_service_key(mut self, key: Option<ServiceKey>) -> Self {
        self.key = key;
        self
    }
}

impl<S> Layer<S> for AuthLayer {
    type Service = Authenticated<S>;
    fn layer(&self, inner: S) -> Self::Service {
        Authenticated { inner, by: self.clone() }
    }
}

/// A service behind [`AuthLayer`].
#[derive(Clone)]
pub struct Authenticated<S> {
    inner: S,
    by: AuthLayer,
}

/// What a call shows of its caller.
enum Shown {
    Service,
    Token(Arc<str>),
}

impl AuthLayer {
    fn shown(&self, request: &http::Request<Body>) -> Result<Shown> {
        let is_service = || request.extensions().get::<Arc<Seat>>().is_some_and(|seat| seat.is_service());
        if !request.headers().contains_key(http::header::AUTHORIZATION) && is_service() {
            return Ok(Shown::Service);
        }
        let token = bearer(request.headers())?;
        if !token.starts_with(KEY_PREFIX) {
            return Ok(Shown::Token(token.into()));
        }
        match &self.key {
            Some(key) if key.is(token) => Ok(Shown::Service),
            _ => Err(Error::unauthenticated("the service key is not the one of this server")),
        }
    }

    /// The caller, and the token that a stream of answers to them depends on.
    async fn caller(&self, shown: Result<Shown>, internal: bool) -> Result<(Principal, Option<Arc<str>>)> {
        let (caller, token) = match shown? {
            Shown::Service => (Principal::Service, None),
            Shown::Token(token) => (self.registry.authenticate(&token).await?, Some(token)),
        };
        if internal {
            caller.require_service()?;
        }
        Ok((caller, token))
    }
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
        let by = self.by.clone();
        Box::pin(async move {
            let path = request.uri().path();
            if OPEN.iter().any(|open| path.starts_with(open)) {
                return inner.call(request).await; // the connection stays unknown, so it has its ten seconds
            }
            let (internal, shown) = (is_internal(path), by.shown(&request));
            let (caller, token) = match by.caller(shown, internal).await {
                Ok(allowed) => allowed,
                Err(error) => return Ok(to_status(error).into_http()),
            };
            if let Some(seat) = request.extensions().get::<Arc<Seat>>() {
                seat.known();
            }
            request.extensions_mut().insert(caller);
            let answer = inner.call(request).await?;
            Ok(match token {
                Some(token) => answer.map(|body| Body::new(WhileAllowed::new(body, by.registry, token))),
                None => answer, // a service's identity ends with its connection, or with its server
            })
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
