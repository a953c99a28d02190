//! Who may call what, by the descriptors of every contract: a new method cannot be forgotten.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is the report

use std::{convert::Infallible, sync::Arc};

use async_trait::async_trait;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::{Code, Status, body::Body};
use tower::{Layer, ServiceExt as _};
use weir_core::{
    DeviceId, Error, Result, TenantId, Uid,
    device::{Device, Profile},
    port::Registry,
    principal::{Principal, Scope},
    selector::Selector,
};
use weir_grpc::{AuthLayer, ServiceKey, from_status};

/// Knows a token with every scope, and a device.
struct Known;

#[async_trait]
impl Registry for Known {
    async fn authenticate(&self, token: &str) -> Result<Principal> {
        let tenant = TenantId::new("acme")?;
        match token {
            "wa_everything" => {
                Ok(Principal::Token { id: "1".to_owned(), tenant: Some(tenant), scopes: Scope::ALL.to_vec() })
            }
            "wd_device" => Ok(Principal::Device {
                tenant,
                device: DeviceId::new("d")?,
                uid: Uid::from_u128(1),
                credential: "1".to_owned(),
            }),
            _ => Err(Error::unauthenticated("the credential is not valid")),
        }
    }
    async fn device(&self, _: &TenantId, device: &DeviceId) -> Result<Arc<Device>> {
        Err(Error::not_found(device))
    }
    async fn profile(&self, _: &TenantId, _: &str) -> Result<Arc<Profile>> {
        Ok(Arc::default())
    }
    async fn select(
        &self,
        _: &TenantId,
        _: &Selector,
        _: Option<&DeviceId>,
        _: usize,
    ) -> Result<Vec<Arc<Device>>> {
        Ok(Vec::new())
    }
}

/// Every method as a path, and whether its file is one of those that only services may call.
fn methods() -> Vec<(String, bool)> {
    let set = FileDescriptorSet::decode(weir_proto::DESCRIPTORS).unwrap();
    let mut methods = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                methods.push((path, file.name().ends_with("/internal.proto")));
            }
        }
    }
    methods
}

/// What the layer says to a call: the caller that it lets through, or the code of its refusal.
async fn call(key: Option<&ServiceKey>, path: &str, authorization: Option<&str>) -> Result<Principal, Code> {
    let reached = tower::service_fn(async |request: http::Request<Body>| {
        let mut response = http::Response::new(Body::empty());
        if let Some(caller) = request.extensions().get::<Principal>() {
            response.extensions_mut().insert(caller.clone());
        }
        Ok::<_, Infallible>(response)
    });
    let layer = AuthLayer::new(Arc::new(Known)).with_service_key(key.cloned());
    let mut request = http::Request::builder().uri(path);
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    let response = layer.layer(reached).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    if let Some(status) = Status::from_header_map(response.headers()) {
        assert!(!from_status(status.clone()).reason().is_empty());
        return Err(status.code());
    }
    Ok(response.extensions().get::<Principal>().expect("somebody was let through").clone())
}

#[tokio::test]
async fn nobody_but_a_service_calls_an_internal_method() {
    let text = ServiceKey::generate().unwrap();
    let key = ServiceKey::parse(&text).unwrap();
    let by_key = format!("Bearer {text}");
    let mut internal = 0;
    for (path, is_internal) in methods() {
        assert_eq!(weir_grpc::is_internal(&path), is_internal, "{path}");
        for token in ["Bearer wa_everything", "bearer wd_device"] {
            let called = call(Some(&key), &path, Some(token)).await;
            assert_eq!(called.err(), is_internal.then_some(Code::PermissionDenied), "{path}");
        }
        assert_eq!(call(Some(&key), &path, None).await, Err(Code::Unauthenticated), "{path}");
        assert_eq!(call(Some(&key), &path, Some("Bearer x")).await, Err(Code::Unauthenticated), "{path}");
        assert_eq!(call(Some(&key), &path, Some(&by_key)).await, Ok(Principal::Service), "{path}");
        internal += usize::from(is_internal);
    }
    assert!(internal >= 12, "{internal} internal methods");
}

#[tokio::test]
async fn a_service_key_is_one_only_where_it_is_the_servers() {
    let text = ServiceKey::generate().unwrap();
    let key = ServiceKey::parse(&text).unwrap();
    let another = ServiceKey::generate().unwrap();
    let path = "/weir.registry.v1.DirectoryService/Authenticate";
    for (key, shown, expected) in [
        (Some(&key), format!("Bearer {text}"), Ok(Principal::Service)),
        (Some(&key), format!("Bearer {another}"), Err(Code::Unauthenticated)),
        (Some(&key), "Bearer ws_".to_owned(), Err(Code::Unauthenticated)),
        (Some(&key), format!("Basic {text}"), Err(Code::Unauthenticated)),
        (Some(&key), text.clone(), Err(Code::Unauthenticated)),
        (None, format!("Bearer {text}"), Err(Code::Unauthenticated)),
    ] {
        assert_eq!(call(key, path, Some(&shown)).await, expected);
    }
}

#[test]
fn a_path_is_internal_by_the_name_of_its_service_and_nothing_else() {
    for (path, internal) in [
        ("/weir.registry.v1.DirectoryService/Authenticate", true),
        ("/weir.registry.v1.DirectoryService/", true),
        ("/weir.registry.v1.DirectoryService", true),
        ("/weir.storage.v1.RuleScanService/NotYetThere", true),
        ("/weir.registry.v1.DirectoryServices/Authenticate", false),
        ("/weir.registry.v1.DeviceService/GetDevice", false),
        ("weir.registry.v1.DirectoryService/Authenticate", false),
        ("/", false),
        ("", false),
    ] {
        assert_eq!(weir_grpc::is_internal(path), internal, "{path}");
    }
}
