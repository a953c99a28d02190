//! TLS of the gRPC listener and between services: one certificate for each process, and the authority of them all.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tonic::transport::{Certificate, Identity};
use weir_core::{Error, ErrorKind, Result};

use crate::expiry;

/// A listener looks at its files so often at most, when somebody connects: three calls of the system.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// What is spoken over TLS.
const ALPN: &[u8] = b"h2";

/// The files of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Its certificate, in PEM, with those between it and the authority.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// The authority that every service's certificate is of, in PEM.
    pub ca: PathBuf,
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
pub struct Pems {
    /// The certificate and its chain.
    pub cert: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
    /// The authority.
    pub ca: Vec<u8>,
}

impl Files {
    /// Reads them.
    ///
    /// # Errors
    /// `TLS_FILE_UNREADABLE` that names the file.
    pub fn read(&self) -> Result<Pems> {
        let read = |path: &PathBuf| {
            fs::read(path).map_err(|source| {
                let message = format!("cannot read {}: {source}", path.display());
                Error::new(ErrorKind::FailedPrecondition, "TLS_FILE_UNREADABLE", message).with_source(source)
            })
        };
        Ok(Pems { cert: read(&self.cert)?, key: read(&self.key)?, ca: read(&self.ca)? })
    }

    fn modified(&self) -> Vec<Option<SystemTime>> {
        let modified = |path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        [&self.cert, &self.key, &self.ca].into_iter().map(modified).collect()
    }
}

impl Pems {
    /// The certificate with its key, as tonic takes it.
    pub fn identity(&self) -> Identity {
        Identity::from_pem(&self.cert, &self.key)
    }

    /// The authority, as tonic takes it.
    pub fn authority(&self) -> Certificate {
        Certificate::from_pem(&self.ca)
    }

    /// TLS of a listener for users and services alike: who shows a certificate must have one of the authority, and who
    /// shows none needs a token.
    ///
    /// # Errors
    /// `TLS_FILE_INVALID` that says what of the three cannot be used.
    fn for_listener(&self) -> Result<Arc<ServerConfig>> {
        let certificates = |what: &'static str, pem: &[u8]| {
            let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
            match all {
                Ok(all) if !all.is_empty() => Ok(all),
                _ => Err(invalid(&format!("{what} holds no certificate in PEM"))),
            }
        };
        let cannot = |source: &dyn std::fmt::Display| invalid(&source.to_string());
        let mut roots = RootCertStore::empty();
        for authority in certificates("tls.ca_file", &self.ca)? {
            roots.add(authority).map_err(|source| cannot(&source))?;
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| invalid("tls.key_file holds no private key in PEM"))?;
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|source| cannot(&source))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| cannot(&source))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates("tls.cert_file", &self.cert)?, key)
            .map_err(|source| cannot(&source))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Arc::new(config))
    }
}

fn invalid(what: &str) -> Error {
    let message = format!("the certificate, its key or the authority cannot be used: {what}");
    Error::new(ErrorKind::FailedPrecondition, "TLS_FILE_INVALID", message)
}

/// What the files of one process held when they were last sound; read again when they change.
pub struct Watched {
    files: Files,
    seen: Vec<Option<SystemTime>>,
    pems: Pems,
}

impl Watched {
    /// Reads them.
    ///
    /// # Errors
    /// As [`Files::read`]; those of `check`, which says whether they can be used.
    pub fn new(files: Files, check: impl Fn(&Pems) -> Result<()>) -> Result<Self> {
        let seen = files.modified(); // before they are read: a change between is seen
        let pems = files.read()?;
        check(&pems)?;
        Ok(Self { files, seen, pems })
    }

    /// What they held.
    pub fn pems(&self) -> &Pems {
        &self.pems
    }

    /// Reads them again where they changed, and tells whether there is something new. Files that are half written are read
    /// again at the next look.
    ///
    /// # Errors
    /// As [`Watched::new`]; what there was stays.
    pub fn renew(&mut self, check: impl Fn(&Pems) -> Result<()>) -> Result<bool> {
        let seen = self.files.modified();
        if seen == self.seen {
            return Ok(false);
        }
        self.seen.clear();
        let pems = self.files.read()?;
        check(&pems)?;
        self.seen = seen;
        let new = pems != self.pems;
        self.pems = pems;
        Ok(new)
    }
}

/// TLS of a listener, with the certificates that its files hold now: who connects after they were renewed gets the new ones.
pub struct Listener(Mutex<Current>);

struct Current {
    watched: Watched,
    looked: Instant,
    config: Arc<ServerConfig>,
}

impl Listener {
    /// # Errors
    /// As [`Files::read`]; `TLS_FILE_INVALID`.
    pub fn new(files: Files) -> Result<Arc<Self>> {
        let watched = Watched::new(files, |pems| pems.for_listener().map(drop))?;
        let config = watched.pems().for_listener()?;
        Ok(Arc::new(Self(Mutex::new(Current { watched, looked: Instant::now(), config }))))
    }

    /// When what is in use ends, as unix time in seconds: of each certificate (`server`, `authority`) whose end can be read.
    pub fn expiry(&self) -> Vec<(String, f64)> {
        drop(self.config()); // looks whether the files were renewed, also while nobody connects
        let current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Pems { cert, ca, .. } = current.watched.pems();
        let ends = [("server", cert), ("authority", ca)].into_iter().filter_map(|(name, pem)| {
            let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
            // Of a chain, or of several authorities, the first that ends.
            let first = certificates.filter_map(|certificate| expiry::not_after(&certificate)).min()?;
            Some((name.to_owned(), first as f64))
        });
        ends.collect()
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK_EVERY {
            current.looked = Instant::now();
            let renewed = current.watched.renew(|pems| pems.for_listener().map(drop));
            match renewed
                .and_then(|new| if new { current.watched.pems().for_listener().map(Some) } else { Ok(None) })
            {
                Ok(None) => {}
                Ok(Some(config)) => {
                    current.config = config;
                    tracing::info!("the grpc listener has new certificates");
                }
                Err(error) => {
                    tracing::warn!(error = %error, "certificates changed and cannot be used; the old ones stay");
                }
            }
        }
        Arc::clone(&current.config)
    }
}
