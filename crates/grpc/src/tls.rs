//! TLS of the gRPC listener and between services: one certificate for each process, and the authority of them all.

use std::{fs, path::PathBuf, time::Duration};

use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use weir_core::{Error, ErrorKind, Result};

/// A handshake takes two round trips; a peer that needs longer is none.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

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
}

/// TLS of a listener for users and services alike: who shows a certificate must have one of the authority, and who shows
/// none needs a token. It holds what the files hold now: a server takes renewed ones with its next start.
pub fn server(pems: &Pems) -> ServerTlsConfig {
    ServerTlsConfig::new()
        .identity(pems.identity())
        .client_ca_root(pems.authority())
        .client_auth_optional(true)
        .timeout(HANDSHAKE_MAX)
}
