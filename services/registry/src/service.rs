//! The registry as a running service: its store, its caches, and the signals that keep them true.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_core::{
    Clock, DeviceId, Result, TenantId,
    cache::{AGE_AT_REGISTRY, Cache},
    device::{Device, Profile},
    port::{Records, Signal, SignalStream, Signals, Topic},
};

use crate::{
    Config, Peppers,
    authenticate::Verified,
    metrics::Metrics,
    store::{ALL_TENANTS, Store, TENANTS},
};

/// Profiles and tenants are few; this many are in use at once at most.
const SMALL_CACHE: usize = 1_024;
/// Pages of selectors that rules and queries ask again and again; each has at most [`SELECTED_MAX`] devices.
const SELECTIONS: usize = 64;
/// A larger page is not worth its memory.
pub(crate) const SELECTED_MAX: usize = 128;

/// Which page of which selector.
pub(crate) type Selection = (TenantId, String, Option<DeviceId>, usize);

/// Tenants, tokens, profiles, devices, credentials.
pub struct Service {
    pub(crate) store: Store,
    pub(crate) signals: Arc<dyn Signals>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) peppers: Peppers,
    pub(crate) metrics: Metrics,
    pub(crate) devices: Cache<(TenantId, DeviceId), Arc<Device>>,
    pub(crate) profiles: Cache<(TenantId, String), Arc<Profile>>,
    /// Whether a tenant is there and enabled.
    pub(crate) enabled: Cache<TenantId, bool>,
    /// Tokens and credentials that were verified, by their ids.
    pub(crate) verified: Cache<String, Arc<Verified>>,
    pub(crate) selections: Cache<Selection, Arc<[Arc<Device>]>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Service {
    /// Starts the registry over its store.
    ///
    /// # Errors
    /// `InvalidArgument` for a configuration out of bounds; `FailedPrecondition` (`PEPPER_OTHER`) for other peppers than the
    /// store's; `Unavailable` of the store.
    pub async fn start(
        config: Config,
        records: Arc<dyn Records>,
        signals: Arc<dyn Signals>,
        clock: Arc<dyn Clock>,
        peppers: Peppers,
        metrics: &prometheus::Registry,
    ) -> Result<Arc<Self>> {
        config.check()?;
        let heard = signals.subscribe(Topic::Registry).await;
        let service = Arc::new(Self {
            store: Store::new(records),
            signals,
            clock,
            peppers,
            metrics: Metrics::new(metrics)?,
            devices: Cache::new(config.cache_entries, AGE_AT_REGISTRY),
            profiles: Cache::new(SMALL_CACHE, AGE_AT_REGISTRY),
            enabled: Cache::new(SMALL_CACHE, AGE_AT_REGISTRY),
            verified: Cache::new(config.cache_entries, AGE_AT_REGISTRY),
            selections: Cache::new(SELECTIONS, AGE_AT_REGISTRY),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        service.tell_use(config.cache_entries);
        service.check_peppers().await?;
        service.tasks.spawn(Arc::clone(&service).listen(heard));
        Ok(service)
    }

    /// How full the caches are, as it is read at a scrape, and how full they may be.
    fn tell_use(self: &Arc<Self>, entries: usize) {
        self.metrics.may_cache(&[
            ("devices", entries),
            ("profiles", SMALL_CACHE),
            ("tenants", SMALL_CACHE),
            ("credentials", entries),
            ("selections", SELECTIONS),
        ]);
        let this = Arc::downgrade(self);
        self.metrics.cached.by_label(move || {
            let Some(this) = this.upgrade() else { return Vec::new() };
            [
                ("devices", this.devices.len()),
                ("profiles", this.profiles.len()),
                ("tenants", this.enabled.len()),
                ("credentials", this.verified.len()),
                ("selections", this.selections.len()),
            ]
            .map(|(cache, entries)| (cache.to_owned(), entries as f64))
            .into()
        });
    }

    /// Forgets what others say has changed.
    async fn listen(self: Arc<Self>, mut heard: SignalStream) {
        loop {
            let next = tokio::select! {
                () = self.stop.cancelled() => return,
                next = heard.next() => next,
            };
            match next {
                Some(Some(signal)) => self.forget(&signal),
                Some(None) => self.forget_all(),
                None => return, // the process ends
            }
        }
    }

    /// Forgets what a change made here has made untrue, then tells the others.
    pub(crate) async fn changed(&self, signal: Signal) {
        self.forget(&signal);
        self.signals.publish(signal).await;
    }

    fn forget(&self, signal: &Signal) {
        match signal {
            Signal::DeviceChanged { tenant, device, .. } => {
                self.devices.invalidate(&(tenant.clone(), device.clone()));
                self.selections.invalidate_all(|(of, ..)| of == tenant);
            }
            Signal::CredentialRevoked { credential, .. } => self.verified.invalidate(credential),
            Signal::TokenRevoked { token } => self.verified.invalidate(token),
            Signal::ProfileChanged { tenant, profile } => {
                self.profiles.invalidate(&(tenant.clone(), profile.clone()));
            }
            Signal::TenantChanged { tenant } => self.enabled.invalidate(tenant),
            _ => {} // of other topics
        }
    }

    fn forget_all(&self) {
        self.devices.invalidate_all(|_| true);
        self.profiles.invalidate_all(|_| true);
        self.enabled.invalidate_all(|_| true);
        self.verified.invalidate_all(|_| true);
        self.selections.invalidate_all(|_| true);
    }
}

#[async_trait]
impl weir_runtime::Service for Service {
    fn name(&self) -> &'static str {
        "registry"
    }

    async fn ready(&self) -> Result<(), String> {
        match self.store.any(TENANTS, ALL_TENANTS, b"").await {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("the store does not answer: {error}")),
        }
    }

    async fn stop_intake(&self) {}

    async fn drain(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
