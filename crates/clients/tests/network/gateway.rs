//! Calls of users that go on to another process: as they came, and nobody else's.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::BoxStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming, service::Routes, transport::Channel};
use weir_clients::{Connection, Gateway, Identity, Peer, certificates};
use weir_conformance::calls::Loopback;
use weir_core::{Error, ErrorKind};
use weir_grpc::{from_status, principal, to_status};
use weir_proto::{
    ingest::v1::{
        PublishRequest, PublishResponse, PublishStreamRequest, PublishStreamResponse,
        ingest_service_client::IngestServiceClient,
        ingest_service_server::{IngestService, IngestServiceServer},
    },
    registry::v1::{
        AuthenticateRequest, GetSelfRequest, directory_service_client::DirectoryServiceClient,
        tenant_service_client::TenantServiceClient,
    },
    storage::v1::{ScanForRulesRequest, rule_scan_service_client::RuleScanServiceClient},
};

use crate::support::{Known, key};

/// Says who called, and with what; echoes streams one by one.
struct Echo;

#[tonic::async_trait]
impl IngestService for Echo {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        let caller = principal(request.extensions())?.actor();
        let of = |name: &str| {
            let value = request.metadata().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let position = format!("{caller} {} {} {}", of("authorization"), of("grpc-timeout"), of("x-more"));
        if request.get_ref().device == "refused" {
            let error = Error::invalid("readings[3]", "TOO_MANY", "at most 2").with_limit(2);
            let mut status = to_status(error);
            status.metadata_mut().insert("cursor", "here".parse().unwrap());
            return Err(status);
        }
        Ok(Response::new(PublishResponse { statuses: Vec::new(), position }))
    }

    type PublishStreamStream = BoxStream<'static, Result<PublishStreamResponse, Status>>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let echo = request.into_inner().map(|item| match item?.item {
            99 => Err(to_status(Error::new(ErrorKind::ResourceExhausted, "SLOW_READER", "slow"))),
            item => Ok(PublishStreamResponse { item, ..Default::default() }),
        });
        Ok(Response::new(echo.boxed()))
    }
}

/// A process with the edge, and one beside it that has nothing but the way there.
struct World {
    edge: Loopback,
    front: Loopback,
}

async fn world(by: impl Fn(&Loopback) -> (String, Identity)) -> World {
    let routes = Routes::new(IngestServiceServer::new(Echo));
    let edge = Loopback::serve("ingest", routes, Arc::new(Known)).await;
    let (address, identity) = by(&edge);
    let ingest = Peer::new("ingest", &[address], &identity).unwrap();
    let nobody = Peer::new("registry", &["http://127.0.0.1:1".to_owned()], &Identity::Key(key())).unwrap();
    let gateway = Gateway::new([
        ("weir.ingest.v1", ingest.clone()),
        ("weir.storage.v1", ingest),
        ("weir.registry.v1", nobody),
    ]);
    let front = Loopback::serve("front", gateway.behind(Routes::default()), Arc::new(Known)).await;
    World { edge, front }
}

async fn over_tls() -> World {
    world(|edge| (edge.secure(), edge.by_certificate())).await
}

async fn channel(world: &World) -> Channel {
    Channel::from_shared(world.front.plain()).unwrap().connect().await.unwrap()
}

fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_call_goes_on_as_it_came_and_stays_the_users_over_any_connection() {
    for world in [over_tls().await, world(|edge| (edge.plain(), edge.by_key())).await] {
        let mut client = IngestServiceClient::new(channel(&world).await);
        let mut request = with("wa_user", PublishRequest::default());
        request.metadata_mut().insert("x-more", "kept".parse().unwrap());
        request.set_timeout(Duration::from_secs(20));
        let told = client.publish(request).await.unwrap().into_inner().position;
        let words: Vec<_> = told.split(' ').collect();
        assert_eq!(words[..3], ["token:user", "Bearer", "wa_user"], "{told}");
        assert!(words[3].starts_with("20000000"), "the deadline is kept: {told}");
        assert_eq!(words[4], "kept");
        let request = PublishRequest { device: "refused".to_owned(), ..Default::default() };
        let status = client.publish(with("wa_user", request)).await.unwrap_err();
        assert_eq!(status.metadata().get("cursor").unwrap(), "here");
        let error = from_status(status);
        assert_eq!(
            (error.reason(), error.field(), error.limit()),
            ("TOO_MANY", Some("readings[3]"), Some("2"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_flow_both_ways_message_by_message_and_end_as_they_do_there() {
    let world = over_tls().await;
    let mut client = IngestServiceClient::new(channel(&world).await);
    let (send, items) = mpsc::channel(1);
    let opened = client.publish_stream(with("wa_user", ReceiverStream::new(items)));
    let mut answers = opened.await.unwrap().into_inner();
    let item = |item| PublishStreamRequest { item, ..Default::default() };
    for n in 1..50 {
        send.send(item(n)).await.unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap().item, n, "each before the next is sent");
    }
    drop(send);
    assert!(answers.message().await.unwrap().is_none(), "half-close ends it in order");
    let (send, items) = mpsc::channel(1);
    let opened = client.publish_stream(with("wa_user", ReceiverStream::new(items)));
    let mut answers = opened.await.unwrap().into_inner();
    send.send(item(99)).await.unwrap();
    let error = from_status(answers.message().await.unwrap_err());
    assert_eq!((error.kind(), error.reason()), (ErrorKind::ResourceExhausted, "SLOW_READER"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_more_through_it_than_they_have() {
    let world = over_tls().await;
    let channel = channel(&world).await;
    let key = world.front.key().reveal();
    let key_there = world.edge.key().reveal();
    let mut ingest = IngestServiceClient::new(channel.clone());
    let mut directory = DirectoryServiceClient::new(channel.clone());
    let mut rules = RuleScanServiceClient::new(channel.clone());
    for (token, public, internal) in [
        ("", Code::Unauthenticated, Code::Unauthenticated),
        ("nonsense", Code::Unauthenticated, Code::Unauthenticated),
        (key_there, Code::Unauthenticated, Code::Unauthenticated), // a key is one only where it is shown
        (key, Code::PermissionDenied, Code::PermissionDenied),
    ] {
        let refused = ingest.publish(with(token, PublishRequest::default())).await.unwrap_err();
        assert_eq!(refused.code(), public, "{token}: {refused:?}");
        let refused = directory.authenticate(with(token, AuthenticateRequest::default())).await.unwrap_err();
        assert_eq!(refused.code(), internal, "{token}: {refused:?}");
        let refused = rules.scan_for_rules(with(token, ScanForRulesRequest::default())).await.unwrap_err();
        assert_eq!(refused.code(), internal, "{token}: {refused:?}");
    }
    let refused = rules.scan_for_rules(with("wa_user", ScanForRulesRequest::default())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_cannot_be_reached_is_named_and_one_that_nobody_has_is_unknown() {
    let world = over_tls().await;
    let channel = channel(&world).await;
    let call = TenantServiceClient::new(channel.clone()).get_self(with("wa_user", GetSelfRequest {})).await;
    let error = from_status(call.unwrap_err());
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Unavailable, "PEER_UNREACHABLE"));
    assert!(error.message().contains("registry cannot be reached at http://127.0.0.1:1"), "{error}");
    let mut alarms = weir_proto::analytics::v1::alarm_service_client::AlarmServiceClient::new(channel);
    let refused = alarms.list_alarms(with("wa_user", Default::default())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("weir.analytics.v1.AlarmService"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_connects_over_tls_by_the_authority_alone() {
    let world = over_tls().await;
    let Identity::Certificate { files, .. } = world.edge.by_certificate() else { panic!("a certificate") };
    let ca = files.read().unwrap().ca;
    let address = world.edge.secure();
    let user = Connection::open_tls(&address, "wa_user", &ca).await.unwrap();
    let told = user.ingest().publish(PublishRequest::default()).await.unwrap().into_inner().position;
    assert!(told.starts_with("token:user "), "{told}");
    let nobody = Connection::open_tls(&address, "nonsense", &ca).await.unwrap();
    let refused = nobody.ingest().publish(PublishRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let another = certificates::make(&["localhost".to_owned()]).unwrap().ca;
    let reason = async |address: &str, ca: &[u8]| {
        let opened = Connection::open_tls(address, "wa_user", ca).await;
        opened.err().expect("it fails").reason().to_owned()
    };
    assert_eq!(reason(&address, another.as_bytes()).await, "UNREACHABLE");
    assert_eq!(reason(&world.edge.plain(), &ca).await, "ADDRESS_INVALID");
}
