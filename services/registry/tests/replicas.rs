//! Two registries over one store: what each does when the other does something at the same time, and when it sees it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is the report

mod support;

use std::{sync::Arc, time::Duration};

use support::{Client, Deaf, Fixture};
use tonic::Code;
use weir_core::{DeviceId, ErrorKind, TenantId, cache::AGE_AT_REGISTRY, port::Registry};
use weir_log_embedded::LocalSignals;
use weir_proto::registry::v1::*;

const ACME: &str = "tenants/acme";
/// Enough that two writers meet in most runs.
const ROUNDS: usize = 20;

fn device(id: &str, profile: &str) -> CreateDeviceRequest {
    CreateDeviceRequest {
        parent: ACME.to_owned(),
        device_id: id.to_owned(),
        device: Some(Device { profile: profile.to_owned(), ..Default::default() }),
        ..Default::default()
    }
}

async fn pair() -> (Fixture, Client, Client) {
    let fixture = Fixture::start().await;
    let (one, other) = (fixture.admin().await, fixture.other_admin().await);
    (fixture, one, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_create_a_device_at_once_one_does_and_a_repeated_request_gives_the_same_one() {
    let (_fixture, mut one, mut other) = pair().await;
    for round in 0..ROUNDS {
        let request = device(&format!("d{round}"), "");
        let (a, b) = tokio::join!(
            one.devices.create_device(request.clone()),
            other.devices.create_device(request.clone())
        );
        let codes = [a.err().map(|status| status.code()), b.err().map(|status| status.code())];
        assert!(codes.contains(&None) && codes.contains(&Some(Code::AlreadyExists)), "{codes:?}");

        let request =
            CreateDeviceRequest { request_id: format!("r{round}"), ..device(&format!("r{round}"), "") };
        let (a, b) =
            tokio::join!(one.devices.create_device(request.clone()), other.devices.create_device(request));
        let uid = |answer: tonic::Response<CreateDeviceResponse>| answer.into_inner().device.unwrap().uid;
        assert_eq!(uid(a.unwrap()), uid(b.unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_never_goes_while_a_device_takes_it_at_the_other() {
    let (fixture, mut one, mut other) = pair().await;
    let tenant = TenantId::new("acme").unwrap();
    for round in 0..ROUNDS {
        let (profile, id) = (format!("p{round}"), format!("d{round}"));
        let create = CreateProfileRequest {
            parent: ACME.to_owned(),
            profile_id: profile.clone(),
            ..Default::default()
        };
        one.profiles.create_profile(create).await.unwrap();
        let delete =
            DeleteProfileRequest { name: format!("{ACME}/profiles/{profile}"), ..Default::default() };
        let (deleted, created) = tokio::join!(
            one.profiles.delete_profile(delete),
            other.devices.create_device(device(&id, &profile))
        );
        assert_ne!(deleted.is_ok(), created.is_ok(), "{deleted:?} {created:?}");
        let there = fixture.other.device(&tenant, &DeviceId::new(&id).unwrap()).await;
        match there {
            Ok(device) => assert!(fixture.other.profile(&tenant, &device.profile).await.is_ok()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
        }
        if created.is_ok() {
            let more = other.devices.create_device(device(&format!("more{round}"), &profile)).await;
            assert!(more.is_ok(), "a profile that stays can be taken: {more:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_both_issue_at_once_are_all_listed_work_and_stay_within_their_bound() {
    let (fixture, mut one, mut other) = pair().await;
    let made = one.devices.create_device(device("d", "")).await.unwrap().into_inner().device.unwrap();
    let issue = || IssueCredentialRequest { parent: made.name.clone(), ttl: None };
    let mut secrets = Vec::new();
    for _ in 0..6 {
        let (a, b) = tokio::join!(
            one.credentials.issue_credential(issue()),
            other.credentials.issue_credential(issue())
        );
        for answer in [a, b] {
            match answer {
                Ok(issued) => secrets.push(issued.into_inner().secret),
                Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
            }
        }
    }
    assert_eq!(secrets.len(), 8);
    for secret in secrets {
        fixture.service.authenticate(&secret).await.unwrap();
        fixture.other.authenticate(&secret).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_of_a_device_that_the_other_deletes_meanwhile_opens_nothing() {
    let (fixture, mut one, mut other) = pair().await;
    for round in 0..ROUNDS {
        let made = one
            .devices
            .create_device(device(&format!("d{round}"), ""))
            .await
            .unwrap()
            .into_inner()
            .device
            .unwrap();
        let issue = IssueCredentialRequest { parent: made.name.clone(), ttl: None };
        let delete = DeleteDeviceRequest { name: made.name.clone(), ..Default::default() };
        let (issued, deleted) =
            tokio::join!(one.credentials.issue_credential(issue), other.devices.delete_device(delete));
        deleted.unwrap();
        if let Ok(issued) = issued {
            let secret = issued.into_inner().secret;
            for service in [&fixture.service, &fixture.other] {
                let refused = async {
                    while service.authenticate(&secret).await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                };
                tokio::time::timeout(Duration::from_secs(20), refused).await.expect("it is still let in");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_signals_that_lose_everything_the_other_sees_a_change_when_its_cache_has_aged() {
    let fixture = Fixture::over(Arc::new(Deaf), Arc::new(Deaf), Arc::new(LocalSignals::new())).await;
    let (mut one, tenant) = (fixture.admin().await, TenantId::new("acme").unwrap());
    let made = one.devices.create_device(device("d", "")).await.unwrap().into_inner().device.unwrap();
    let issue = IssueCredentialRequest { parent: made.name.clone(), ttl: None };
    let issued = one.credentials.issue_credential(issue).await.unwrap().into_inner();
    let id = DeviceId::new("d").unwrap();
    assert!(fixture.other.device(&tenant, &id).await.unwrap().enabled);
    fixture.other.authenticate(&issued.secret).await.unwrap();
    let disabled = Device { disabled: true, ..made };
    let request = UpdateDeviceRequest { device: Some(disabled), update_mask: None };
    one.devices.update_device(request).await.unwrap();
    fixture.clock.advance(AGE_AT_REGISTRY - Duration::from_micros(1));
    assert!(fixture.other.device(&tenant, &id).await.unwrap().enabled, "nothing told it");
    fixture.clock.advance(Duration::from_micros(1));
    assert!(!fixture.other.device(&tenant, &id).await.unwrap().enabled);
    let error = fixture.other.authenticate(&issued.secret).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
}

#[tokio::test]
async fn a_registry_with_another_pepper_than_the_stores_is_refused_and_one_that_still_knows_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let records = weir_store_embedded::EmbeddedStore::open(dir.path(), Default::default()).unwrap();
    let start = async |lines: &[&str]| {
        let peppers = weir_registry::Peppers::parse(&lines.join("\n")).unwrap();
        let metrics = prometheus::Registry::new();
        let started = weir_registry::Service::start(
            weir_registry::Config::default(),
            Arc::clone(&records) as _,
            Arc::new(LocalSignals::new()),
            Arc::new(weir_core::SystemClock),
            peppers,
            &metrics,
        );
        started.await.map(drop).map_err(|error| error.reason().to_owned())
    };
    let (first, second) =
        (weir_registry::Peppers::generate().unwrap(), weir_registry::Peppers::generate().unwrap());
    start(&[&first]).await.unwrap();
    assert_eq!(start(&[&second]).await.unwrap_err(), "PEPPER_OTHER");
    start(&[&second, &first]).await.unwrap(); // it is the new one's from now on
    start(&[&second]).await.unwrap();
    assert_eq!(start(&[&first]).await.unwrap_err(), "PEPPER_OTHER");
}
