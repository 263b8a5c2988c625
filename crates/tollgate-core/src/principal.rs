//! Whom a call is made for, as a digest.
//!
//! Users, tenants and keys are told apart and never named: a [`Principal`] holds a keyed digest of
//! the name, not the name.
use std::{
    error::Error,
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{HeaderMap, header};
use siphasher::sip::SipHasher13;

/// The key of all digests of this process.
static KEY: OnceLock<[u8; 16]> = OnceLock::new();
/// It was chosen, and not at random.
static SET: AtomicBool = AtomicBool::new(false);

/// A user, tenant, tag or key, as a digest keyed with a secret of this process.
///
/// Equal names give equal principals within one process and unrelated ones in the next, unless
/// both [set the same key](Self::set_key).
///
/// ```
/// use tollgate_core::principal::Principal;
///
/// assert_eq!(Principal::of("alice"), Principal::of("alice"));
/// assert_ne!(Principal::of("alice"), Principal::of("bob"));
/// assert!(!format!("{:?}", Principal::of("alice")).contains("alice"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal(u64);

impl Principal {
    /// The digest of a name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self::of_bytes(name.as_bytes())
    }

    /// The digest of a name, or of a secret, that need not be text.
    #[must_use]
    pub fn of_bytes(name: &[u8]) -> Self {
        let mut hasher = SipHasher13::new_with_key(KEY.get_or_init(random));
        hasher.write(name);
        Self(hasher.finish())
    }

    /// The digest of the credential that a request carries: its `authorization`, `x-api-key`,
    /// `api-key` or `x-goog-api-key`.
    ///
    /// Of a signature the signer counts, for a signature is another one for each request.
    #[must_use]
    pub fn of_credential(headers: &HeaderMap) -> Option<Self> {
        let names = [
            header::AUTHORIZATION.as_str(),
            "x-api-key",
            "api-key",
            "x-goog-api-key",
        ];
        let value = names.iter().find_map(|name| headers.get(*name))?.as_bytes();
        let signer = value.strip_prefix(b"AWS4-").and_then(|rest| {
            let at = rest.windows(11).position(|part| part == b"Credential=")?;
            rest[at + 11..].split(|&byte| byte == b'/').next()
        });
        Some(Self::of_bytes(signer.unwrap_or(value)))
    }

    /// Sets the key of all digests, so that they are the same in the next process: for ledgers and
    /// for stores that processes share. To be called first thing in `main`.
    ///
    /// Whoever has the key can tell by trial whether a digest is that of a name; keep it like a
    /// password.
    ///
    /// # Errors
    ///
    /// If there is a key already: one was set, or a digest was made with a random one.
    pub fn set_key(key: [u8; 16]) -> Result<(), KeyInUse> {
        KEY.set(key).map_err(|_| KeyInUse)?;
        SET.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether [`set_key`](Self::set_key) has set the key, so that other processes can have the same digests.
    #[must_use]
    pub fn has_set_key() -> bool {
        SET.load(Ordering::Relaxed)
    }

    /// A digest that the caller computed with a key of its own, so that it survives a restart.
    #[must_use]
    pub fn from_digest(digest: u64) -> Self {
        Self(digest)
    }

    /// The digest.
    #[must_use]
    pub fn digest(self) -> u64 {
        self.0
    }
}

/// The standard library's random keys are the system's; two hashes under them make one of ours.
fn random() -> [u8; 16] {
    let state = RandomState::new();
    let mut key = [0; 16];
    key[..8].copy_from_slice(&state.hash_one(0u8).to_ne_bytes());
    key[8..].copy_from_slice(&state.hash_one(1u8).to_ne_bytes());
    key
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Digests have a key already, which cannot be changed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyInUse;

impl fmt::Display for KeyInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key of digests must be set before the first digest is made, and once only")
    }
}

impl Error for KeyInUse {}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn key(name: &'static str, value: &'static str) -> Option<Principal> {
        Principal::of_credential(&HeaderMap::from_iter([(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )]))
    }

    #[test]
    fn a_key_is_told_by_any_of_the_four_headers_and_another_key_is_another() {
        for name in ["authorization", "x-api-key", "api-key", "x-goog-api-key"] {
            assert_eq!(key(name, "sk-1"), key(name, "sk-1"));
            assert_ne!(key(name, "sk-1"), key(name, "sk-2"), "{name}");
        }
        assert_eq!(key("x-other", "sk-1"), None);
    }

    #[test]
    fn of_a_signed_request_the_signer_counts_and_not_the_signature() {
        let signed = |text| key("authorization", text);
        let one = signed("AWS4-HMAC-SHA256 Credential=AKIA1/20261122/us-east-1/x, Signature=aa");
        let two = signed("AWS4-HMAC-SHA256 Credential=AKIA1/20261123/us-east-1/x, Signature=bb");
        let other = signed("AWS4-HMAC-SHA256 Credential=AKIA2/20261122/us-east-1/x, Signature=aa");
        assert_eq!(one, two);
        assert_ne!(one, other);
    }
}
