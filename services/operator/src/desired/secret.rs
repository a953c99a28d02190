//! Secrets: which are read, and what is made where it is missing. A value that is there is never changed.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use kube::ResourceExt as _;
use weir_crd::{NatsAuth, WeirCluster};

use super::{
    Observed,
    names::{Names, SHARED, hash},
};

/// A Secret that a cluster reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub name: String,
    /// The keys that are read.
    pub keys: Vec<&'static str>,
    /// Where the spec names it; none where it is made here.
    pub named_by: Option<&'static str>,
}

/// What is missing in a Secret, and made once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingSecret {
    /// Its name.
    pub name: String,
    /// The keys.
    pub keys: BTreeSet<&'static str>,
    /// Whether there is no such Secret at all.
    pub is_absent: bool,
    /// The names of a certificate, where one is among the keys.
    pub certificate_names: Vec<String>,
}

/// What is under `tls` of a cluster, and what is in it.
pub(super) const TLS_KEYS: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];

/// The name of the Secret with pepper and token.
pub(super) fn own(cluster: &WeirCluster) -> String {
    cluster.spec.secret_name.clone().unwrap_or_else(|| format!("{}-secrets", cluster.name_any()))
}

/// The name of the Secret with the certificates, where there are any.
pub(super) fn tls(cluster: &WeirCluster) -> Option<String> {
    let made = || cluster.spec.engines.shared.is_some().then(|| format!("{}-tls", cluster.name_any()));
    cluster.spec.tls.secret_name.clone().or_else(made)
}

/// The key of a NATS Secret that is a file.
pub(super) fn nats_file(method: NatsAuth) -> &'static str {
    match method {
        NatsAuth::Password => "password",
        NatsAuth::Token => "token",
        NatsAuth::NKey => "nkey",
        NatsAuth::Creds => "creds",
    }
}

/// By what the contents of the Secrets with logins are told from others: those of engines, which are read once, at start.
/// Certificates are read again by themselves, and a pepper never changes; it is hashed along, since whoever reads the status must
/// not try passwords on it. None where there are none.
pub(crate) fn logins(
    cluster: &WeirCluster,
    contents: &BTreeMap<String, BTreeMap<String, ByteString>>,
) -> Option<String> {
    let of_engines = all(cluster)
        .into_iter()
        .filter(|kept| kept.named_by.is_some_and(|field| field.starts_with("spec.engines.")));
    let content = |name: &str, key: &str| contents.get(name).and_then(|content| content.get(key));
    let value = |name: &str, key: &str| content(name, key).map(|value| &value.0[..]).unwrap_or_default();
    let mut all = value(&own(cluster), "pepper").to_vec();
    let pepper_bytes = all.len();
    for kept in of_engines {
        for key in &kept.keys {
            let value = value(&kept.name, key);
            all.extend(format!("\n{} {key} {}\n", kept.name, value.len()).as_bytes()); // so that no two contents look alike
            all.extend(value);
        }
    }
    (all.len() > pepper_bytes).then(|| hash(all))
}

pub(super) fn all(cluster: &WeirCluster) -> Vec<Kept> {
    let mut all = vec![Kept { name: own(cluster), keys: vec!["pepper", "token"], named_by: None }];
    if let Some(name) = tls(cluster) {
        let named_by = cluster.spec.tls.secret_name.as_ref().map(|_| "spec.tls.secretName");
        all.push(Kept { name, keys: TLS_KEYS.to_vec(), named_by });
    }
    let Some(shared) = &cluster.spec.engines.shared else { return all };
    let mut theirs = |name: &Option<String>, keys: Vec<&'static str>, named_by: &'static str| {
        all.extend(name.clone().map(|name| Kept { name, keys, named_by: Some(named_by) }));
    };
    let mut keys = vec![nats_file(shared.nats.auth_method)];
    keys.extend((shared.nats.auth_method == NatsAuth::Password).then_some("username"));
    theirs(&shared.nats.auth_secret_name, keys, "spec.engines.shared.nats.authSecretName");
    theirs(&shared.nats.ca_secret_name, vec!["ca.crt"], "spec.engines.shared.nats.caSecretName");
    theirs(
        &shared.cql.auth_secret_name,
        vec!["username", "password"],
        "spec.engines.shared.cql.authSecretName",
    );
    theirs(&shared.cql.ca_secret_name, vec!["ca.crt"], "spec.engines.shared.cql.caSecretName");
    all
}

/// The first Secret that a person must bring, in words: one of somebody else, or one that was made here and is lost.
pub(super) fn absent(cluster: &WeirCluster, observed: &Observed) -> Option<String> {
    let is_installed = cluster.status.as_ref().is_some_and(|status| status.last_good.is_some());
    all(cluster).into_iter().find_map(|kept| {
        let there = observed.secrets.get(&kept.name);
        let lost = kept.keys.iter().find(|key| !there.is_some_and(|there| there.contains(**key)))?;
        let what = match there {
            None => format!("the Secret {}", kept.name),
            Some(_) => format!("the key {lost} of the Secret {}", kept.name),
        };
        match kept.named_by {
            Some(named_by) => Some(format!("{what}, which {named_by} names, is not there")),
            // Made anew it would lock out whoever knows the old one, and the data's tokens with them.
            None if is_installed => Some(format!("{what}, which was made once, is lost; put it back")),
            // Certificate, key and authority are of one making.
            None if kept.keys == TLS_KEYS && there.is_some() => Some(format!(
                "{what} is not there; put it back, or delete the Secret so that it is made anew"
            )),
            None => None,
        }
    })
}

/// What is made here and is not there.
pub(super) fn missing(cluster: &WeirCluster, observed: &Observed) -> Vec<MissingSecret> {
    let ours = all(cluster).into_iter().filter(|kept| kept.named_by.is_none());
    ours.filter_map(|kept| {
        let there = observed.secrets.get(&kept.name);
        let is_there = |key: &&'static str| there.is_some_and(|there| there.contains(*key));
        let missing: BTreeSet<_> = kept.keys.iter().copied().filter(|key| !is_there(key)).collect();
        let certificate_names = if kept.keys == TLS_KEYS { certificate_names(cluster) } else { Vec::new() };
        (!missing.is_empty()).then(|| MissingSecret {
            name: kept.name,
            keys: missing,
            is_absent: there.is_none(),
            certificate_names,
        })
    })
    .collect()
}

/// The names by which the services are reached.
fn certificate_names(cluster: &WeirCluster) -> Vec<String> {
    let names = Names::new(cluster);
    let services = SHARED.iter().chain(&["grpc"]).map(|service| names.of(service));
    let within = services.flat_map(|service| {
        let namespace = names.namespace();
        let domain = format!("{service}.{namespace}.svc.cluster.local");
        [format!("{service}.{namespace}"), format!("{service}.{namespace}.svc"), domain, service]
    });
    let here = ["localhost".to_owned(), "127.0.0.1".to_owned()]; // through `kubectl port-forward`
    within.chain(here).collect()
}
