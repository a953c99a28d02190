//! The call port of the registry: what other services see of a change, and when.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is the report

mod support;

use std::{future::Future, time::Duration};

use support::{Client, Fixture};
use weir_core::{DeviceId, ErrorKind, TenantId, port::Registry, selector::Selector};
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
    for service in [&fixture.service, &fixture.other] {
        assert!(service.device(&tenant, &id).await.unwrap().enabled);
        service.authenticate(&issued.secret).await.unwrap();
    }
    let device = Device { disabled: true, ..made.clone() };
    admin
        .devices
        .update_device(UpdateDeviceRequest { device: Some(device), update_mask: None })
        .await
        .unwrap();
    assert!(!fixture.service.device(&tenant, &id).await.unwrap().enabled);
    eventually("the other process sees it", async || {
        !fixture.other.device(&tenant, &id).await.unwrap().enabled
    })
    .await;
    let refused = async || fixture.other.authenticate(&issued.secret).await.is_err();
    eventually("the other process refuses its credential", refused).await;
    admin.devices.delete_device(DeleteDeviceRequest { name: made.name, ..Default::default() }).await.unwrap();
    let error = fixture.service.device(&tenant, &id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
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
    let ids = async |after: Option<&str>, limit| {
        let after = after.map(|after| DeviceId::new(after).unwrap());
        let found = fixture.service.select(&tenant, &selector, after.as_ref(), limit).await.unwrap();
        found.iter().map(|device| device.id.to_string()).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        assert_eq!(ids(None, 2).await, ["d00", "d10"]);
        assert_eq!(ids(Some("d10"), 2).await, ["d20"]);
    }
    create(&mut admin, "d205", "1").await;
    assert_eq!(ids(Some("d10"), 2).await, ["d20", "d205"], "a change is seen through the cache");
    let nobody = TenantId::new("other").unwrap();
    assert_eq!(fixture.service.select(&nobody, &Selector::default(), None, 10).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_profile_is_there_and_another_follows_its_changes() {
    let fixture = Fixture::start().await;
    let mut admin = fixture.admin().await;
    let tenant = TenantId::new("acme").unwrap();
    assert!(fixture.service.profile(&tenant, "default").await.unwrap().metrics.is_empty());
    assert_eq!(fixture.service.profile(&tenant, "room").await.unwrap_err().kind(), ErrorKind::NotFound);
    let request =
        CreateProfileRequest { parent: ACME.to_owned(), profile_id: "room".to_owned(), ..Default::default() };
    let made = admin.profiles.create_profile(request).await.unwrap().into_inner().profile.unwrap();
    assert!(!fixture.service.profile(&tenant, "room").await.unwrap().gateway);
    let change = Profile { gateway: true, ..made };
    let request = UpdateProfileRequest { profile: Some(change), update_mask: None };
    let changed = admin.profiles.update_profile(request).await.unwrap().into_inner().profile.unwrap();
    assert_eq!(changed.revision, 2);
    assert!(fixture.service.profile(&tenant, "room").await.unwrap().gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_finds_out_whether_anybody_holds_a_token() {
    let fixture = Fixture::start().await;
    assert!(!fixture.service.any_token().await.unwrap());
    fixture.admin().await;
    assert!(fixture.service.any_token().await.unwrap());
    fixture.service.ensure_tenant(&TenantId::new("acme").unwrap()).await.unwrap();
}
