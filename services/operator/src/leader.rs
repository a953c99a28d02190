//! Which of several operators works: the holder of a Lease, as client-go's leader election does it. A holder that does not
//! renew is replaced after [`DURATION`] as the others' clocks count it; what it still writes is stopped by the version of the
//! status.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use weir_core::Result;

use crate::{MANAGER, error::of_kube};

/// After this long without a renewal somebody else may hold it: client-go's default.
const DURATION: Duration = Duration::from_secs(15);
/// How long the holder tries to renew before it lets go; below [`DURATION`], so that there are never two.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often it is renewed, and looked at by those who wait.
const PERIOD: Duration = Duration::from_secs(2);

/// A Lease, and who this is.
pub(crate) struct Lease {
    api: Api<Object>,
    name: String,
    identity: String,
    /// What was seen of another holder, and since when.
    seen: Mutex<Option<(String, Instant)>>,
}

impl Lease {
    pub(crate) fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            seen: Mutex::default(),
        }
    }

    /// Waits until this one holds it. An API server that is away is waited for, too.
    pub(crate) async fn acquire(&self) {
        let mut told = false;
        loop {
            match self.take().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) if told => tracing::debug!(error = %error, "the lease cannot be had"),
                Err(error) => {
                    told = true;
                    tracing::warn!(error = %error, "the lease cannot be had; it is tried again");
                }
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Renews it, until that fails for too long or somebody else holds it.
    pub(crate) async fn keep(&self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(PERIOD).await;
            let left = RENEW_DEADLINE.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.take()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(error)) => {
                    tracing::warn!(error = %error, "the lease was not renewed; it is tried again")
                }
            }
            if renewed.elapsed() >= RENEW_DEADLINE {
                return;
            }
        }
    }

    /// Lets it go, so that another one need not wait.
    pub(crate) async fn release(&self) {
        let Ok(Some(mut lease)) = self.api.get_opt(&self.name).await else { return };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&self.identity) {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            drop(self.api.replace(&self.name, &PostParams::default(), &lease).await); // it ends by itself, too
        }
    }

    /// Takes or renews it, where nobody else has it; whether this one holds it then.
    async fn take(&self) -> Result<bool> {
        let failed = |error| of_kube("lease", error);
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = self.api.get_opt(&self.name).await.map_err(failed)? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let new = Object { metadata, spec: Some(self.spec(&LeaseSpec::default(), now)) };
            return taken(self.api.create(&PostParams::default(), &new).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder != self.identity && !holder.is_empty() && !self.is_over(&lease) {
            return Ok(false);
        }
        lease.spec = Some(self.spec(&spec, now));
        // With its version: of two who see it free, one gets it.
        taken(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    fn spec(&self, old: &LeaseSpec, now: MicroTime) -> LeaseSpec {
        let is_ours = old.holder_identity.as_deref() == Some(&self.identity);
        let acquired = old.acquire_time.clone().filter(|_| is_ours).unwrap_or_else(|| now.clone());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(acquired),
            renew_time: Some(now),
            lease_transitions: Some(old.lease_transitions.unwrap_or(0) + i32::from(!is_ours)),
            ..LeaseSpec::default()
        }
    }

    /// Whether its holder has not renewed it for its duration, by this machine's clock.
    fn is_over(&self, lease: &Object) -> bool {
        let version = lease.resource_version().unwrap_or_default();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match &*seen {
            Some((known, since)) if *known == version => since.elapsed() >= DURATION,
            _ => {
                *seen = Some((version, Instant::now()));
                false
            }
        }
    }
}

fn taken(done: kube::Result<Object>) -> Result<bool> {
    match done {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(of_kube("lease", error)),
    }
}

/// Brings the definitions of the kinds to this release. Where that is not allowed or fails, it is told: those that are
/// installed may do.
pub(crate) async fn install_crds(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply(MANAGER).force();
    for definition in weir_crd::definitions() {
        let name = definition.name_any();
        if let Err(error) = api.patch(&name, &params, &Patch::Apply(&definition)).await {
            tracing::warn!(error = %error, definition = name, "a definition cannot be brought to this release");
        }
    }
}
