//! Keys: what they are, in which header they travel, where they come from.
use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    sync::OnceLock,
};

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use crate::InvalidChain;

/// Headers that carry a key, at any provider.
const KEY_HEADERS: [&str; 4] = ["authorization", "api-key", "x-api-key", "x-goog-api-key"];

/// A key and the header that it travels in. `Debug` shows the header and not the key.
///
/// ```
/// use tollgate_fallback::Credential;
///
/// let openai = Credential::bearer("sk-1")?;
/// let azure = Credential::header("api-key", "secret")?;
/// assert!(!format!("{openai:?} {azure:?}").contains("secret"));
/// # Ok::<(), tollgate_fallback::InvalidChain>(())
/// ```
#[derive(Clone)]
pub struct Credential {
    name: HeaderName,
    value: HeaderValue,
    id: KeyId,
}

impl Credential {
    /// `authorization: Bearer KEY`: OpenAI and its compatibles, Entra and Vertex tokens.
    ///
    /// # Errors
    ///
    /// If the key is empty or holds a character that no header may.
    pub fn bearer(key: &str) -> Result<Self, InvalidChain> {
        Self::of(header::AUTHORIZATION, &format!("Bearer {key}"), key)
    }

    /// The key alone in a header: `api-key` (Azure), `x-api-key` (Anthropic), `x-goog-api-key`
    /// (Gemini), or any other.
    ///
    /// # Errors
    ///
    /// If the name is no header's, or the key is empty or holds a character that no header may.
    pub fn header(name: &str, key: &str) -> Result<Self, InvalidChain> {
        let name = name
            .parse()
            .map_err(|_| InvalidChain::new(format!("`{name}` is no name of a header")))?;
        Self::of(name, key, key)
    }

    fn of(name: HeaderName, value: &str, key: &str) -> Result<Self, InvalidChain> {
        // The sentence must not repeat the key.
        if key.trim().is_empty() {
            return Err(InvalidChain::new(format!("the key for `{name}` is empty")));
        }
        let mut value = HeaderValue::from_str(value).map_err(|_| {
            InvalidChain::new(format!(
                "the key for `{name}` holds a character that no header may"
            ))
        })?;
        value.set_sensitive(true);
        Ok(Self {
            name,
            value,
            id: KeyId::of(key.as_bytes()),
        })
    }

    /// The header that carries the key.
    #[must_use]
    pub fn header_name(&self) -> &HeaderName {
        &self.name
    }

    /// Tells keys apart.
    pub(crate) fn id(&self) -> KeyId {
        self.id
    }

    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        headers.insert(self.name.clone(), self.value.clone());
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("header", &self.name)
            .field("key", &self.value)
            .finish_non_exhaustive()
    }
}

/// Where the keys of a [`Target`](crate::Target) come from. Asked for every request that may go
/// there, so a key can be rotated without building anything anew.
///
/// A [`Credential`] is one key that stays, a list of them are several of which the first is
/// preferred, and a closure is asked anew each time. It is asked on the path of every call, perhaps
/// more than once: let it read a value at hand, and fetch a new one in the background.
///
/// ```
/// use std::{sync::{Arc, RwLock}, time::Duration};
/// use tollgate_fallback::{Credential, Target};
///
/// // A token that lives an hour.
/// let token = Arc::new(RwLock::new(Credential::bearer("token-1")?));
/// let there = Target::new("vertex", "https://vertex.example/v1")?.credential({
///     let token = Arc::clone(&token);
///     move || token.read().expect("no writer panics").clone()
/// });
/// // In a task of its own, in good time before the hour is over:
/// *token.write().expect("no reader panics") = Credential::bearer("token-2")?;
/// # let _ = there;
/// # Ok::<(), tollgate_fallback::InvalidChain>(())
/// ```
pub trait CredentialProvider: Send + Sync {
    /// The first credential for which `usable` is true: one that was refused a moment ago is not.
    /// `None`: there is none, and the target is passed over.
    fn credential(&self, usable: &dyn Fn(&Credential) -> bool) -> Option<Credential>;

    /// The header that they travel in, if it is always the same; it may tell whose shapes the
    /// target speaks.
    fn header_name(&self) -> Option<&HeaderName> {
        None
    }
}

impl CredentialProvider for Credential {
    fn credential(&self, usable: &dyn Fn(&Credential) -> bool) -> Option<Credential> {
        usable(self).then(|| self.clone())
    }

    fn header_name(&self) -> Option<&HeaderName> {
        Some(&self.name)
    }
}

impl CredentialProvider for Vec<Credential> {
    fn credential(&self, usable: &dyn Fn(&Credential) -> bool) -> Option<Credential> {
        self.iter().find(|credential| usable(credential)).cloned()
    }

    fn header_name(&self) -> Option<&HeaderName> {
        self.first().map(|credential| &credential.name)
    }
}

impl<const N: usize> CredentialProvider for [Credential; N] {
    fn credential(&self, usable: &dyn Fn(&Credential) -> bool) -> Option<Credential> {
        self.iter().find(|credential| usable(credential)).cloned()
    }

    fn header_name(&self) -> Option<&HeaderName> {
        self.first().map(|credential| &credential.name)
    }
}

impl<F> CredentialProvider for F
where
    F: Fn() -> Credential + Send + Sync,
{
    fn credential(&self, usable: &dyn Fn(&Credential) -> bool) -> Option<Credential> {
        Some(self()).filter(|credential| usable(credential))
    }
}

/// Tells keys apart without holding them: a digest with a secret of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeyId(u64);

impl KeyId {
    pub(crate) fn of(key: &[u8]) -> Self {
        Self(digest(true, key.iter().copied()))
    }

    /// The key that a request brings along; where it has none, its origin stands for it.
    pub(crate) fn of_request(headers: &HeaderMap, uri: &Uri, origin: u64) -> Self {
        let named = KEY_HEADERS.iter().find_map(|name| headers.get(*name));
        if let Some(value) = named {
            let value = value.as_bytes();
            let bearer = value
                .get(..7)
                .filter(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
            return Self::of(if bearer.is_some() { &value[7..] } else { value });
        }
        let mut pairs = uri.query().unwrap_or_default().split('&');
        match pairs.find_map(|pair| pair.strip_prefix("key=")) {
            Some(key) => Self::of(key.as_bytes()),
            None => Self::none(origin),
        }
    }

    /// No key: what an origin without keys refuses says nothing of another.
    pub(crate) fn none(origin: u64) -> Self {
        Self(origin)
    }
}

/// A digest with a secret of this process.
pub(crate) fn digest(kind: bool, bytes: impl Iterator<Item = u8>) -> u64 {
    static SECRET: OnceLock<RandomState> = OnceLock::new();
    let mut hasher = SECRET.get_or_init(RandomState::new).build_hasher();
    hasher.write_u8(u8::from(kind));
    bytes.for_each(|byte| hasher.write_u8(byte));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_key_in_every_header() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("bearer sk-1"));
        let uri = Uri::from_static("/v1/responses?key=sk-2");
        let bearer = Credential::bearer("sk-1").unwrap();
        assert_eq!(KeyId::of_request(&headers, &uri, 0), bearer.id());
        assert_eq!(
            KeyId::of_request(&HeaderMap::new(), &uri, 0),
            Credential::header("x-goog-api-key", "sk-2").unwrap().id()
        );
    }

    #[test]
    fn a_bad_key_is_refused_without_being_named() {
        let error = Credential::bearer("se\ncret").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("cret"), "{error}");
        assert!(Credential::bearer(" ").is_err());
        assert!(Credential::header("a b", "k").is_err());
    }
}
