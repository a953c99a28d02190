//! The call port of the registry, in process and over gRPC: what other services see of a change, and when.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is the report

mod support;

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use futures::StreamExt as _;
use support::{Client, Fixture};
use tonic::Code;
use weir_clients::{Identity, Peer, RegistryClient};
use weir_core::{DeviceId, ErrorKind, TenantId, port::Registry, principal::Scope, selector::Selector};
use weir_grpc::{ServiceKey, from_status};
use weir_proto::registry::v1::*;

const ACME: &str = "tenants/acme";

async fn create(client: &mut Client, id: &str, floor: &str) -> Device {
    let labels = [("floor".to_owned(), floor.to_owned())].into();
    let request = CreateDeviceRequest {
        parent: ACME.to_owned(),
        device_id: id.to_owned(),
        device: Some(Device { labels, ..Default::default() }),
        ..Default::default()
    };
    client.devices.create_device(request).await.unwrap().into_inner().device.unwrap()
}

async fn eventually<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .unwrap_or_else(|_| panic!("it never came true that {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_seen_at_once_here_and_soon_in_another_process_that_had_it_cached() {
    let fixture = Fixture::start().await;
    let mut admin = fixture.admin().await;
    let made = create(&mut admin, "d", "1").await;
    let (tenant, id) = (TenantId::new("acme").unwrap(), DeviceId::new("d").unwrap());
    let issued = admin
        .credentials
        .issue_credential(IssueCredentialRequest { parent: made.name.clone(), ttl: None })
        .await
        .unwrap()
        .into_inner();
    fixture.other.authenticate(&issued.secret).await.unwrap();
    assert!(fixture.other.device(&tenant, &id).await.unwrap().enabled);
    for (how, port) in fixture.ports() {
        assert!(port.device(&tenant, &id).await.unwrap().enabled, "{how}");
        port.authenticate(&issued.secret).await.unwrap();
    }
    let device = Device { disabled: true, ..made.clone() };
    admin
        .devices
        .update_device(UpdateDeviceRequest { device: Some(device), update_mask: None })
        .await
        .unwrap();
    for (how, port) in fixture.ports() {
        assert!(!port.device(&tenant, &id).await.unwrap().enabled, "{how}");
        let error = port.authenticate(&issued.secret).await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Unauthenticated, "UNAUTHENTICATED"), "{how}");
    }
    eventually("the other process sees it", async || {
        !fixture.other.device(&tenant, &id).await.unwrap().enabled
    })
    .await;
    let refused = async || fixture.other.authenticate(&issued.secret).await.is_err();
    eventually("the other process refuses its credential", refused).await;
    admin.devices.delete_device(DeleteDeviceRequest { name: made.name, ..Default::default() }).await.unwrap();
    for (how, port) in fixture.ports() {
        let error = port.device(&tenant, &id).await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (ErrorKind::NotFound, "NOT_FOUND"), "{how}");
        assert!(error.message().contains("tenants/acme/devices/d"), "{how}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_a_holder_a_device_and_a_profile_is_the_same_from_everywhere() {
    let fixture = Fixture::start().await;
    let mut admin = fixture.admin().await;
    let (tenant, id) = (TenantId::new("acme").unwrap(), DeviceId::new("d").unwrap());
    let metric = |name: &str, kind: MetricType| Metric {
        name: name.to_owned(),
        r#type: kind as i32,
        unit: "Cel".to_owned(),
        description: "for people".to_owned(),
        ..Default::default()
    };
    let time = TimePolicy {
        past: Some(prost_types::Duration { seconds: 60, nanos: 5 }),
        future: None,
        on_bad_time: OnBadTime::Arrival as i32,
    };
    let kinds =
        [MetricType::Double, MetricType::Int64, MetricType::Bool, MetricType::String, MetricType::Bytes];
    let metrics = kinds.into_iter().enumerate().map(|(n, kind)| metric(&format!("m{n}"), kind)).collect();
    let profile = Profile { metrics, time: Some(time), gateway: true, ..Default::default() };
    admin
        .profiles
        .create_profile(CreateProfileRequest {
            parent: ACME.to_owned(),
            profile_id: "room".to_owned(),
            profile: Some(profile),
            ..Default::default()
        })
        .await
        .unwrap();
    let device = Device {
        profile: "tenants/acme/profiles/room".to_owned(),
        labels: [("floor".to_owned(), "1".to_owned()), ("empty".to_owned(), String::new())].into(),
        attributes: [("Ä".to_owned(), "ö\n".to_owned())].into(),
        gateway: true,
        ..Default::default()
    };
    admin
        .devices
        .create_device(CreateDeviceRequest {
            parent: ACME.to_owned(),
            device_id: "d".to_owned(),
            device: Some(device),
            ..Default::default()
        })
        .await
        .unwrap();
    let issue = IssueCredentialRequest { parent: format!("{ACME}/devices/d"), ttl: None };
    let mut tokens = vec![admin.credentials.issue_credential(issue).await.unwrap().into_inner().secret];
    tokens.push(fixture.token(None, &[Scope::Platform]).await);
    tokens.push(fixture.token(Some("acme"), &[Scope::Read, Scope::Write, Scope::Provision]).await);
    let here = &fixture.service;
    for (how, port) in fixture.ports() {
        for token in &tokens {
            let expected = here.authenticate(token).await.unwrap();
            assert_eq!(port.authenticate(token).await.unwrap(), expected, "{how}");
        }
        let expected = here.device(&tenant, &id).await.unwrap();
        assert_eq!(port.device(&tenant, &id).await.unwrap(), expected, "{how}");
        for profile in ["room", "default"] {
            let expected = here.profile(&tenant, profile).await.unwrap();
            assert_eq!(port.profile(&tenant, profile).await.unwrap(), expected, "{how}");
        }
        for refused in ["", "nonsense", "wa_1_2", "ws_1", &format!("{}x", tokens[1])] {
            let error = port.authenticate(refused).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{how}: {refused:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selection_of_more_than_one_answer_holds_is_whole() {
    let fixture = Fixture::start().await;
    let tenant = TenantId::new("acme").unwrap();
    let admin = fixture.admin().await;
    let attributes: HashMap<String, String> = [("note".to_owned(), "x".repeat(1_024))].into();
    let made = futures::stream::iter(0..2_300).map(|n| {
        let (mut devices, attributes) = (admin.devices.clone(), attributes.clone());
        async move {
            let request = CreateDeviceRequest {
                parent: ACME.to_owned(),
                device_id: format!("d{n:04}"),
                device: Some(Device { attributes, ..Default::default() }),
                ..Default::default()
            };
            devices.create_device(request).await.unwrap();
        }
    });
    made.buffer_unordered(64).collect::<Vec<()>>().await;
    let all = Selector::default();
    for (how, port) in fixture.ports() {
        for (limit, expected) in
            [(5_000, 2_300), (2_300, 2_300), (2_299, 2_299), (1_000, 1_000), (1_001, 1_001)]
        {
            let found = port.select(&tenant, &all, None, limit).await.unwrap();
            let ids: Vec<_> = found.iter().map(|device| device.id.to_string()).collect();
            let wanted: Vec<_> = (0..expected).map(|n| format!("d{n:04}")).collect();
            assert_eq!(ids, wanted, "{how}: {limit}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_is_refused_with_its_field() {
    let fixture = Fixture::start().await;
    let mut service = fixture.as_service().await;
    let text = |text: &str| text.to_owned();
    for (tenant, device, field) in
        [("", "d", "tenant"), ("A", "d", "tenant"), ("acme", "", "device"), ("acme", "a b", "device")]
    {
        let request = FindDeviceRequest { tenant: text(tenant), device: text(device) };
        let error = from_status(service.find_device(request).await.unwrap_err());
        assert_eq!(
            (error.kind(), error.field()),
            (ErrorKind::InvalidArgument, Some(field)),
            "{tenant} {device}"
        );
    }
    let request = FindProfileRequest { tenant: text("/"), profile: text("room") };
    let error = from_status(service.find_profile(request).await.unwrap_err());
    assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidArgument, Some("tenant")));
    let request = || SelectDevicesRequest { tenant: text("acme"), limit: 1, ..Default::default() };
    for (request, field) in [
        (SelectDevicesRequest { limit: 0, ..request() }, "limit"),
        (SelectDevicesRequest { after: text("a b"), ..request() }, "after"),
        (SelectDevicesRequest { label_selector: text("a ~ b"), ..request() }, "label_selector"),
        (SelectDevicesRequest { tenant: text(""), ..request() }, "tenant"),
    ] {
        let error = from_status(service.select_devices(request).await.unwrap_err());
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidArgument, Some(field)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_service_asks_who_is_who() {
    let fixture = Fixture::start().await;
    let issue = IssueCredentialRequest { parent: format!("{ACME}/devices/d"), ttl: None };
    let mut admin = fixture.admin().await;
    create(&mut admin, "d", "1").await;
    let device = admin.credentials.issue_credential(issue).await.unwrap().into_inner().secret;
    let everything = fixture.token(Some("acme"), &Scope::ALL).await;
    let another_key = ServiceKey::generate().unwrap();
    for (token, code) in [
        (everything.as_str(), Code::PermissionDenied),
        (&device, Code::PermissionDenied),
        ("", Code::Unauthenticated),
        ("nonsense", Code::Unauthenticated),
        (&another_key, Code::Unauthenticated),
    ] {
        let mut directory = fixture.as_bearer(token).await;
        let request = AuthenticateRequest { token: everything.clone() };
        assert_eq!(directory.authenticate(request).await.unwrap_err().code(), code, "{token}");
        let request = FindDeviceRequest { tenant: "acme".to_owned(), device: "d".to_owned() };
        assert_eq!(directory.find_device(request).await.unwrap_err().code(), code, "{token}");
    }
    let (tenant, id) = (TenantId::new("acme").unwrap(), DeviceId::new("d").unwrap());
    let loopback = &fixture.loopback;
    let wrong = Identity::Key(ServiceKey::parse(&another_key).unwrap());
    for (addresses, identity) in
        [([loopback.plain()], wrong), ([loopback.secure()], loopback.by_other_certificate())]
    {
        let port = RegistryClient::new(Peer::new("registry", &addresses, &identity).unwrap());
        // A service that is not known must not take it for a word on the user's token.
        for error in
            [port.authenticate(&everything).await.map(drop), port.device(&tenant, &id).await.map(drop)]
        {
            let error = error.unwrap_err();
            assert_eq!((error.kind(), error.reason()), (ErrorKind::Unavailable, "SERVICE_IDENTITY_REFUSED"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_has_no_access_to_a_tenant_by_itself_and_a_token_over_its_connection_is_the_users() {
    let fixture = Fixture::start().await;
    for bearer in [None, Some(fixture.loopback.key().reveal())] {
        let mut client = fixture.over_mutual_tls(bearer).await;
        let request = ListTenantsRequest::default();
        assert_eq!(client.list_tenants(request).await.unwrap_err().code(), Code::PermissionDenied);
        let request = GetTenantRequest { name: ACME.to_owned() };
        assert_eq!(client.get_tenant(request).await.unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(client.get_self(GetSelfRequest {}).await.unwrap_err().code(), Code::PermissionDenied);
    }
    let token = fixture.token(Some("acme"), &[Scope::Read]).await;
    let mut client = fixture.over_mutual_tls(Some(&token)).await;
    let own = client.get_self(GetSelfRequest {}).await.unwrap().into_inner();
    assert_eq!((own.tenant.as_str(), own.scopes), (ACME, vec!["read".to_owned()]));
    let mut client = fixture.over_mutual_tls(Some("nonsense")).await;
    assert_eq!(client.get_self(GetSelfRequest {}).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selection_gives_what_matches_in_order_and_fewer_only_at_the_end() {
    let fixture = Fixture::start().await;
    let mut admin = fixture.admin().await;
    let tenant = TenantId::new("acme").unwrap();
    for n in 0..30 {
        create(&mut admin, &format!("d{n:02}"), if n % 10 == 0 { "1" } else { "2" }).await;
    }
    let selector: Selector = "floor=1".parse().unwrap();
    let ids = async |port: &Arc<dyn Registry>, after: Option<&str>, limit| {
        let after = after.map(|after| DeviceId::new(after).unwrap());
        let found = port.select(&tenant, &selector, after.as_ref(), limit).await.unwrap();
        found.iter().map(|device| device.id.to_string()).collect::<Vec<_>>()
    };
    let ports = fixture.ports();
    for (how, port) in ports.iter().chain(&ports) {
        assert_eq!(ids(port, None, 2).await, ["d00", "d10"], "{how}");
        assert_eq!(ids(port, Some("d10"), 2).await, ["d20"], "{how}");
        assert!(ids(port, None, 0).await.is_empty(), "{how}");
    }
    create(&mut admin, "d205", "1").await;
    let nobody = TenantId::new("other").unwrap();
    for (how, port) in &ports {
        assert_eq!(
            ids(port, Some("d10"), 2).await,
            ["d20", "d205"],
            "{how}: a change is seen through the cache"
        );
        assert_eq!(port.select(&nobody, &Selector::default(), None, 10).await.unwrap(), [], "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_profile_is_there_and_another_follows_its_changes() {
    let fixture = Fixture::start().await;
    let mut admin = fixture.admin().await;
    let tenant = TenantId::new("acme").unwrap();
    for (how, port) in fixture.ports() {
        assert!(port.profile(&tenant, "default").await.unwrap().metrics.is_empty(), "{how}");
        assert_eq!(port.profile(&tenant, "room").await.unwrap_err().kind(), ErrorKind::NotFound, "{how}");
    }
    let request =
        CreateProfileRequest { parent: ACME.to_owned(), profile_id: "room".to_owned(), ..Default::default() };
    let made = admin.profiles.create_profile(request).await.unwrap().into_inner().profile.unwrap();
    for (how, port) in fixture.ports() {
        assert!(!port.profile(&tenant, "room").await.unwrap().gateway, "{how}");
    }
    let change = Profile { gateway: true, ..made };
    let request = UpdateProfileRequest { profile: Some(change), update_mask: None };
    let changed = admin.profiles.update_profile(request).await.unwrap().into_inner().profile.unwrap();
    assert_eq!(changed.revision, 2);
    for (how, port) in fixture.ports() {
        assert!(port.profile(&tenant, "room").await.unwrap().gateway, "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_finds_out_whether_anybody_holds_a_token() {
    let fixture = Fixture::start().await;
    assert!(!fixture.service.any_token().await.unwrap());
    fixture.admin().await;
    assert!(fixture.service.any_token().await.unwrap());
    fixture.service.ensure_tenant(&TenantId::new("acme").unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_known_already_is_imported_once_and_works() {
    let fixture = Fixture::start().await;
    let tenant = TenantId::new("acme").unwrap();
    fixture.service.ensure_tenant(&tenant).await.unwrap();
    let token = weir_registry::token().unwrap();
    let import = async |token: &str| {
        fixture.service.import_token(Some(&tenant), &[Scope::Platform, Scope::Admin], "first", token).await
    };
    import(&token).await.unwrap();
    import(&token).await.unwrap();
    assert!(fixture.service.authenticate(&token).await.is_ok());
    let other = format!("{}{}", &token[..token.len() - 1], if token.ends_with('a') { 'b' } else { 'a' });
    assert_eq!(import(&other).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    for wrong in ["", "wa_x", &token.replace("wa_", "wd_")] {
        assert_eq!(import(wrong).await.unwrap_err().reason(), "TOKEN_INVALID", "{wrong}");
    }
}
