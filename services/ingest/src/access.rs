//! Who a device is, and for whom it may speak.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::{sync::broadcast, time::timeout_at};
use tokio_util::sync::CancellationToken;
use weir_core::{
    DeviceId, Error, ErrorKind, Message, Reading, Result, TenantId, Uid,
    cache::{AGE_AT_EDGE, ASK_AGAIN, Echoes},
    command::DeviceKey,
    device::{Device, Profile},
    name,
    port::{Registry, Signal, SignalStream},
    principal::Principal,
};

/// At about 1 KiB each: 64 MiB at the bound, where those that have aged go first, then all.
const CACHED_MAX: usize = 65_536;
/// A connection that lags behind so many changes takes them as one unknown change.
const CHANGES_MAX: usize = 1_024;
/// Revocations that are remembered, at about 150 bytes each. One matters until those who showed the credential have looked,
/// which they do at once: more are never heard before that.
const REVOKED_MAX: usize = 16_384;

/// A device and what it may send.
#[derive(Debug, Clone)]
pub(crate) struct DeviceAccess {
    pub(crate) device: Arc<Device>,
    pub(crate) profile: Arc<Profile>,
}

/// A device that showed a credential.
#[derive(Clone)]
pub(crate) struct Authenticated {
    pub(crate) access: DeviceAccess,
    /// What it showed, to be shown again by [`Access::recheck`].
    pub(crate) token: Arc<str>,
    credential: Arc<str>,
}

/// Something about a device changed: whoever holds a connection of it calls [`Access::recheck`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// This device or one of its credentials.
    Device(TenantId, Uid),
    /// Whatever it was, this tenant's.
    Tenant(TenantId),
    /// This API token.
    Token(String),
    /// Hints may have been lost.
    Unknown,
}

impl Change {
    /// Whether this device may have lost its access.
    pub(crate) fn concerns(&self, device: &Device) -> bool {
        match self {
            Self::Unknown => true,
            Self::Tenant(tenant) => *tenant == device.tenant,
            Self::Device(_, uid) => *uid == device.uid,
            Self::Token(_) => false,
        }
    }

    /// Whether this caller may have lost its access.
    pub(crate) fn concerns_principal(&self, who: &Principal) -> bool {
        match (self, who) {
            (Self::Unknown, _) => true,
            (Self::Tenant(tenant), who) => who.tenant().is_ok_and(|of| of == tenant),
            (Self::Device(_, uid), Principal::Device { uid: own, .. }) => uid == own,
            (Self::Token(token), Principal::Token { id, .. }) => token == id,
            (Self::Device(..) | Self::Token(_), _) => false,
        }
    }
}

/// Resolves devices through the registry, and remembers them for a while.
pub(crate) struct Access {
    registry: Arc<dyn Registry>,
    cache: Mutex<Cache>,
    revoked: Mutex<Revoked>,
    changes: broadcast::Sender<Change>,
}

/// What was found, by tenant and public id. The generation tells a lookup that a hint came while it was under way: what
/// it then finds may be what was before, and is not kept.
#[derive(Default)]
struct Cache {
    found: HashMap<(TenantId, DeviceId), (DeviceAccess, Instant)>,
    generation: u64,
}

/// What was heard to be revoked: whoever showed it is put out, also while the registry cannot be asked.
#[derive(Default)]
struct Revoked {
    all: HashSet<Arc<Shown>>,
    oldest_first: VecDeque<Arc<Shown>>,
}

/// The id of what a caller showed; none comes back once it is revoked.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Shown {
    Credential(String),
    Token(String),
}

impl Revoked {
    fn add(&mut self, shown: Shown) {
        let shown = Arc::new(shown);
        if !self.all.insert(Arc::clone(&shown)) {
            return;
        }
        self.oldest_first.push_back(shown);
        if self.oldest_first.len() > REVOKED_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.all.remove(&oldest);
        }
    }
}

impl Access {
    pub(crate) fn new(registry: Arc<dyn Registry>) -> Self {
        let changes = broadcast::Sender::new(CHANGES_MAX);
        Self { registry, cache: Mutex::default(), revoked: Mutex::default(), changes }
    }

    /// How many devices are remembered.
    pub(crate) fn cached(&self) -> usize {
        self.cache.lock().found.len()
    }

    /// Whether what this caller showed still counts, as far as was heard.
    ///
    /// # Errors
    /// `Unauthenticated` where it is revoked.
    pub(crate) fn check_shown(&self, who: &Principal) -> Result<()> {
        match who {
            Principal::Device { credential, .. } => self.check(&Shown::Credential(credential.clone())),
            Principal::Token { id, .. } => self.check(&Shown::Token(id.clone())),
            Principal::Service => Ok(()),
        }
    }

    fn check(&self, shown: &Shown) -> Result<()> {
        if !self.revoked.lock().all.contains(shown) {
            return Ok(());
        }
        Err(Error::unauthenticated("the token was revoked"))
    }

    /// The device that holds `token`, which must be a device's (`wd_…`).
    ///
    /// # Errors
    /// `Unauthenticated` for a bad one; `PermissionDenied` for an API token or a disabled device; `Unavailable`.
    pub(crate) async fn authenticate(&self, token: &str) -> Result<Authenticated> {
        let who = self.registry.authenticate(token).await?;
        self.check_shown(&who)?; // the registry may not have heard of it yet
        match who {
            Principal::Device { tenant, device, uid, credential } => {
                let access = self.own(&tenant, &device, uid).await?;
                Ok(Authenticated { access, token: token.into(), credential: credential.into() })
            }
            Principal::Token { .. } => Err(Error::permission_denied(
                "this is an API token; a device connects with its own credential (wd_…)",
            )),
            Principal::Service => Err(Error::permission_denied("a service is no device")),
        }
    }

    /// The caller of a request that carries `authorization: Bearer …`.
    ///
    /// # Errors
    /// As the registry's `authenticate`.
    pub(crate) async fn authenticate_headers(&self, headers: &http::HeaderMap) -> Result<Principal> {
        weir_grpc::auth::authenticate(&*self.registry, headers).await
    }

    /// The device that a principal is.
    ///
    /// # Errors
    /// `FailedPrecondition` where it is disabled; `NotFound`, `Unavailable`.
    pub(crate) async fn own(&self, tenant: &TenantId, device: &DeviceId, uid: Uid) -> Result<DeviceAccess> {
        let access = self.device(tenant, device).await?;
        // The id may have been given to a new device since it was cached.
        let access = if access.device.uid == uid { access } else { self.fetch(tenant, device).await? };
        check_enabled(&access.device)?;
        Ok(access)
    }

    /// A device that may publish.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` where it is disabled; `Unavailable`.
    pub(crate) async fn enabled(&self, tenant: &TenantId, device: &DeviceId) -> Result<DeviceAccess> {
        let access = self.device(tenant, device).await?;
        check_enabled(&access.device)?;
        Ok(access)
    }

    /// Asks the registry again, past every cache: an error other than `Unavailable` says that the connection must end.
    ///
    /// # Errors
    /// As [`Access::authenticate`].
    pub(crate) async fn recheck(&self, known: &Authenticated) -> Result<Authenticated> {
        self.check(&Shown::Credential(known.credential.to_string()))?;
        let device = &known.access.device;
        self.fetch(&device.tenant, &device.id).await?;
        self.authenticate(&known.token).await
    }

    /// A device by its public id, as the registry said at most [`AGE_AT_EDGE`] ago.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub(crate) async fn device(&self, tenant: &TenantId, device: &DeviceId) -> Result<DeviceAccess> {
        let key = (tenant.clone(), device.clone());
        if let Some((access, at)) = self.cache.lock().found.get(&key)
            && at.elapsed() < AGE_AT_EDGE
        {
            return Ok(access.clone());
        }
        self.fetch(tenant, device).await
    }

    /// The child for which `gateway` speaks.
    ///
    /// # Errors
    /// `PermissionDenied` (`NOT_A_GATEWAY`) where it may not; `NotFound` where there is no such device in its tenant;
    /// `FailedPrecondition` where the child is disabled.
    pub(crate) async fn child(&self, gateway: &DeviceAccess, child: &str) -> Result<DeviceAccess> {
        let (tenant, id) = (&gateway.device.tenant, &gateway.device.id);
        if !gateway.is_gateway() {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                "NOT_A_GATEWAY",
                format!(
                    "{} is not a gateway and cannot use v1/children/…; set gateway: true on it or on its profile",
                    name::device(tenant, id)
                ),
            ));
        }
        self.enabled(tenant, &DeviceId::new(child)?).await
    }

    /// What changes from now on. A receiver that lags has lost hints: take it for [`Change::Unknown`].
    pub(crate) fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    async fn fetch(&self, tenant: &TenantId, device: &DeviceId) -> Result<DeviceAccess> {
        let generation = self.cache.lock().generation;
        let found = async {
            let device = self.registry.device(tenant, device).await?;
            let profile = self.registry.profile(tenant, &device.profile).await?;
            Ok::<_, Error>(DeviceAccess { device, profile })
        }
        .await;
        let mut cache = self.cache.lock();
        let key = (tenant.clone(), device.clone());
        match &found {
            Ok(access) if cache.generation == generation => cache.insert(key, access.clone()),
            _ => drop(cache.found.remove(&key)),
        }
        found
    }

    /// Follows the registry's hints until `stop`. Each is told twice: a connection that asks at the first may be answered by
    /// a registry that has not heard the hint yet, and would not ask again for a while.
    pub(crate) async fn follow(&self, mut signals: SignalStream, stop: CancellationToken) {
        let mut echoes = Echoes::new(ASK_AGAIN);
        loop {
            let due = echoes.due().unwrap_or_else(|| Instant::now() + AGE_AT_EDGE);
            let signal = tokio::select! {
                signal = timeout_at(due.into(), signals.next()) => signal,
                () = stop.cancelled() => return,
            };
            match signal {
                Ok(Some(signal)) => {
                    self.take(signal.clone());
                    echoes.heard(signal, Instant::now());
                }
                Ok(None) => return,
                Err(_) => {}
            }
            while let Some(signal) = echoes.pop(Instant::now()) {
                self.take(signal);
            }
        }
    }

    fn take(&self, signal: Option<Signal>) {
        let change = match signal {
            Some(Signal::DeviceChanged { tenant, device, uid }) => {
                self.forget(|(of, id), _| *of == tenant && *id == device);
                Change::Device(tenant, uid)
            }
            Some(Signal::CredentialRevoked { tenant, uid, credential }) => {
                self.revoked.lock().add(Shown::Credential(credential));
                Change::Device(tenant, uid)
            }
            Some(Signal::ProfileChanged { tenant, profile }) => {
                self.forget(|(of, _), access| *of == tenant && access.device.profile == profile);
                Change::Tenant(tenant)
            }
            Some(Signal::TenantChanged { tenant }) => {
                self.forget(|(of, _), _| *of == tenant);
                Change::Tenant(tenant)
            }
            None => {
                self.forget(|_, _| true);
                Change::Unknown
            }
            Some(Signal::TokenRevoked { token }) => {
                self.revoked.lock().add(Shown::Token(token.clone()));
                Change::Token(token)
            }
            Some(_) => return,
        };
        drop(self.changes.send(change)); // nobody may be listening
    }

    fn forget(&self, which: impl Fn(&(TenantId, DeviceId), &DeviceAccess) -> bool) {
        let mut cache = self.cache.lock();
        cache.generation += 1;
        cache.found.retain(|key, (access, _)| !which(key, access));
    }
}

impl Cache {
    fn insert(&mut self, key: (TenantId, DeviceId), access: DeviceAccess) {
        if self.found.len() >= CACHED_MAX {
            self.found.retain(|_, (_, at)| at.elapsed() < AGE_AT_EDGE);
            if self.found.len() >= CACHED_MAX {
                self.found.clear();
            }
        }
        self.found.insert(key, (access, Instant::now()));
    }
}

/// Whether a failed check of an open connection or poll says that its device may no longer be here; any other says that the
/// registry is away or has a defect, and nobody is put out for that.
pub(crate) const fn is_unwanted(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unauthenticated
            | ErrorKind::PermissionDenied
            | ErrorKind::NotFound
            | ErrorKind::FailedPrecondition
    )
}

fn check_enabled(device: &Device) -> Result<()> {
    if device.enabled {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::FailedPrecondition,
        "DEVICE_DISABLED",
        format!("{} is disabled", name::device(&device.tenant, &device.id)),
    ))
}

impl DeviceAccess {
    /// Whether it may speak for children.
    pub(crate) fn is_gateway(&self) -> bool {
        self.device.gateway || self.profile.gateway
    }

    /// As the key of its commands.
    pub(crate) fn key(&self) -> DeviceKey {
        DeviceKey { tenant: self.device.tenant.clone(), device: self.device.id.clone(), uid: self.device.uid }
    }

    /// Its message.
    pub(crate) fn message(&self, readings: Vec<Reading>, trace_context: Option<Arc<str>>) -> Message {
        Message {
            tenant: self.device.tenant.clone(),
            device: self.device.id.clone(),
            uid: self.device.uid,
            readings,
            trace_context,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{SinkExt, channel::mpsc};

    use super::*;
    use crate::testing;

    /// Knows nobody.
    struct Nobody;

    #[async_trait::async_trait]
    impl Registry for Nobody {
        async fn authenticate(&self, _: &str) -> Result<Principal> {
            Err(Error::unauthenticated("nobody"))
        }
        async fn device(&self, _: &TenantId, device: &DeviceId) -> Result<Arc<Device>> {
            Err(Error::not_found(device))
        }
        async fn profile(&self, _: &TenantId, profile: &str) -> Result<Arc<Profile>> {
            Err(Error::not_found(profile))
        }
        async fn select(
            &self,
            _: &TenantId,
            _: &weir_core::selector::Selector,
            _: Option<&DeviceId>,
            _: usize,
        ) -> Result<Vec<Arc<Device>>> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn what_is_remembered_of_revocations_is_bounded_and_the_newest_are_kept() {
        let access = Access::new(Arc::new(Nobody));
        let token = |n: usize| Signal::TokenRevoked { token: n.to_string() };
        let who = |n: usize| Principal::Token { id: n.to_string(), tenant: None, scopes: Vec::new() };
        for n in 0..=REVOKED_MAX {
            access.take(Some(token(n)));
            access.take(Some(token(n))); // each is told twice
        }
        assert_eq!(access.revoked.lock().oldest_first.len(), REVOKED_MAX);
        assert!(access.check_shown(&who(0)).is_ok());
        assert!((1..=REVOKED_MAX).all(|n| access.check_shown(&who(n)).is_err()));
        let device = Principal::Device {
            tenant: TenantId::new("t1").unwrap(),
            device: DeviceId::new("d1").unwrap(),
            uid: Uid::from_u128(1),
            credential: "1".to_owned(),
        };
        assert!(access.check_shown(&device).is_ok(), "a credential is not the token of the same id");
    }

    #[tokio::test]
    async fn each_hint_is_told_twice_since_the_registry_that_is_asked_may_not_have_heard_it_at_the_first() {
        let (access, stop) = (Access::new(Arc::new(Nobody)), CancellationToken::new());
        let (mut tell, heard) = mpsc::unbounded();
        let mut changes = access.changes();
        let device = testing::device("t1", "d1", Uid::from_u128(1)).device;
        let (tenant, id, uid) = (device.tenant.clone(), device.id.clone(), device.uid);
        let told = async {
            let hint = Signal::DeviceChanged { tenant: tenant.clone(), device: id, uid };
            tell.send(Some(hint)).await.unwrap();
            tell.send(None).await.unwrap();
            let mut told = Vec::new();
            while told.len() < 3 {
                told.push(changes.recv().await.unwrap());
            }
            stop.cancel();
            told
        };
        let both = async { tokio::join!(access.follow(heard.boxed(), stop.clone()), told).1 };
        let told = tokio::time::timeout(testing::PATIENCE, both).await.unwrap();
        // The last one stands for both: it says that anything may have changed.
        assert_eq!(told, [Change::Device(tenant, uid), Change::Unknown, Change::Unknown]);
    }
}
