//! `weir.analytics.v1`: each handler is who and what, one call, convert.

mod alarm;
mod convert;
mod rule;

use std::{future::Future, sync::Arc};

use futures::stream::BoxStream;
use tonic::{Request, Response, Status, service::RoutesBuilder};
use weir_core::{Error, Result, principal::Principal};
use weir_grpc::{Answer, page, principal, to_status};
use weir_proto::analytics::v1::{
    alarm_service_server::AlarmServiceServer, rule_service_server::RuleServiceServer,
};

use crate::Service;

type Stream<T> = BoxStream<'static, Result<T, Status>>;

/// Longest idempotency key and longest comment, in bytes.
const REQUEST_ID_MAX: usize = 128;
const COMMENT_MAX: usize = 1_024;

impl Service {
    /// Adds `weir.analytics.v1` to a server. Behind it every call must carry a principal (`weir_grpc::AuthLayer`).
    pub fn add_routes(self: &Arc<Self>, routes: &mut RoutesBuilder) {
        routes
            .add_service(RuleServiceServer::new(Handlers(Arc::clone(self))))
            .add_service(AlarmServiceServer::new(Handlers(Arc::clone(self))));
    }
}

/// The handlers.
struct Handlers(Arc<Service>);

/// The caller and what they ask.
#[allow(clippy::result_large_err)] // tonic's own error type
fn open<T>(request: Request<T>) -> Result<(Principal, T), Status> {
    let caller = principal(request.extensions())?.clone();
    Ok((caller, request.into_inner()))
}

/// What a handler found, as the wire has it.
async fn reply<T>(work: impl Future<Output = Result<T>>) -> Answer<T> {
    work.await.map(Response::new).map_err(to_status)
}

fn bounded(field: &str, text: &str, max: usize) -> Result<()> {
    if text.len() <= max {
        return Ok(());
    }
    let what = format!("{field} has {} bytes, at most {max} are allowed", text.len());
    Err(Error::invalid(field, "TOO_LONG", what).with_limit(max))
}

/// The key of a page token as text.
fn after(page_token: &str) -> Result<Option<String>> {
    let invalid =
        |_| Error::invalid("page_token", "PAGE_TOKEN_INVALID", "page_token is not one that a page gave");
    page::key(page_token)?.map(|key| String::from_utf8(key).map_err(invalid)).transpose()
}
