//! `weir.registry.v1`: each handler is who and what, one call, convert.

mod convert;
mod credential;
mod device;
mod directory;
mod profile;
mod tenant;
mod token;

use std::{future::Future, sync::Arc};

use tonic::{Request, Response, Status, service::RoutesBuilder};
use weir_core::{
    Error, Result, TenantId,
    principal::{Principal, Scope},
};
use weir_grpc::{Answer, page, principal, to_status};
use weir_proto::registry::v1::{
    credential_service_server::CredentialServiceServer, device_service_server::DeviceServiceServer,
    directory_service_server::DirectoryServiceServer, profile_service_server::ProfileServiceServer,
    tenant_service_server::TenantServiceServer, token_service_server::TokenServiceServer,
};

use crate::Service;

impl Service {
    /// Adds every service of `weir.registry.v1`, also the one that only services may call.
    pub fn add_routes(self: &Arc<Self>, routes: &mut RoutesBuilder) {
        routes
            .add_service(TenantServiceServer::from_arc(Arc::clone(self)))
            .add_service(TokenServiceServer::from_arc(Arc::clone(self)))
            .add_service(ProfileServiceServer::from_arc(Arc::clone(self)))
            .add_service(DeviceServiceServer::from_arc(Arc::clone(self)))
            .add_service(CredentialServiceServer::from_arc(Arc::clone(self)))
            .add_service(DirectoryServiceServer::new(directory::Directory(Arc::clone(self) as _)));
    }
}

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

/// Reading also works for who may write.
fn require_read(caller: &Principal, tenant: &TenantId) -> Result<()> {
    caller.require(tenant, Scope::Provision).or_else(|_| caller.require(tenant, Scope::Read))
}

/// The message that a request cannot do without.
fn required<T>(field: &str, part: Option<T>) -> Result<T> {
    part.ok_or_else(|| Error::invalid(field, "FIELD_MISSING", format!("{field} is missing")))
}

/// The text of the key of a page token.
fn after(page_token: &str) -> Result<Option<String>> {
    let invalid =
        |_| Error::invalid("page_token", "PAGE_TOKEN_INVALID", "page_token is not one that a page gave");
    page::key(page_token)?.map(|key| String::from_utf8(key).map_err(invalid)).transpose()
}

/// A page of at most `size`, from one item more: the page, and the token of the next one.
fn paged<T>(mut items: Vec<T>, size: usize, id: impl Fn(&T) -> String) -> (Vec<T>, String) {
    let more = items.len() > size;
    items.truncate(size);
    let next = items.last().filter(|_| more).map(|last| page::token(id(last)));
    (items, next.unwrap_or_default())
}
