//! What a process remembers of a registry elsewhere: real registry services over one store stand behind it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is the report

#[path = "../../../services/registry/tests/support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, channel::mpsc};
use support::{Client, Deaf, Fixture};
use tokio::sync::{Mutex, Semaphore};
use weir_clients::CachedRegistry;
use weir_core::{
    DeviceId, Error, ErrorKind, Result, TenantId,
    cache::{AGE_AT_CALLER, AGE_AT_REGISTRY},
    device::{Device, Profile},
    port::{Registry, Signal, SignalStream, Signals, Topic},
    principal::Principal,
    selector::Selector,
};
use weir_log_embedded::LocalSignals;
use weir_proto::registry::v1::{self as api, *};

/// The way to a registry: counts calls, holds them up, and can be cut.
struct Way {
    registry: Arc<dyn Registry>,
    cut: AtomicBool,
    calls: AtomicUsize,
    at_once: AtomicUsize,
    at_once_max: AtomicUsize,
    gate: Semaphore,
}

impl Way {
    fn to(registry: Arc<dyn Registry>) -> Arc<Self> {
        Arc::new(Self {
            registry,
            cut: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            at_once_max: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        })
    }

    async fn go<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.at_once_max.fetch_max(at_once, Ordering::SeqCst);
        let answer = async {
            let _through = self.gate.acquire().await.unwrap();
            if self.cut.load(Ordering::SeqCst) {
                return Err(Error::unavailable("the way is cut"));
            }
            call.await
        }
        .await;
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Registry for Way {
    async fn authenticate(&self, token: &str) -> Result<Principal> {
        self.go(self.registry.authenticate(token)).await
    }
    async fn device(&self, tenant: &TenantId, device: &DeviceId) -> Result<Arc<Device>> {
        self.go(self.registry.device(tenant, device)).await
    }
    async fn profile(&self, tenant: &TenantId, profile: &str) -> Result<Arc<Profile>> {
        self.go(self.registry.profile(tenant, profile)).await
    }
    async fn select(
        &self,
        tenant: &TenantId,
        selector: &Selector,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<Arc<Device>>> {
        self.go(self.registry.select(tenant, selector, after, limit)).await
    }
}

/// Signals that a test writes, gaps among them.
struct Written(Mutex<Option<mpsc::UnboundedReceiver<Option<Signal>>>>);

#[async_trait]
impl Signals for Written {
    async fn publish(&self, _: Signal) {}
    async fn subscribe(&self, _: Topic) -> SignalStream {
        self.0.lock().await.take().expect("subscribed once").boxed()
    }
}

struct Bench {
    fixture: Fixture,
    way: Arc<Way>,
    cached: Arc<CachedRegistry>,
    admin: Client,
    tenant: TenantId,
}

impl Bench {
    /// Changes are made at one registry; the cached one asks the other.
    async fn start() -> Self {
        let fixture = Fixture::start().await;
        let signals = Arc::clone(&fixture.signals) as _;
        Self::over(fixture, signals).await
    }

    /// Nothing tells the cached one of changes: so that what a test made before is not forgotten while it counts calls.
    async fn undisturbed() -> Self {
        Self::over(Fixture::start().await, Arc::new(Deaf)).await
    }

    async fn over(fixture: Fixture, signals: Arc<dyn Signals>) -> Self {
        let way = Way::to(Arc::clone(&fixture.other) as _);
        let cached =
            CachedRegistry::start(Arc::clone(&way) as _, signals, Arc::clone(&fixture.clock) as _).await;
        let admin = fixture.admin().await;
        Self { fixture, way, cached, admin, tenant: TenantId::new("acme").unwrap() }
    }

    /// A device and its credential's token.
    async fn device(&mut self, id: &str) -> (api::Device, String) {
        let request = CreateDeviceRequest {
            parent: "tenants/acme".to_owned(),
            device_id: id.to_owned(),
            ..Default::default()
        };
        let made = self.admin.devices.create_device(request).await.unwrap().into_inner().device.unwrap();
        let issue = IssueCredentialRequest { parent: made.name.clone(), ttl: None };
        let issued = self.admin.credentials.issue_credential(issue).await.unwrap().into_inner();
        (made, issued.secret)
    }

    async fn disable(&mut self, device: &api::Device) {
        let device = api::Device { disabled: true, ..device.clone() };
        let request = UpdateDeviceRequest { device: Some(device), update_mask: None };
        self.admin.devices.update_device(request).await.unwrap();
    }

    async fn enabled(&self, id: &str) -> bool {
        self.cached.device(&self.tenant, &DeviceId::new(id).unwrap()).await.unwrap().enabled
    }

    async fn lets_in(&self, token: &str) -> bool {
        match self.cached.authenticate(token).await {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unauthenticated);
                false
            }
        }
    }
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
async fn whatever_ends_the_access_of_a_device_ends_it_here_though_the_clock_stands_still() {
    let mut bench = Bench::start().await;
    let (by_disabling, token) = bench.device("disabled").await;
    assert!(bench.lets_in(&token).await && bench.lets_in(&token).await);
    bench.disable(&by_disabling).await;
    eventually("a disabled device is refused", async || !bench.lets_in(&token).await).await;

    let (by_deleting, token) = bench.device("deleted").await;
    assert!(bench.lets_in(&token).await);
    let delete = DeleteDeviceRequest { name: by_deleting.name, ..Default::default() };
    bench.admin.devices.delete_device(delete).await.unwrap();
    eventually("a deleted device is refused", async || !bench.lets_in(&token).await).await;

    let (by_revoking, token) = bench.device("revoked").await;
    let Principal::Device { credential, .. } = bench.cached.authenticate(&token).await.unwrap() else {
        panic!("not a device")
    };
    let name = format!("{}/credentials/{credential}", by_revoking.name);
    bench.admin.credentials.revoke_credential(RevokeCredentialRequest { name }).await.unwrap();
    eventually("a revoked credential is refused", async || !bench.lets_in(&token).await).await;
    assert!(bench.enabled("revoked").await, "the device itself is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_tenants_and_selections_follow_their_changes() {
    let mut bench = Bench::start().await;
    let token = bench.fixture.token(Some("acme"), &[weir_core::principal::Scope::Read]).await;
    let Principal::Token { id, .. } = bench.cached.authenticate(&token).await.unwrap() else {
        panic!("not a token")
    };
    let name = format!("tenants/acme/tokens/{id}");
    bench.admin.tokens.revoke_token(RevokeTokenRequest { name }).await.unwrap();
    eventually("a revoked token is refused", async || !bench.lets_in(&token).await).await;

    let selector = Selector::default();
    let count = async || bench.cached.select(&bench.tenant, &selector, None, 10).await.unwrap().len();
    assert_eq!(count().await, 0);
    let (_, device) = bench.device("d").await;
    let count = async || bench.cached.select(&bench.tenant, &selector, None, 10).await.unwrap().len();
    eventually("a selection has the new device", async || count().await == 1).await;

    assert!(bench.lets_in(&device).await);
    let platform = bench.fixture.token(None, &[weir_core::principal::Scope::Platform]).await;
    let mut platform = bench.fixture.client(&platform).await;
    let tenant = Tenant { name: "tenants/acme".to_owned(), disabled: true, ..Default::default() };
    platform
        .tenants
        .update_tenant(UpdateTenantRequest { tenant: Some(tenant), ..Default::default() })
        .await
        .unwrap();
    eventually("a disabled tenant's device is refused", async || !bench.lets_in(&device).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_said_that_had_not_heard_of_the_change_yet_is_forgotten_again() {
    let (soon, late) = (Arc::new(LocalSignals::new()), Arc::new(LocalSignals::new()));
    let fixture = Fixture::over(Arc::clone(&soon) as _, Arc::clone(&late) as _, Arc::clone(&soon)).await;
    let mut bench = Bench::over(fixture, Arc::clone(&soon) as _).await;
    let (device, token) = bench.device("d").await;
    assert!(bench.lets_in(&token).await && bench.enabled("d").await);
    let mut heard = soon.subscribe(Topic::Registry).await;
    let before = bench.way.calls();
    bench.disable(&device).await;
    eventually("it asks the registry that has not heard", async || {
        bench.enabled("d").await;
        bench.way.calls() > before
    })
    .await;
    assert!(bench.enabled("d").await, "that registry cannot know better");
    late.publish(heard.next().await.unwrap().unwrap()).await;
    eventually("the change is seen", async || !bench.enabled("d").await).await;
    eventually("the device is refused", async || !bench.lets_in(&token).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_signals_that_lose_everything_a_change_is_seen_when_the_caches_have_aged() {
    let fixture = Fixture::over(Arc::new(Deaf), Arc::new(Deaf), Arc::new(LocalSignals::new())).await;
    let mut bench = Bench::over(fixture, Arc::new(Deaf)).await;
    let (device, token) = bench.device("d").await;
    assert!(bench.fixture.other.authenticate(&token).await.is_ok());
    // The oldest that is possible: it is asked for just before the registry behind it forgets.
    bench.fixture.clock.advance(AGE_AT_REGISTRY - Duration::from_micros(1));
    assert!(bench.lets_in(&token).await && bench.enabled("d").await);
    bench.disable(&device).await;
    bench.fixture.clock.advance(AGE_AT_CALLER - Duration::from_micros(1));
    assert!(bench.lets_in(&token).await && bench.enabled("d").await, "nothing told it");
    bench.fixture.clock.advance(Duration::from_micros(1));
    assert!(!bench.lets_in(&token).await && !bench.enabled("d").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_in_the_signals_forgets_everything() {
    let (tell, told) = mpsc::unbounded();
    let fixture = Fixture::over(Arc::new(Deaf), Arc::new(Deaf), Arc::new(LocalSignals::new())).await;
    let mut bench = Bench::over(fixture, Arc::new(Written(Mutex::new(Some(told))))).await;
    let (device, token) = bench.device("d").await;
    assert!(bench.lets_in(&token).await);
    bench.disable(&device).await;
    bench.fixture.clock.advance(AGE_AT_CALLER - Duration::from_micros(1));
    let calls = bench.way.calls();
    assert!(bench.lets_in(&token).await);
    assert_eq!(bench.way.calls(), calls, "it is remembered still");
    tell.unbounded_send(None).unwrap();
    eventually("it asks again", async || {
        drop(bench.cached.authenticate(&token).await);
        bench.way.calls() > calls
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_that_ask_the_same_at_once_make_one_call() {
    let mut bench = Bench::undisturbed().await;
    let (_, token) = bench.device("d").await;
    bench.way.gate.forget_permits(Semaphore::MAX_PERMITS);
    let asking: Vec<_> = (0..5_000)
        .map(|_| {
            let (cached, token) = (Arc::clone(&bench.cached), token.clone());
            tokio::spawn(async move { cached.authenticate(&token).await })
        })
        .collect();
    eventually("a call is under way", async || bench.way.calls() == 1).await;
    bench.way.gate.add_permits(Semaphore::MAX_PERMITS);
    for asked in asking {
        asked.await.unwrap().unwrap();
    }
    assert!(bench.lets_in(&token).await);
    assert_eq!(bench.way.calls(), 1, "and it is remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_wrong_tokens_waits_and_the_same_one_is_asked_for_once() {
    let bench = Bench::undisturbed().await;
    let wrong = |n: usize| format!("wd_{n:032x}_{n:064x}");
    let asking: Vec<_> = (0..5_000)
        .map(|n| {
            let (cached, token) = (Arc::clone(&bench.cached), wrong(n));
            tokio::spawn(async move { cached.authenticate(&token).await })
        })
        .collect();
    for asked in asking {
        assert_eq!(asked.await.unwrap().unwrap_err().kind(), ErrorKind::Unauthenticated);
    }
    let at_once = bench.way.at_once_max.load(Ordering::SeqCst);
    assert!(at_once <= 256, "{at_once} calls at a time");
    let calls = bench.way.calls();
    for _ in 0..1_000 {
        assert!(!bench.lets_in(&wrong(4_999)).await);
    }
    assert_eq!(bench.way.calls(), calls);
    bench.fixture.clock.advance(Duration::from_secs(1));
    assert!(!bench.lets_in(&wrong(4_999)).await);
    assert_eq!(bench.way.calls(), calls + 1, "a refusal is not remembered for long");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_registry_is_away_what_is_not_too_old_goes_on_and_then_fails_as_unavailable() {
    let mut bench = Bench::undisturbed().await;
    let (device, token) = bench.device("d").await;
    assert!(bench.lets_in(&token).await && bench.enabled("d").await);
    bench.way.cut.store(true, Ordering::SeqCst);
    bench.fixture.clock.advance(AGE_AT_CALLER - Duration::from_micros(1));
    assert!(bench.lets_in(&token).await && bench.enabled("d").await);
    bench.fixture.clock.advance(Duration::from_micros(1));
    let error = bench.cached.authenticate(&token).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = bench.cached.profile(&bench.tenant, "unknown").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(bench.cached.profile(&bench.tenant, "default").await.is_ok(), "it is the same everywhere");
    bench.way.cut.store(false, Ordering::SeqCst);
    assert!(bench.lets_in(&token).await, "a failure is not remembered");
    assert!(device.name.ends_with("/d"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_does_not_take_the_call_from_others() {
    let mut bench = Bench::undisturbed().await;
    let (_, token) = bench.device("d").await;
    bench.way.gate.forget_permits(Semaphore::MAX_PERMITS);
    let ask = || {
        let (cached, token) = (Arc::clone(&bench.cached), token.clone());
        tokio::spawn(async move { cached.authenticate(&token).await })
    };
    let first = ask();
    eventually("a call is under way", async || bench.way.calls() == 1).await;
    let second = ask();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    bench.way.gate.add_permits(Semaphore::MAX_PERMITS);
    second.await.unwrap().unwrap();
    assert_eq!(bench.way.calls(), 1);
}
