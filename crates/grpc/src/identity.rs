//! Who is a service of this Weir: the holder of a certificate of its own authority with [`SERVICE_URI`], or, where there
//! is no TLS, of the service key.
//!
//! A certificate is looked at only after rustls has checked its chain and its possession (RFC 8446, section 4.4), so here
//! the name is all that is left to check. The name is a SPIFFE ID (SPIFFE-ID, section 2) in the certificate's subject
//! alternative names: a user's or a device's certificate of the same authority is no service.

use std::fmt;

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use rustls_pki_types::CertificateDer;
use weir_core::{Error, ErrorKind, Result};

/// The URI that the certificate of a service has among its subject alternative names.
pub const SERVICE_URI: &str = "spiffe://weir/service";
/// What a service key begins with, so that it is never taken for a token, nor a token for it.
pub const KEY_PREFIX: &str = "ws_";
/// As many random bytes as a token has: nobody guesses 256 bits.
const KEY_BYTES: usize = 32;

/// The key that the services of a Weir without TLS share.
#[derive(Clone)]
pub struct ServiceKey {
    text: String,
    expected: hmac::Tag,
    hasher: hmac::Key,
}

impl ServiceKey {
    /// A new key, `ws_` and 64 hexadecimal digits.
    ///
    /// # Errors
    /// `Unavailable` where the system has no randomness.
    pub fn generate() -> Result<String> {
        let mut bytes = [0; KEY_BYTES];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| Error::unavailable("the system has no randomness"))?;
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{KEY_PREFIX}{digits}"))
    }

    /// The key of a file; white space around it is not part of it.
    ///
    /// # Errors
    /// `SERVICE_KEY_INVALID` for what is no key, without a word of it.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let digits = text.strip_prefix(KEY_PREFIX).unwrap_or_default();
        if digits.len() != KEY_BYTES * 2 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let message = format!("a service key is {KEY_PREFIX} and {} hexadecimal digits", KEY_BYTES * 2);
            return Err(Error::new(ErrorKind::InvalidArgument, "SERVICE_KEY_INVALID", message));
        }
        // Two keyed hashes are compared, so that time tells nothing of the key itself, not even its length.
        let hasher = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| Error::unavailable("the system has no randomness"))?;
        Ok(Self { text: text.to_owned(), expected: hmac::sign(&hasher, text.as_bytes()), hasher })
    }

    /// Whether `token` is this key, in constant time.
    pub fn is(&self, token: &str) -> bool {
        hmac::verify(&self.hasher, token.as_bytes(), self.expected.as_ref()).is_ok()
    }

    /// The key, to show it.
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceKey(…)")
    }
}

/// Whether a certificate whose chain was checked is that of a service.
pub(crate) fn is_service(certificate: &CertificateDer<'_>) -> bool {
    webpki::EndEntityCert::try_from(certificate)
        .is_ok_and(|certificate| certificate.valid_uri_names().any(|uri| uri == SERVICE_URI))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_itself_and_nothing_else() {
        let text = ServiceKey::generate().unwrap();
        let key = ServiceKey::parse(&format!("{text}\n")).unwrap();
        assert!(key.is(&text) && key.reveal() == text);
        let another = ServiceKey::generate().unwrap();
        for other in ["", "ws_", &text[..text.len() - 1], &format!("{text}0"), &text.to_uppercase(), &another]
        {
            assert!(!key.is(other), "{other}");
        }
        assert!(!format!("{key:?}").contains(&text[3..]));
    }

    #[test]
    fn what_is_no_key_is_refused_without_a_word_of_it() {
        for bad in
            ["", "ws_", "ws_secret", &format!("wa_{}", "0".repeat(64)), &format!("ws_{}", "g".repeat(64))]
        {
            let error = ServiceKey::parse(bad).unwrap_err();
            assert_eq!(error.reason(), "SERVICE_KEY_INVALID");
            assert!(!error.message().contains("secret"));
        }
    }
}
