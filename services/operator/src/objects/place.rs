//! Where an object is told: the Weir of its tenant, and who says it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Namespace, Secret, Service},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{Api, Client, ResourceExt as _};
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use weir_core::{Error, ErrorKind, Result, TenantId};
use weir_crd::{Tenant, WeirCluster};

use crate::{desired, error::of_kube};

/// The tenant that an object names is not ready.
pub(super) const TENANT_NOT_READY: &str = "TENANT_NOT_READY";
/// The tenant that an object names is not there.
pub(super) const TENANT_NOT_FOUND: &str = "TENANT_NOT_FOUND";
/// The cluster that a tenant names is not there.
pub(super) const CLUSTER_NOT_FOUND: &str = "CLUSTER_NOT_FOUND";
/// Longer than any of these calls takes.
const CALL_MAX: Duration = Duration::from_secs(10);
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// So often a connection is asked whether it lives.
const PING: Duration = Duration::from_secs(10);
/// More connections than a site has clusters; past it all are opened anew.
const CONNECTIONS_MAX: usize = 256;

/// A Weir, and whose token is shown.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) channel: Channel,
    token: MetadataValue<Ascii>,
    pub(super) tenant: TenantId,
}

impl Place {
    /// A request with the token.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.token.clone());
        request.set_timeout(CALL_MAX);
        request
    }

    /// The same, with another token.
    pub(super) fn with_token(&self, token: &str) -> Result<Self> {
        Ok(Self { token: bearer(token)?, ..self.clone() })
    }
}

fn bearer(token: &str) -> Result<MetadataValue<Ascii>> {
    let invalid = |_| Error::new(ErrorKind::FailedPrecondition, "TOKEN_INVALID", "the Secret holds no token");
    format!("Bearer {}", token.trim()).parse().map_err(invalid)
}

/// Connections by address and authority: one for all objects of a Weir.
#[derive(Default)]
pub(super) struct Connections(Mutex<BTreeMap<(String, Vec<u8>), Channel>>);

impl Connections {
    fn open(&self, address: String, host: &str, authority: Option<Vec<u8>>) -> Result<Channel> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (address, authority.unwrap_or_default());
        if let Some(channel) = known.get(&key) {
            return Ok(channel.clone());
        }
        if known.len() >= CONNECTIONS_MAX {
            known.clear(); // of clusters and authorities that are gone
        }
        let failed = |source| Error::internal("cannot make a connection").with_source(source);
        let scheme = if key.1.is_empty() { "http" } else { "https" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", key.0))
            .map_err(failed)?
            .connect_timeout(CONNECT_MAX)
            .timeout(CALL_MAX)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(CONNECT_MAX)
            .keep_alive_while_idle(true);
        if !key.1.is_empty() {
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&key.1)).domain_name(host);
            endpoint = endpoint.tls_config(tls).map_err(failed)?;
        }
        let channel = endpoint.connect_lazy();
        known.insert(key, channel.clone());
        Ok(channel)
    }
}

/// The id of a tenant in Weir.
pub(super) fn tenant_id(tenant: &Tenant) -> Result<TenantId> {
    let id = tenant.spec.tenant_id.clone().unwrap_or_else(|| tenant.name_any());
    TenantId::new(&id).map_err(|error| error.with_field("spec.tenantId"))
}

/// The name of the Secret with a tenant's token.
pub(super) fn token_secret(tenant: &Tenant) -> String {
    tenant.spec.token_secret_name.clone().unwrap_or_else(|| format!("{}-weir-token", tenant.name_any()))
}

/// The Weir of a tenant, as its operator.
pub(super) async fn of_tenant(client: &Client, connections: &Connections, tenant: &Tenant) -> Result<Place> {
    let own = tenant.namespace().unwrap_or_default();
    let namespace = tenant.spec.cluster.namespace.as_deref().unwrap_or(&own);
    let cluster = cluster(client, namespace, &tenant.spec.cluster.name).await?;
    // One that ends may do so where it would not be admitted any more.
    if tenant.metadata.deletion_timestamp.is_none() {
        admits(client, &cluster, &own).await?;
    }
    let service_name = format!("{}-grpc", cluster.name_any());
    let service: Service = get(client, namespace, &service_name).await?;
    let spec = service.spec.unwrap_or_default();
    let port = spec.ports.iter().flatten().map(|port| port.port).next();
    let address = spec.cluster_ip.zip(port).map(|(ip, port)| match ip.contains(':') {
        true => format!("[{ip}]:{port}"),
        false => format!("{ip}:{port}"),
    });
    let address =
        address.ok_or_else(|| Error::unavailable(format!("Service {service_name} has no address yet")))?;
    let secrets = desired::secrets(&cluster);
    let secret_with = |key: &str| secrets.iter().find(|kept| kept.keys.contains(&key));
    let authority = match secret_with("tls.key") {
        None => None,
        Some(kept) => Some(value(client, namespace, &kept.name, "ca.crt").await?),
    };
    let host = format!("{service_name}.{namespace}.svc");
    let channel = connections.open(address, &host, authority)?;
    let kept = secret_with("pepper").map(|kept| kept.name.clone()).unwrap_or_default();
    let token = text(value(client, namespace, &kept, "token").await?);
    Ok(Place { channel, token: bearer(&token)?, tenant: tenant_id(tenant)? })
}

/// The Weir of the tenant that an object in `namespace` names, as that tenant.
pub(super) async fn of_object(
    client: &Client,
    connections: &Connections,
    namespace: &str,
    tenant: &str,
) -> Result<Place> {
    let api: Api<Tenant> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(tenant).await.map_err(|error| of_kube(&format!("Tenant {tenant}"), error))?;
    let found = found.ok_or_else(|| {
        let message = format!("spec.tenant names Tenant {tenant}, which is not in namespace {namespace}");
        Error::new(ErrorKind::NotFound, TENANT_NOT_FOUND, message)
    })?;
    let status = found.status.clone().unwrap_or_default();
    let is_ready = |condition: &Condition| condition.type_ == "Ready" && condition.status == "True";
    let is_current = status.observed_generation == found.metadata.generation;
    // While a tenant ends, what ends with it goes first.
    let ends = found.metadata.deletion_timestamp.is_some() && status.name.is_some();
    let is_told = ends || is_current && status.conditions.iter().any(is_ready);
    if !is_told {
        let message =
            format!("the Tenant {tenant} is not ready; `kubectl describe tenant {tenant}` says why");
        return Err(Error::new(ErrorKind::Unavailable, TENANT_NOT_READY, message));
    }
    let place = of_tenant(client, connections, &found).await?;
    let secret: Secret = get(client, namespace, &token_secret(&found)).await?;
    if !is_of(&secret, &found) {
        let message = format!("the Secret {} is not of Tenant {tenant}", secret.name_any());
        return Err(Error::new(ErrorKind::FailedPrecondition, "SECRET_NOT_OURS", message));
    }
    let token = secret.data.and_then(|mut data| data.remove("token")).unwrap_or_default();
    place.with_token(&text(token.0))
}

/// Whether a Secret was made for a tenant.
pub(super) fn is_of(secret: &Secret, tenant: &Tenant) -> bool {
    let uid = tenant.uid().unwrap_or_default();
    secret.owner_references().iter().any(|owner| owner.uid == uid)
}

async fn cluster(client: &Client, namespace: &str, name: &str) -> Result<WeirCluster> {
    let api: Api<WeirCluster> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(name).await.map_err(|error| of_kube(&format!("WeirCluster {name}"), error))?;
    found.ok_or_else(|| {
        let message = format!("spec.cluster names WeirCluster {namespace}/{name}, which is not there");
        Error::new(ErrorKind::NotFound, CLUSTER_NOT_FOUND, message)
    })
}

/// Whether tenants may be in that namespace.
async fn admits(client: &Client, cluster: &WeirCluster, namespace: &str) -> Result<()> {
    if cluster.namespace().as_deref() == Some(namespace) {
        return Ok(());
    }
    if let Some(selector) = &cluster.spec.allowed_tenants.namespace_selector {
        let api: Api<Namespace> = Api::all(client.clone());
        let found =
            api.get(namespace).await.map_err(|error| of_kube(&format!("namespace {namespace}"), error))?;
        if selector.match_labels.iter().all(|(key, value)| found.labels().get(key) == Some(value)) {
            return Ok(());
        }
    }
    let message = format!(
        "WeirCluster {} does not admit tenants of namespace {namespace} (its spec.allowedTenants)",
        desired::shown(cluster)
    );
    Err(Error::new(ErrorKind::PermissionDenied, "NAMESPACE_NOT_ALLOWED", message))
}

async fn get<K>(client: &Client, namespace: &str, name: &str) -> Result<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let what = || format!("{} {namespace}/{name}", K::kind(&()));
    let found = api.get_opt(name).await.map_err(|error| of_kube(&what(), error))?;
    found.ok_or_else(|| Error::unavailable(format!("{} is not there yet", what())))
}

async fn value(client: &Client, namespace: &str, secret: &str, key: &str) -> Result<Vec<u8>> {
    let found: Secret = get(client, namespace, secret).await?;
    let value = found.data.and_then(|mut data| data.remove(key)).map(|bytes| bytes.0);
    value.ok_or_else(|| Error::unavailable(format!("Secret {namespace}/{secret} has no key {key} yet")))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).trim().to_owned()
}
