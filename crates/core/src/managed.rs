//! Objects that are kept from outside, such as by a resource in Kubernetes: who keeps one changes it, and nobody else by
//! accident.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result, Uid};

/// The name of the field, in update masks too.
pub const FIELD: &str = "managed_by";
/// Kind, namespace and name of a Kubernetes object fit.
const MAX: usize = 256;

/// Who keeps an object; empty where nobody does and everybody may.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ManagedBy(String);

impl ManagedBy {
    /// Of a request's `managed_by`.
    ///
    /// # Errors
    /// `MANAGED_BY_INVALID` for more than 256 bytes, or control characters.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if text.len() <= MAX && !text.chars().any(char::is_control) {
            return Ok(Self(text));
        }
        let message = format!("{FIELD} must have at most {MAX} bytes without control characters");
        Err(Error::invalid(FIELD, "MANAGED_BY_INVALID", message).with_limit(MAX))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The fingerprint of a request that creates an object with this content for this keeper; what nobody keeps has that of
    /// the content alone.
    pub fn fingerprint(&self, request_id: &str, content: &[u8]) -> Uid {
        let parts: [&[u8]; 3] = [b"create", request_id.as_bytes(), content];
        match self.0.as_bytes() {
            [] => Uid::hash(&parts),
            by => Uid::hash(&[parts.as_slice(), &[by]].concat()),
        }
    }

    /// Whether `caller` may change or delete `what`, which this keeps.
    ///
    /// # Errors
    /// `MANAGED` that names who keeps it.
    pub fn admits(&self, what: &str, caller: &Self) -> Result<()> {
        if self.0.is_empty() || self == caller {
            return Ok(());
        }
        let message = format!(
            "{what} is managed by {self}: change it there, or take it over by an update whose update_mask names {FIELD}"
        );
        Err(Error::new(ErrorKind::FailedPrecondition, "MANAGED", message).with_field(FIELD))
    }

    /// Who keeps `what` after an update by `caller`, which may take it over.
    ///
    /// # Errors
    /// As of [`ManagedBy::admits`].
    pub fn after_update(&self, what: &str, caller: &Self, takes_over: bool) -> Result<Self> {
        if takes_over {
            return Ok(caller.clone());
        }
        self.admits(what, caller).map(|()| self.clone())
    }
}

impl fmt::Display for ManagedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_keeps_it_may_and_what_nobody_keeps_everybody() {
        let by = |text: &str| ManagedBy::new(text).unwrap();
        by("").admits("x", &by("Rule a/b")).unwrap();
        by("Rule a/b").admits("x", &by("Rule a/b")).unwrap();
        for other in ["", "Rule a/c"] {
            let error = by("Rule a/b").admits("tenants/t/rules/r", &by(other)).unwrap_err();
            assert_eq!((error.kind(), error.reason()), (ErrorKind::FailedPrecondition, "MANAGED"));
            assert!(error.message().starts_with("tenants/t/rules/r is managed by Rule a/b"), "{error}");
        }
        assert_eq!(ManagedBy::new("x".repeat(257)).unwrap_err().reason(), "MANAGED_BY_INVALID");
        assert_eq!(ManagedBy::new("a\nb").unwrap_err().field(), Some("managed_by"));
    }
}
