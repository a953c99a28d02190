//! TLS to the servers, with rustls and ring.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use weir_core::{Error, ErrorKind, Result};

use crate::config::TlsConfig;

/// The client's side of TLS.
///
/// # Errors
/// `CONFIG_INVALID` that names the file.
pub(crate) fn client(config: &TlsConfig) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&config.ca_file)? {
        roots.add(certificate).map_err(|source| invalid(&config.ca_file, source))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| Error::internal("rustls has no protocol version").with_source(source))?
        .with_root_certificates(roots);
    let client = match (&config.cert_file, &config.key_file) {
        (Some(chain), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key).map_err(|source| invalid(key, source))?;
            builder
                .with_client_auth_cert(certificates(chain)?, private)
                .map_err(|source| invalid(chain, source))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(client))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.map_err(|source| invalid(file, source))
}

fn invalid(file: &Path, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    let text = format!("cannot use {} for TLS to the CQL servers: {source}", file.display());
    Error::new(ErrorKind::InvalidArgument, "CONFIG_INVALID", text).with_field("cql.tls").with_source(source)
}
