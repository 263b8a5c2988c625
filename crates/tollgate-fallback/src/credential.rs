//! A key and the header that it travels in.
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
