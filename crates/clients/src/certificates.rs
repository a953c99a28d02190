//! Certificates for the services of one Weir, for those who have no authority of their own.

use std::{
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use weir_core::{Error, Result};
use weir_grpc::identity::SERVICE_URI;

/// An authority that outlives the machines it was made for, and no longer.
const YEARS: i32 = 10;
/// Of the Gregorian calendar, on average.
const SECONDS_PER_YEAR: u64 = 31_556_952;
/// What certificates are told apart by, for people.
const AUTHORITY_NAME: &str = "Weir services";
const SERVICE_NAME: &str = "weir";

/// An authority, and a certificate of it that every service of one Weir can use.
pub struct Bundle {
    /// The authority's certificate, in PEM: `tls.ca_file`.
    pub ca: String,
    /// The authority's key, in PEM: needed only to make more certificates; whoever has it can be any service.
    pub ca_key: String,
    /// The services' certificate, in PEM, for server and client alike: `tls.cert_file`.
    pub cert: String,
    /// The key of it, in PEM: `tls.key_file`.
    pub key: String,
}

/// Makes an authority and a certificate for the services, valid for ten years, for the DNS names and IP addresses at which
/// they reach each other and users reach them. Keys are of ECDSA P-256.
///
/// # Errors
/// `NAME_INVALID` for what is neither a DNS name nor an IP address; `Unavailable` where the system has no randomness.
pub fn make(names: &[String]) -> Result<Bundle> {
    let authority = Authority::make()?;
    let (cert, key) = authority.certificate(names, Some(SERVICE_URI))?;
    Ok(Bundle { ca: authority.pem(), ca_key: authority.issuer.key().serialize_pem(), cert, key })
}

/// An authority that makes certificates.
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// `Unavailable` where the system has no randomness.
    pub fn make() -> Result<Self> {
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = params(AUTHORITY_NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)); // it makes certificates, and no authorities
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// Its certificate, in PEM.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate for `names`, and for `uri`, which makes a service of its holder where it is [`SERVICE_URI`]; then its
    /// key. Both in PEM.
    ///
    /// # Errors
    /// `NAME_INVALID` for what is neither a DNS name nor an IP address; `Unavailable` where the system has no randomness.
    pub fn certificate(&self, names: &[String], uri: Option<&str>) -> Result<(String, String)> {
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = params(SERVICE_NAME);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(dns_name(name)?.try_into().map_err(failed)?),
            });
        }
        if let Some(uri) = uri {
            params.subject_alt_names.push(SanType::URI(uri.try_into().map_err(failed)?));
        }
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let year = 1970 + i32::try_from(seconds / SECONDS_PER_YEAR).unwrap_or_default();
    params.not_before = date_time_ymd(year - 1, 1, 1); // clocks that are behind take it, too
    params.not_after = date_time_ymd(year + YEARS, 1, 1);
    params
}

/// A DNS name (RFC 1123, section 2.1); its first label may be `*`.
fn dns_name(name: &str) -> Result<&str> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let labels = name.strip_prefix("*.").unwrap_or(name);
    if name.len() <= 253 && labels.split('.').all(is_label) {
        return Ok(name);
    }
    let shown: String = name.chars().take(100).collect();
    Err(Error::invalid("names", "NAME_INVALID", format!("{shown:?} is neither a DNS name nor an IP address")))
}

fn failed(source: rcgen::Error) -> Error {
    Error::unavailable(format!("a certificate cannot be made: {source}")).with_source(source)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_in_pem_and_its_names_are_checked() {
        let bundle =
            make(&["localhost".to_owned(), "127.0.0.1".to_owned(), "*.weir.svc".to_owned()]).unwrap();
        for (pem, kind) in [
            (&bundle.ca, "CERTIFICATE"),
            (&bundle.cert, "CERTIFICATE"),
            (&bundle.ca_key, "PRIVATE KEY"),
            (&bundle.key, "PRIVATE KEY"),
        ] {
            assert!(pem.starts_with(&format!("-----BEGIN {kind}-----")), "{kind}");
        }
        for bad in ["", "a b", "a..b", "-a", "*", "http://a", &"a".repeat(64)] {
            let error = make(&[bad.to_owned()]).err().unwrap();
            assert_eq!(error.reason(), "NAME_INVALID", "{bad}");
        }
    }
}
