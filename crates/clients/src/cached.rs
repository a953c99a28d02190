//! What a process remembers of a registry that is another process.
//!
//! An answer is used for [`weir_core::cache::AGE_AT_CALLER`] at most, so that it stays true within the 30 s that all caches
//! of the chain have together; while Signals works, what changed is forgotten at once, and again after
//! [`weir_core::cache::FORGET_AGAIN`], since the registry that is asked next may hear of the change a little later than this
//! process did. After a gap in the signals everything is forgotten. While no registry answers, what is not too old goes on
//! to be used, then calls fail as `Unavailable`.
//!
//! However many wait for the same answer, registry is asked once, and never for more than [`CALLS_MAX`] things at a time:
//! thousands of devices that come back at once, and floods of wrong tokens, wait here.
//!
//! A token that expires is refused up to that age later, since a principal does not tell when it ends.

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use sha2::{Digest, Sha256};
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{sleep_until, timeout_at},
};
use weir_core::{
    Clock, DeviceId, Result, TenantId,
    cache::{Echoes, FORGET_AGAIN},
    device::{Device, Profile},
    port::{Registry, Signal, SignalStream, Signals, Topic},
    principal::Principal,
    selector::Selector,
};

use self::{
    lookup::{Key, Lookup, Shore},
    marks::{Mark, Marks, Subject},
};

mod lookup;
mod marks;

/// Calls to registry at a time: more only make each slower.
const CALLS_MAX: usize = 256;
/// Devices, and tokens, at about 1 KiB each: 16 MiB where so many are in use within some seconds. What does not fit is asked
/// for again.
const ENTRIES: usize = 16_384;
/// Profiles are few; so many are in use at once at most.
const PROFILES: usize = 1_024;
/// Pages of selectors that rules and queries ask again and again; each has at most [`SELECTED_MAX`] devices.
const SELECTIONS: usize = 64;
/// A larger page is not worth its memory.
const SELECTED_MAX: usize = 128;

/// A registry that is another process, with what is known of its answers.
pub struct CachedRegistry {
    inner: Arc<dyn Registry>,
    principals: Arc<Lookup<Token, Principal>>,
    devices: Arc<Lookup<DeviceName, Arc<Device>>>,
    profiles: Arc<Lookup<ProfileName, Arc<Profile>>>,
    selections: Arc<Lookup<Selection, Arc<[Arc<Device>]>>>,
    following: JoinHandle<()>,
}

/// SHA-256 of a token: what is in memory opens nothing.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Token([u8; 32]);

#[derive(Clone, PartialEq, Eq, Hash)]
struct DeviceName(TenantId, DeviceId);

#[derive(Clone, PartialEq, Eq, Hash)]
struct ProfileName(TenantId, String);

/// Which page of which selector.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Selection(TenantId, String, Option<DeviceId>, usize);

impl CachedRegistry {
    /// Remembers what `inner` says, and follows `signals` until it is dropped.
    pub async fn start(
        inner: Arc<dyn Registry>,
        signals: Arc<dyn Signals>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let heard = signals.subscribe(Topic::Registry).await;
        let shore =
            Arc::new(Shore { marks: Marks::new(), clock, calls: Arc::new(Semaphore::new(CALLS_MAX)) });
        Arc::new(Self {
            inner,
            principals: Lookup::new(Arc::clone(&shore), ENTRIES),
            devices: Lookup::new(Arc::clone(&shore), ENTRIES),
            profiles: Lookup::new(Arc::clone(&shore), PROFILES),
            selections: Lookup::new(Arc::clone(&shore), SELECTIONS),
            following: tokio::spawn(follow(shore, heard)),
        })
    }
}

impl Drop for CachedRegistry {
    fn drop(&mut self) {
        self.following.abort();
    }
}

#[async_trait]
impl Registry for CachedRegistry {
    async fn authenticate(&self, token: &str) -> Result<Principal> {
        let ask = || {
            let (inner, token) = (Arc::clone(&self.inner), token.to_owned());
            async move { inner.authenticate(&token).await }.boxed()
        };
        self.principals.get(Token(Sha256::digest(token).into()), ask).await
    }

    async fn device(&self, tenant: &TenantId, device: &DeviceId) -> Result<Arc<Device>> {
        let name = DeviceName(tenant.clone(), device.clone());
        let ask = || {
            let (inner, DeviceName(tenant, device)) = (Arc::clone(&self.inner), name.clone());
            async move { inner.device(&tenant, &device).await }.boxed()
        };
        self.devices.get(name.clone(), ask).await
    }

    async fn profile(&self, tenant: &TenantId, profile: &str) -> Result<Arc<Profile>> {
        if profile == Profile::DEFAULT_ID {
            return Ok(Arc::new(Profile::default())); // the same in every tenant
        }
        let name = ProfileName(tenant.clone(), profile.to_owned());
        let ask = || {
            let (inner, ProfileName(tenant, profile)) = (Arc::clone(&self.inner), name.clone());
            async move { inner.profile(&tenant, &profile).await }.boxed()
        };
        self.profiles.get(name.clone(), ask).await
    }

    async fn select(
        &self,
        tenant: &TenantId,
        selector: &Selector,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<Arc<Device>>> {
        let page = Selection(tenant.clone(), selector.to_string(), after.cloned(), limit);
        let ask = || {
            let (inner, selector) = (Arc::clone(&self.inner), selector.clone());
            let Selection(tenant, _, after, limit) = page.clone();
            async move { inner.select(&tenant, &selector, after.as_ref(), limit).await.map(Arc::from) }
                .boxed()
        };
        Ok(self.selections.get(page.clone(), ask).await?.to_vec())
    }
}

impl Key<Principal> for Token {
    fn holds(&self, answer: Option<&Principal>, marks: &Marks, since: Mark) -> bool {
        match answer {
            // What is refused is so for a second at most; a service has no token.
            None | Some(Principal::Service) => marks.hold(since, &[]),
            Some(Principal::Token { id, tenant: None, .. }) => marks.hold(since, &[Subject::Token(id)]),
            Some(Principal::Token { id, tenant: Some(tenant), .. }) => {
                marks.hold(since, &[Subject::Token(id), Subject::Tenant(tenant)])
            }
            Some(Principal::Device { tenant, device, credential, .. }) => marks.hold(
                since,
                &[Subject::Tenant(tenant), Subject::Device(tenant, device), Subject::Credential(credential)],
            ),
        }
    }
}

impl Key<Arc<Device>> for DeviceName {
    fn holds(&self, _: Option<&Arc<Device>>, marks: &Marks, since: Mark) -> bool {
        marks.hold(since, &[Subject::Tenant(&self.0), Subject::Device(&self.0, &self.1)])
    }
}

impl Key<Arc<Profile>> for ProfileName {
    fn holds(&self, _: Option<&Arc<Profile>>, marks: &Marks, since: Mark) -> bool {
        marks.hold(since, &[Subject::Tenant(&self.0), Subject::Profile(&self.0, &self.1)])
    }
}

impl Key<Arc<[Arc<Device>]>> for Selection {
    fn holds(&self, _: Option<&Arc<[Arc<Device>]>>, marks: &Marks, since: Mark) -> bool {
        marks.hold(since, &[Subject::Tenant(&self.0), Subject::Devices(&self.0)])
    }

    fn keeps(&self, answer: &Arc<[Arc<Device>]>) -> bool {
        answer.len() <= SELECTED_MAX
    }
}

/// Forgets what others say has changed, twice.
async fn follow(shore: Arc<Shore>, mut heard: SignalStream) {
    let mut echoes = Echoes::new(FORGET_AGAIN);
    loop {
        let next = match echoes.due() {
            Some(due) => timeout_at(due.into(), heard.next()).await.ok(),
            None => Some(heard.next().await),
        };
        match next {
            Some(Some(signal)) => {
                forget(&shore.marks, signal.as_ref());
                echoes.heard(signal, Instant::now());
            }
            Some(None) => break, // the process ends
            None => {}
        }
        while let Some(signal) = echoes.pop(Instant::now()) {
            forget(&shore.marks, signal.as_ref());
        }
    }
    while let Some(due) = echoes.due() {
        sleep_until(due.into()).await;
        while let Some(signal) = echoes.pop(Instant::now()) {
            forget(&shore.marks, signal.as_ref());
        }
    }
}

fn forget(marks: &Marks, signal: Option<&Signal>) {
    match signal {
        Some(Signal::DeviceChanged { tenant, device, .. }) => {
            marks.changed(Subject::Device(tenant, device));
            marks.changed(Subject::Devices(tenant));
        }
        Some(Signal::CredentialRevoked { credential, .. }) => marks.changed(Subject::Credential(credential)),
        Some(Signal::TokenRevoked { token }) => marks.changed(Subject::Token(token)),
        Some(Signal::ProfileChanged { tenant, profile }) => marks.changed(Subject::Profile(tenant, profile)),
        Some(Signal::TenantChanged { tenant }) => marks.changed(Subject::Tenant(tenant)),
        Some(_) => {} // of other topics
        None => marks.all_changed(),
    }
}
