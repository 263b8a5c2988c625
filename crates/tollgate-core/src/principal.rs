//! Whom a call is made for, as a digest.
//!
//! Users and tenants are told apart and never named: a [`Principal`] holds a keyed digest of the
//! name, not the name.
use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::OnceLock,
};

/// A user, tenant or tag, as a digest keyed with a secret of this process.
///
/// Equal names give equal principals within one process and unrelated ones in the next.
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
        Self(key().hash_one(name))
    }

    /// The digest of a name, or of a secret, that need not be text.
    #[must_use]
    pub fn of_bytes(name: &[u8]) -> Self {
        Self(key().hash_one(name))
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

fn key() -> &'static RandomState {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    KEY.get_or_init(RandomState::new)
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
