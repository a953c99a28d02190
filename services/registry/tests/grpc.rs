//! `weir.registry.v1` over a real connection.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is the report

mod support;

use std::{sync::atomic::Ordering, time::Duration};

use support::{Client, Fixture};
use tonic::Code;
use weir_core::principal::Scope as DomainScope;
use weir_grpc::from_status;
use weir_proto::registry::v1::*;

const ACME: &str = "tenants/acme";

fn device(id: &str, labels: &[(&str, &str)]) -> CreateDeviceRequest {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    CreateDeviceRequest {
        parent: ACME.to_owned(),
        device_id: id.to_owned(),
        device: Some(Device { labels, ..Default::default() }),
        ..Default::default()
    }
}

async fn create(client: &mut Client, id: &str) -> Device {
    client.devices.create_device(device(id, &[])).await.unwrap().into_inner().device.unwrap()
}

async fn issue(client: &mut Client, id: &str) -> IssueCredentialResponse {
    let parent = format!("{ACME}/devices/{id}");
    client
        .credentials
        .issue_credential(IssueCredentialRequest { parent, ttl: None })
        .await
        .unwrap()
        .into_inner()
}

fn metric(name: &str) -> Metric {
    Metric { name: name.to_owned(), r#type: MetricType::Double as i32, ..Default::default() }
}

fn profile(id: &str, profile: Profile) -> CreateProfileRequest {
    CreateProfileRequest {
        parent: ACME.to_owned(),
        profile_id: id.to_owned(),
        profile: Some(profile),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_works_until_it_is_revoked_or_expires_and_every_refusal_reads_the_same() {
    let fixture = Fixture::start().await;
    let mut admin = fixture.admin().await;
    let make = |ttl: Option<i64>| CreateTokenRequest {
        parent: ACME.to_owned(),
        scopes: vec![Scope::Read as i32],
        display_name: "a reader".to_owned(),
        ttl: ttl.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
    };
    let made = admin.tokens.create_token(make(None)).await.unwrap().into_inner();
    let short = admin.tokens.create_token(make(Some(60))).await.unwrap().into_inner();
    let mut reader = fixture.client(&made.secret).await;
    let mut short_reader = fixture.client(&short.secret).await;
    let own = reader.tenants.get_self(GetSelfRequest {}).await.unwrap().into_inner();
    assert_eq!((own.tenant.as_str(), own.scopes.as_slice()), (ACME, ["read".to_owned()].as_slice()));
    short_reader.tenants.get_self(GetSelfRequest {}).await.unwrap();

    let name = made.token.unwrap().name;
    assert!(name.ends_with(&own.token_id));
    for _ in 0..2 {
        admin.tokens.revoke_token(RevokeTokenRequest { name: name.clone() }).await.unwrap(); // idempotent
    }
    fixture.clock.advance(Duration::from_secs(60));
    let mut texts = Vec::new();
    let wrong_secret = format!(
        "{}{}",
        &made.secret[..made.secret.len() - 1],
        if made.secret.ends_with('a') { 'b' } else { 'a' }
    );
    for token in [&made.secret, &short.secret, &wrong_secret, "wa_0011223344556677_x", "nonsense"] {
        let status = fixture.client(token).await.tenants.get_self(GetSelfRequest {}).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{token}");
        texts.push(status.message().to_owned());
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    let listed =
        admin.tokens.list_tokens(ListTokensRequest { parent: ACME.to_owned(), ..Default::default() });
    let names: Vec<_> =
        listed.await.unwrap().into_inner().tokens.into_iter().map(|token| token.name).collect();
    assert!(!names.contains(&name) && names.is_sorted(), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_platform_makes_tenants_and_their_first_tokens_and_it_sees_no_data() {
    let fixture = Fixture::start().await;
    let mut platform = fixture.client(&fixture.token(None, &[DomainScope::Platform]).await).await;
    let request =
        CreateTenantRequest { tenant_id: "new".to_owned(), request_id: "r".to_owned(), ..Default::default() };
    let made = platform.tenants.create_tenant(request.clone()).await.unwrap().into_inner();
    assert_eq!(platform.tenants.create_tenant(request.clone()).await.unwrap().into_inner(), made);
    let again = CreateTenantRequest { request_id: String::new(), ..request };
    assert_eq!(platform.tenants.create_tenant(again).await.unwrap_err().code(), Code::AlreadyExists);
    let first = CreateTokenRequest {
        parent: "tenants/new".to_owned(),
        scopes: vec![Scope::Admin as i32],
        ..Default::default()
    };
    let secret = platform.tokens.create_token(first.clone()).await.unwrap().into_inner().secret;
    let mut admin = fixture.client(&secret).await;
    let list = ListDevicesRequest { parent: "tenants/new".to_owned(), ..Default::default() };
    admin.devices.list_devices(list.clone()).await.unwrap();
    assert_eq!(platform.devices.list_devices(list.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(
        admin.tenants.list_tenants(ListTenantsRequest::default()).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let escalating = CreateTokenRequest { scopes: vec![Scope::Platform as i32], ..first };
    assert_eq!(admin.tokens.create_token(escalating).await.unwrap_err().code(), Code::PermissionDenied);

    let disabled = Tenant { name: "tenants/new".to_owned(), disabled: true, ..Default::default() };
    platform
        .tenants
        .update_tenant(UpdateTenantRequest { tenant: Some(disabled), ..Default::default() })
        .await
        .unwrap();
    assert_eq!(admin.devices.list_devices(list).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenant_is_refused_before_existence_is_looked_up() {
    let fixture = Fixture::start().await;
    let mut admin = fixture.admin().await;
    create(&mut admin, "d").await;
    let mut other = fixture.client(&fixture.token(Some("other"), &[DomainScope::Admin]).await).await;
    for id in ["d", "no-such"] {
        let name = format!("{ACME}/devices/{id}");
        let get = other.devices.get_device(GetDeviceRequest { name: name.clone() }).await;
        assert_eq!(get.unwrap_err().code(), Code::PermissionDenied);
        let delete =
            other.devices.delete_device(DeleteDeviceRequest { name: name.clone(), ..Default::default() });
        assert_eq!(delete.await.unwrap_err().code(), Code::PermissionDenied);
        let issue = other.credentials.issue_credential(IssueCredentialRequest { parent: name, ttl: None });
        assert_eq!(issue.await.unwrap_err().code(), Code::PermissionDenied);
    }
    assert_eq!(
        other.devices.create_device(device("x", &[])).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    assert_eq!(
        other.profiles.create_profile(profile("x", Profile::default())).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let foreign = CreateDeviceRequest {
        parent: "tenants/other".to_owned(),
        device: Some(Device { profile: format!("{ACME}/profiles/default"), ..Default::default() }),
        ..device("x", &[])
    };
    assert_eq!(other.devices.create_device(foreign).await.unwrap_err().code(), Code::PermissionDenied);
    let mut reader = fixture.client(&fixture.token(Some("acme"), &[DomainScope::Read]).await).await;
    reader.devices.get_device(GetDeviceRequest { name: format!("{ACME}/devices/d") }).await.unwrap();
    assert_eq!(
        reader.devices.create_device(device("x", &[])).await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_may_ask_who_it_is_and_nothing_else() {
    let fixture = Fixture::start().await;
    let mut admin = fixture.admin().await;
    create(&mut admin, "d").await;
    let issued = issue(&mut admin, "d").await;
    assert!(issued.secret.starts_with("wd_"));
    let mut own = fixture.client(&issued.secret).await;
    let found = own.tenants.get_self(GetSelfRequest {}).await.unwrap().into_inner();
    assert_eq!((found.tenant.as_str(), found.device), (ACME, format!("{ACME}/devices/d")));
    let name = format!("{ACME}/devices/d");
    let get = own.devices.get_device(GetDeviceRequest { name: name.clone() }).await;
    assert_eq!(get.unwrap_err().code(), Code::PermissionDenied);
    let issue = own.credentials.issue_credential(IssueCredentialRequest { parent: name, ttl: None }).await;
    assert_eq!(issue.unwrap_err().code(), Code::PermissionDenied);
    let list =
        own.tokens.list_tokens(ListTokensRequest { parent: ACME.to_owned(), ..Default::default() }).await;
    assert_eq!(list.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_disabling_and_deleting_end_a_devices_credential_at_once() {
    let fixture = Fixture::start().await;
    let mut admin = fixture.admin().await;
    let check =
        async |secret: &str| fixture.client(secret).await.tenants.get_self(GetSelfRequest {}).await.is_ok();
    let first = create(&mut admin, "d").await;
    let (one, two) = (issue(&mut admin, "d").await, issue(&mut admin, "d").await);
    assert!(check(&one.secret).await && check(&two.secret).await);
    let name = one.credential.unwrap().name;
    for _ in 0..2 {
        admin.credentials.revoke_credential(RevokeCredentialRequest { name: name.clone() }).await.unwrap();
    }
    assert!(!check(&one.secret).await && check(&two.secret).await);
    let mut update = async |disabled: bool| {
        let device = Device { disabled, ..first.clone() };
        let device = Device { etag: String::new(), ..device };
        admin
            .devices
            .update_device(UpdateDeviceRequest { device: Some(device), update_mask: None })
            .await
            .unwrap();
    };
    update(true).await;
    assert!(!check(&two.secret).await);
    update(false).await;
    assert!(check(&two.secret).await);
    let delete = DeleteDeviceRequest { name: first.name.clone(), ..Default::default() };
    admin.devices.delete_device(delete).await.unwrap();
    assert!(!check(&two.secret).await);
    let second = create(&mut admin, "d").await;
    assert_ne!(first.uid, second.uid);
    assert!(!check(&two.secret).await, "another device of the same id");
    let list = ListCredentialsRequest { parent: second.name, ..Default::default() };
    assert_eq!(admin.credentials.list_credentials(list).await.unwrap().into_inner().credentials, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_has_eight_credentials_at_most() {
    let fixture = Fixture::start().await;
    let mut admin = fixture.admin().await;
    create(&mut admin, "d").await;
    for _ in 0..8 {
        issue(&mut admin, "d").await;
    }
    let parent = format!("{ACME}/devices/d");
    let ninth = admin
        .credentials
        .issue_credential(IssueCredentialRequest { parent: parent.clone(), ttl: None })
        .await;
    let error = from_status(ninth.unwrap_err());
    assert_eq!((error.reason(), error.limit()), ("TOO_MANY_CREDENTIALS", Some("8")));
    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let list = ListCredentialsRequest { parent: parent.clone(), page_size: 3, page_token };
        let page = admin.credentials.list_credentials(list).await.unwrap().into_inner();
        listed.extend(page.credentials.into_iter().map(|credential| credential.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(listed.len() == 8 && listed.is_sorted(), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_create_gives_the_first_ones_answer_and_a_check_writes_nothing() {
    let fixture = Fixture::start().await;
    let mut admin = fixture.admin().await;
    let request = CreateDeviceRequest { request_id: "r1".to_owned(), ..device("d", &[("type", "room")]) };
    let check = CreateDeviceRequest { validate_only: true, ..request.clone() };
    let checked = admin.devices.create_device(check).await.unwrap().into_inner().device.unwrap();
    assert_eq!((checked.uid.as_str(), checked.etag.as_str()), ("", ""));
    let made = admin.devices.create_device(request.clone()).await.unwrap().into_inner();
    assert_eq!(admin.devices.create_device(request.clone()).await.unwrap().into_inner(), made);
    let different = CreateDeviceRequest { request_id: "r1".to_owned(), ..device("d", &[]) };
    assert_eq!(admin.devices.create_device(different).await.unwrap_err().code(), Code::AlreadyExists);
    fixture.clock.advance(Duration::from_secs(3_601));
    assert_eq!(admin.devices.create_device(request).await.unwrap_err().code(), Code::AlreadyExists);
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_listed_by_selector_in_pages_in_order_of_their_ids() {
    let fixture = Fixture::start().await;
    let mut admin = fixture.admin().await;
    let requests =
        (0..300).map(|n| device(&format!("d{n:03}"), &[("floor", ["1", "2", "3"][n % 3])])).collect();
    let batch = BatchCreateDevicesRequest { parent: ACME.to_owned(), requests };
    let made = admin.devices.batch_create_devices(batch).await.unwrap().into_inner().items;
    assert!(made.iter().all(|item| item.status.as_ref().unwrap().code == 0));
    let (mut ids, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListDevicesRequest {
            parent: ACME.to_owned(),
            page_size: 70,
            page_token,
            label_selector: "floor in (1,2),!retired".to_owned(),
        };
        let page = admin.devices.list_devices(request).await.unwrap().into_inner();
        ids.extend(page.devices.into_iter().map(|device| device.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let expected: Vec<_> =
        (0..300).filter(|n| n % 3 != 2).map(|n| format!("{ACME}/devices/d{n:03}")).collect();
    assert_eq!(ids, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_device_of_a_batch_does_not_spoil_the_others() {
    let fixture = Fixture::start().await;
    let mut admin = fixture.admin().await;
    let requests = vec![device("a", &[]), device("b c", &[]), device("a", &[]), device("c", &[("k", "a b")])];
    let batch = BatchCreateDevicesRequest { parent: ACME.to_owned(), requests };
    let items = admin.devices.batch_create_devices(batch).await.unwrap().into_inner().items;
    let codes: Vec<_> = items.iter().map(|item| Code::from(item.status.as_ref().unwrap().code)).collect();
    let exists = codes.iter().filter(|code| **code == Code::AlreadyExists).count();
    assert_eq!((exists, codes[1], codes[3]), (1, Code::InvalidArgument, Code::InvalidArgument));
    assert_eq!(items[3].status.as_ref().unwrap().field, "device.labels.k");
    let too_many = vec![device("a", &[]); 1_001];
    let batch = BatchCreateDevicesRequest { parent: ACME.to_owned(), requests: too_many };
    let error = from_status(admin.devices.batch_create_devices(batch).await.unwrap_err());
    assert_eq!((error.field(), error.limit()), (Some("requests"), Some("1000")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_changes_what_its_mask_names_and_honours_the_etag() {
    let fixture = Fixture::start().await;
    let mut admin = fixture.admin().await;
    let made =
        admin.devices.create_device(device("d", &[("a", "1")])).await.unwrap().into_inner().device.unwrap();
    let mask = |paths: &[&str]| {
        Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
    };
    let change = Device { gateway: true, labels: Default::default(), ..made.clone() };
    let request = UpdateDeviceRequest { device: Some(change.clone()), update_mask: mask(&["gateway"]) };
    let changed = admin.devices.update_device(request.clone()).await.unwrap().into_inner().device.unwrap();
    assert_eq!((changed.gateway, changed.labels.get("a").map(String::as_str)), (true, Some("1")));
    assert_ne!(changed.etag, made.etag);
    let error = from_status(admin.devices.update_device(request).await.unwrap_err());
    assert_eq!(error.reason(), "ETAG_MISMATCH");
    let delete = DeleteDeviceRequest { name: made.name, etag: made.etag };
    assert_eq!(admin.devices.delete_device(delete).await.unwrap_err().code(), Code::FailedPrecondition);
    let request = UpdateDeviceRequest { device: Some(change), update_mask: mask(&["uid"]) };
    assert_eq!(
        from_status(admin.devices.update_device(request).await.unwrap_err()).field(),
        Some("update_mask")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_profile_cannot_enforce_yet_is_refused_by_name() {
    let fixture = Fixture::start().await;
    let mut admin = fixture.admin().await;
    let metrics = vec![metric("a"), metric("b"), Metric { min: Some(1.0), ..metric("c") }];
    for (message, field) in [
        (Profile { metrics, ..Default::default() }, "profile.metrics[2].min"),
        (
            Profile { metrics: vec![Metric { max: Some(1.0), ..metric("c") }], ..Default::default() },
            "profile.metrics[0].max",
        ),
        (
            Profile { unknown_metrics: UnknownMetrics::Refuse as i32, ..Default::default() },
            "profile.unknown_metrics",
        ),
        (Profile { on_error: OnError::DeadLetter as i32, ..Default::default() }, "profile.on_error"),
        (Profile { retention: Some(Default::default()), ..Default::default() }, "profile.retention"),
        (Profile { commands: vec![Default::default()], ..Default::default() }, "profile.commands"),
    ] {
        let status = admin.profiles.create_profile(profile("p", message)).await.unwrap_err();
        assert_eq!((status.code(), from_status(status).field()), (Code::Unimplemented, Some(field)));
    }
    for (metrics, field) in [
        (vec![metric("a"), metric("a")], "profile.metrics[1].name"),
        (vec![metric("")], "profile.metrics[0].name"),
        (vec![Metric { r#type: 0, ..metric("a") }], "profile.metrics[0].type"),
        (vec![Metric { unit: "x".repeat(33), ..metric("a") }], "profile.metrics[0].unit"),
        (vec![metric("a"); 257], "profile.metrics"),
    ] {
        let status =
            admin.profiles.create_profile(profile("p", Profile { metrics, ..Default::default() })).await;
        let error = from_status(status.unwrap_err());
        assert_eq!(error.field(), Some(field), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_is_managed_elsewhere_is_changed_there_or_taken_over() {
    let fixture = Fixture::start().await;
    let mut admin = fixture.admin().await;
    let by = "DeviceProfile plant/room";
    let create = CreateProfileRequest { managed_by: by.to_owned(), ..profile("room", Profile::default()) };
    let made = admin.profiles.create_profile(create).await.unwrap().into_inner().profile.unwrap();
    assert_eq!(made.managed_by, by);
    let update = |by: &str, paths: &[&str]| UpdateProfileRequest {
        profile: Some(Profile { gateway: true, etag: String::new(), ..made.clone() }),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }),
        managed_by: by.to_owned(),
    };
    let refused = from_status(admin.profiles.update_profile(update("", &["gateway"])).await.unwrap_err());
    assert_eq!((refused.reason(), refused.field()), ("MANAGED", Some("managed_by")));
    let delete = DeleteProfileRequest { name: made.name.clone(), ..Default::default() };
    let refused = from_status(admin.profiles.delete_profile(delete.clone()).await.unwrap_err());
    assert_eq!(refused.reason(), "MANAGED");
    let changed = admin.profiles.update_profile(update(by, &["gateway"])).await.unwrap().into_inner();
    assert!(changed.profile.unwrap().gateway);
    let released = admin.profiles.update_profile(update("", &["managed_by"])).await.unwrap().into_inner();
    assert_eq!(released.profile.unwrap().managed_by, "");
    admin.profiles.delete_profile(delete).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_in_use_cannot_go_and_the_default_one_cannot_change() {
    let fixture = Fixture::start().await;
    let mut admin = fixture.admin().await;
    let message = Profile { metrics: vec![metric("temp")], gateway: true, ..Default::default() };
    let made =
        admin.profiles.create_profile(profile("room", message)).await.unwrap().into_inner().profile.unwrap();
    let mut request = device("d", &[]);
    request.device.as_mut().unwrap().profile.clone_from(&made.name);
    admin.devices.create_device(request).await.unwrap();
    let delete = DeleteProfileRequest { name: made.name.clone(), ..Default::default() };
    let error = from_status(admin.profiles.delete_profile(delete.clone()).await.unwrap_err());
    assert_eq!(error.reason(), "PROFILE_IN_USE");
    admin
        .devices
        .delete_device(DeleteDeviceRequest { name: format!("{ACME}/devices/d"), ..Default::default() })
        .await
        .unwrap();
    admin.profiles.delete_profile(delete).await.unwrap();
    let mut request = device("d", &[]);
    request.device.as_mut().unwrap().profile.clone_from(&made.name);
    let error = from_status(admin.devices.create_device(request).await.unwrap_err());
    assert_eq!((error.reason(), error.field()), ("NOT_FOUND", Some("device.profile")));

    for id in ["a", "z"] {
        admin.profiles.create_profile(profile(id, Profile::default())).await.unwrap();
    }
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let list = ListProfilesRequest { parent: ACME.to_owned(), page_size: 1, page_token };
        let page = admin.profiles.list_profiles(list).await.unwrap().into_inner();
        names.extend(page.profiles.into_iter().map(|profile| profile.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["a", "default", "z"].map(|id| format!("{ACME}/profiles/{id}")));
    let name = format!("{ACME}/profiles/default");
    let delete = admin
        .profiles
        .delete_profile(DeleteProfileRequest { name: name.clone(), ..Default::default() })
        .await;
    assert_eq!(from_status(delete.unwrap_err()).reason(), "PROFILE_IMMUTABLE");
    let change =
        UpdateProfileRequest { profile: Some(Profile { name, ..Default::default() }), ..Default::default() };
    assert_eq!(
        from_status(admin.profiles.update_profile(change).await.unwrap_err()).reason(),
        "PROFILE_IMMUTABLE"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_token_does_not_ask_the_store() {
    let fixture = Fixture::start().await;
    let mut admin = fixture.admin().await;
    admin.tenants.get_self(GetSelfRequest {}).await.unwrap();
    let before = fixture.records.reads.load(Ordering::SeqCst);
    for _ in 0..100 {
        admin.tenants.get_self(GetSelfRequest {}).await.unwrap();
    }
    assert_eq!(fixture.records.reads.load(Ordering::SeqCst), before);
    fixture.clock.advance(Duration::from_secs(30));
    admin.tenants.get_self(GetSelfRequest {}).await.unwrap();
    assert!(fixture.records.reads.load(Ordering::SeqCst) > before, "nothing is older than 30 s");
}
