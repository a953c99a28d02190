//! Identifiers and their alphabets.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Devices hash to this many fixed slots; partition = slot mod P, so that P can change without a new hash.
pub const SLOTS: u16 = 4_096;

/// A partition of a stream, below the configured count (16 by default, at most [`SLOTS`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub u16);

impl Partition {
    /// The partition of a device: XXH3-64 of its uid, mod [`SLOTS`], mod `partitions`.
    pub fn of(uid: Uid, partitions: u16) -> Self {
        let slot = xxhash_rust::xxh3::xxh3_64(&uid.to_bytes()) % u64::from(SLOTS);
        Self((slot % u64::from(partitions.max(1))) as u16)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $field:literal, $max:literal, $allowed:expr, $alphabet:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest id, in bytes.
            pub const MAX_LEN: usize = $max;

            /// Checks `text` against the alphabet and length.
            ///
            /// # Errors
            /// `InvalidArgument` that names the field, the alphabet and the limit.
            pub fn new(text: impl AsRef<str>) -> Result<Self> {
                let text = text.as_ref();
                let allowed: fn(u8) -> bool = $allowed;
                if text.is_empty() || text.len() > $max || !text.bytes().all(allowed) {
                    let shown: String = text.chars().take(40).collect();
                    return Err(Error::invalid(
                        $field,
                        "ID_INVALID",
                        format!("{} {shown:?} ({} bytes) must be 1 to {} characters of {}", $field, text.len(), $max, $alphabet),
                    )
                    .with_limit($max));
                }
                Ok(Self(text.into()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }
        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                Self::new(text)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.as_str().to_owned()
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id!(
    /// A tenant's id: 1 to 63 of `[a-z0-9-]`.
    TenantId, "tenant", 63, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-', "[a-z0-9-]"
);
text_id!(
    /// A device's public id: 1 to 128 of `[A-Za-z0-9_.:-]`, unique within its tenant.
    DeviceId, "device", 128, |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-'), "[A-Za-z0-9_.:-]"
);
text_id!(
    /// A name that a person gives to a rule or a profile: 1 to 63 of `[a-z0-9-]`.
    ResourceId, "id", 63, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-', "[a-z0-9-]"
);

/// A 128-bit identifier: random and time-ordered (UUIDv7, RFC 9562) for things that are made, or a hash for things that
/// must come out the same when they are written twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uid(u128);

impl Uid {
    /// A new UUIDv7.
    pub fn random() -> Self {
        Self(uuid::Uuid::now_v7().as_u128())
    }

    /// The first 128 bits of SHA-256 over `parts`, each preceded by its length: the same parts give the same id, on
    /// every machine and in every release.
    pub fn hash(parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let mut bytes = [0_u8; 16];
        for (to, from) in bytes.iter_mut().zip(hasher.finalize()) {
            *to = from;
        }
        Self(u128::from_be_bytes(bytes))
    }

    /// From its number.
    pub const fn from_u128(number: u128) -> Self {
        Self(number)
    }
    /// As a number.
    pub const fn as_u128(self) -> u128 {
        self.0
    }
    /// Sixteen bytes, big-endian, so that byte order is number order.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
    /// From its sixteen big-endian bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

/// 32 lowercase hexadecimal digits.
impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for Uid {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        if text.len() != 32 {
            return Err(Error::invalid(
                "id",
                "ID_INVALID",
                format!("id {text:?} must be 32 hexadecimal digits"),
            ));
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| {
            Error::invalid("id", "ID_INVALID", format!("id {text:?} must be 32 hexadecimal digits"))
        })
    }
}
impl TryFrom<String> for Uid {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<Uid> for String {
    fn from(id: Uid) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_id_out_of_its_alphabet_or_length_is_refused_with_the_limit() {
        assert!(DeviceId::new("room-1.co2:a_B").is_ok());
        for bad in ["", "a b", "ä", "a/b", &"x".repeat(129)] {
            let error = DeviceId::new(bad).unwrap_err();
            assert_eq!((error.field(), error.limit()), (Some("device"), Some("128")), "{bad:?}");
        }
    }

    #[test]
    fn a_slot_is_the_same_for_ever() {
        assert_eq!(Partition::of(Uid::from_u128(1), SLOTS), Partition::of(Uid::from_u128(1), SLOTS));
        let hit: std::collections::HashSet<_> =
            (0..1_000).map(|n| Partition::of(Uid::from_u128(n), 16)).collect();
        assert_eq!(hit.len(), 16);
    }

    #[test]
    fn a_hash_tells_where_one_part_ends() {
        assert_ne!(Uid::hash(&[b"ab", b"c"]), Uid::hash(&[b"a", b"bc"]));
    }
}
