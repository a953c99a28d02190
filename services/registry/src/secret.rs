//! Tokens and the keyed hashes under which they are kept.
//!
//! A token is `wa_<id>_<secret>` (API) or `wd_<id>_<secret>` (device): the id finds the record in one read, the secret has
//! 256 bits. Kept is HMAC-SHA256 (RFC 2104) of the whole token under a pepper that is not in the store, so that a stolen
//! store opens nothing. Peppers are a ring: the first hashes new tokens, the others still verify old ones.

use std::{fmt, sync::Arc};

use ring::{
    digest, hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};
use weir_core::{Error, ErrorKind, Result};

/// 256 bits, as RFC 2104 recommends for SHA-256.
const PEPPER_BYTES: usize = 32;
/// 64 bits: enough that ids never collide; they are no secret.
const ID_BYTES: usize = 8;
/// 43 of 62 letters are 256 bits.
const SECRET_CHARS: usize = 43;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The greatest multiple of 62 in a byte: letters from the bytes below it are equally likely.
const UNBIASED: u8 = 248;

/// What a token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `wa_`: the API.
    Api,
    /// `wd_`: a device's connection.
    Device,
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Api => "wa",
            Self::Device => "wd",
        }
    }
}

/// The kind and id of what looks like a token.
pub(crate) fn parse(token: &str) -> Option<(Kind, &str)> {
    let mut parts = token.split('_');
    let kind = match parts.next()? {
        "wa" => Kind::Api,
        "wd" => Kind::Device,
        _ => return None,
    };
    let (id, secret) = (parts.next()?, parts.next()?);
    let well_formed = is_id(id)
        && secret.len() == SECRET_CHARS
        && secret.bytes().all(|b| b.is_ascii_alphanumeric())
        && parts.next().is_none();
    well_formed.then_some((kind, id))
}

/// Whether `text` can be the id of a token or credential: 16 hexadecimal digits.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 2 * ID_BYTES && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A new token: its id and its text.
pub(crate) fn generate(kind: Kind) -> Result<(String, String)> {
    let mut id = [0_u8; ID_BYTES];
    fill(&mut id)?;
    let id = hex(&id);
    let mut secret = String::with_capacity(SECRET_CHARS);
    while secret.len() < SECRET_CHARS {
        let mut bytes = [0_u8; SECRET_CHARS];
        fill(&mut bytes)?;
        let letters = bytes
            .iter()
            .filter(|byte| **byte < UNBIASED)
            .filter_map(|byte| ALPHABET.get(usize::from(byte % 62)))
            .map(|letter| char::from(*letter));
        secret.extend(letters.take(SECRET_CHARS - secret.len()));
    }
    let token = format!("{}_{id}_{secret}", kind.prefix());
    Ok((id, token))
}

fn fill(bytes: &mut [u8]) -> Result<()> {
    SystemRandom::new().fill(bytes).map_err(|_| Error::unavailable("the system gives no random bytes"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a token: what a cached verification is compared with, so that no token stays in memory.
pub(crate) fn digest(token: &str) -> [u8; 32] {
    let mut bytes = [0_u8; 32];
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    bytes.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    bytes
}

/// Compares without telling by its time where the first difference is.
pub(crate) fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// The hash of a token, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hash {
    /// The pepper's id.
    pepper: String,
    /// HMAC-SHA256, in hexadecimal.
    mac: String,
}

/// The peppers of an installation: secret keys that are kept apart from the store.
#[derive(Clone)]
pub struct Peppers {
    current: Arc<Pepper>,
    previous: Arc<[Pepper]>,
}

struct Pepper {
    id: String,
    key: hmac::Key,
}

impl Pepper {
    fn new(bytes: &[u8]) -> Result<Self> {
        if bytes.len() < PEPPER_BYTES {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                "PEPPER_INVALID",
                format!("a pepper has {} bytes, it must have at least {PEPPER_BYTES}", bytes.len()),
            )
            .with_field("auth.pepper_file")
            .with_limit(PEPPER_BYTES));
        }
        let id = digest::digest(&digest::SHA256, bytes);
        Ok(Self {
            id: hex(id.as_ref().get(..ID_BYTES).unwrap_or_default()),
            key: hmac::Key::new(hmac::HMAC_SHA256, bytes),
        })
    }
}

impl Peppers {
    /// A ring from its text: one pepper a line in hexadecimal, the first for new tokens, the others for old ones; empty
    /// lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// `PEPPER_INVALID` where there is none, or a line is not at least 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |message: &str| {
            Error::new(ErrorKind::FailedPrecondition, "PEPPER_INVALID", message)
                .with_field("auth.pepper_file")
        };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut peppers = lines
            .map(|line| unhex(line).ok_or_else(|| invalid("a pepper is not in hexadecimal")))
            .map(|bytes| Pepper::new(&bytes?))
            .collect::<Result<Vec<_>>>()?
            .into_iter();
        let current = peppers.next().ok_or_else(|| invalid("there is no pepper"))?;
        Ok(Self { current: Arc::new(current), previous: peppers.collect() })
    }

    /// A line for [`Peppers::parse`] with a new pepper of 256 random bits.
    ///
    /// # Errors
    /// `Unavailable` where the system gives no random bytes.
    pub fn generate() -> Result<String> {
        let mut bytes = [0_u8; PEPPER_BYTES];
        fill(&mut bytes)?;
        Ok(hex(&bytes))
    }

    pub(crate) fn hash(&self, token: &str) -> Hash {
        let mac = hmac::sign(&self.current.key, token.as_bytes());
        Hash { pepper: self.current.id.clone(), mac: hex(mac.as_ref()) }
    }

    /// Whether `hash` is that of `token`; without a hash (an unknown id) the same work is done for nothing.
    pub(crate) fn verify(&self, token: &str, hash: Option<&Hash>) -> bool {
        let ring = || std::iter::once(&*self.current).chain(self.previous.iter());
        let pepper = hash.and_then(|hash| ring().find(|pepper| pepper.id == hash.pepper));
        let known = hash.and_then(|hash| unhex(&hash.mac)).unwrap_or_else(|| vec![0; PEPPER_BYTES]);
        let right = hmac::verify(&pepper.unwrap_or(&self.current).key, token.as_bytes(), &known).is_ok();
        right && pepper.is_some()
    }

    /// Whether a hash was made under a pepper that is no longer the first.
    pub(crate) fn is_old(&self, hash: &Hash) -> bool {
        hash.pepper != self.current.id
    }
}

/// Never shows the keys.
impl fmt::Debug for Peppers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peppers(current {}, {} previous)", self.current.id, self.previous.len())
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(lines: &[&str]) -> Peppers {
        Peppers::parse(&lines.join("\n")).unwrap()
    }

    #[test]
    fn a_token_is_read_back_and_anything_else_is_none() {
        let (id, token) = generate(Kind::Device).unwrap();
        assert_eq!(parse(&token), Some((Kind::Device, id.as_str())));
        assert_eq!(token.len(), "wd_".len() + 16 + 1 + SECRET_CHARS);
        for bad in
            ["", "wd", "wd__", "wx_0011223344556677_a", &format!("{token}_"), &token.replace("wd_", "wd_G")]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_old_pepper_still_verifies_and_a_removed_one_does_not() {
        let (old, new) = (Peppers::generate().unwrap(), Peppers::generate().unwrap());
        let hash = ring(&[&old]).hash("wa_x_y");
        let both = ring(&["# comment", &new, "", &old]);
        assert!(both.verify("wa_x_y", Some(&hash)) && both.is_old(&hash));
        assert!(!both.verify("wa_x_z", Some(&hash)));
        assert!(!both.verify("wa_x_y", None));
        assert!(!ring(&[&new]).verify("wa_x_y", Some(&hash)));
    }

    #[test]
    fn a_short_or_missing_pepper_is_refused() {
        for bad in ["", "# only a comment", "00ff", "xyz"] {
            assert_eq!(Peppers::parse(bad).unwrap_err().reason(), "PEPPER_INVALID", "{bad}");
        }
    }
}
