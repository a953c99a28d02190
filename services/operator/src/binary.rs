//! What the binary knows and this crate may not depend on.

use weir_core::Result;

/// What the binary gives.
pub trait Binary: Send + Sync {
    /// A pepper file for the hashes of tokens.
    ///
    /// # Errors
    /// `Unavailable` where the system gives no random bytes.
    fn pepper(&self) -> Result<String>;

    /// The text of a token for the first tenant, which `weir init --first-token-file` imports.
    ///
    /// # Errors
    /// As of [`Binary::pepper`].
    fn token(&self) -> Result<String>;

    /// Certificates by which the services know each other, for these DNS names and addresses.
    ///
    /// # Errors
    /// As of [`Binary::pepper`]; `NAME_INVALID`.
    fn certificates(&self, names: &[String]) -> Result<Certificates>;

    /// Whether weir.toml can be read by this release.
    ///
    /// # Errors
    /// `CONFIG_INVALID` that names the key.
    fn check_config(&self, toml: &str) -> Result<()>;
}

/// Certificates in PEM.
pub struct Certificates {
    /// The authority.
    pub ca: String,
    /// The services' certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}
