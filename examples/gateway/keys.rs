//! Who may call: gateway keys, of which only digests are known.
use std::{fmt, io::Read, sync::Arc};

use http::{HeaderMap, Uri, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tollgate::{
    call::{CallOptions, Priority},
    principal::Principal,
};

use crate::place;

/// Whoever calls where there are no keys.
const LOCAL: &str = "local";
/// Longest key that is looked at.
const LONGEST: usize = 1_024;
/// Shortest key that `--hash-key` takes: less can be guessed, and then the digest guards nothing.
const SHORTEST: usize = 16;

/// One caller. `Debug` shows neither digest nor name.
#[derive(Clone)]
pub struct Key {
    name: Arc<str>,
    digest: [u8; 32],
    tenant: Option<Arc<str>>,
    tag: Option<Arc<str>>,
    priority: Priority,
}

impl Key {
    /// A key by its name and the SHA-256 of it, in hexadecimal.
    ///
    /// # Errors
    ///
    /// If that is no digest; the sentence does not repeat it, for it may be the key itself.
    pub fn new(name: &str, sha256: &str) -> Result<Self, String> {
        let digest = from_hex(sha256).and_then(|bytes| bytes.try_into().ok());
        let digest = digest.ok_or_else(|| {
            format!("the sha256 of `{name}` must be 64 hexadecimal digits; make it with --hash-key")
        })?;
        Ok(Self {
            name: name.into(),
            digest,
            tenant: None,
            tag: None,
            priority: Priority::default(),
        })
    }

    /// Whom it belongs to, for limits of one tenant.
    #[must_use]
    pub fn tenant(mut self, tenant: &str) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// What it is for, for limits of one tag.
    #[must_use]
    pub fn tag(mut self, tag: &str) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// Its weight in the queues: `low`, `normal` or `high`.
    ///
    /// # Errors
    ///
    /// If it is none of them.
    pub fn priority(mut self, priority: &str) -> Result<Self, String> {
        self.priority = match priority {
            "low" => Priority::Low,
            "normal" => Priority::Normal,
            "high" => Priority::High,
            other => return Err(format!("{other:?} is no priority: low, normal or high")),
        };
        Ok(self)
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether both are made of the same secret.
    #[must_use]
    pub fn same_secret(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

/// All callers.
#[derive(Clone, Debug, Default)]
pub struct Keys(Arc<[Key]>);

/// Who is calling.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The key's name; `None` where there are no keys.
    pub name: Option<Arc<str>>,
    /// What the layers are told of them.
    pub options: CallOptions,
}

impl Keys {
    /// These.
    #[must_use]
    pub fn new(keys: Vec<Key>) -> Self {
        Self(keys.into())
    }

    /// Whether everybody may call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What they are called.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(Key::name)
    }

    /// The digests of all, and of the tenants and tags that they stand for. Where there are no keys, of everybody.
    pub(crate) fn accounts(
        &self,
    ) -> impl Iterator<Item = (Principal, Option<Principal>, Option<Principal>)> {
        let of = |name: &Option<Arc<str>>| name.as_deref().map(Principal::of);
        let local = self.is_empty().then(|| (Principal::of(LOCAL), None, None));
        let keys = self.0.iter();
        let keys = keys.map(move |key| (Principal::of(&key.name), of(&key.tenant), of(&key.tag)));
        keys.chain(local)
    }

    /// Who calls with these headers; `None` for a stranger.
    ///
    /// The principal is the key, so the `user` that a document names never selects a budget. How long it takes tells
    /// nothing of the keys: digests are compared whole, all of them, each in the same time.
    #[must_use]
    pub fn caller(&self, headers: &HeaderMap, uri: &Uri) -> Option<Caller> {
        if self.is_empty() {
            let options = CallOptions::new().principal(LOCAL);
            return Some(Caller {
                name: None,
                options,
            });
        }
        let shown = shown(headers, uri).unwrap_or_default();
        let digest: [u8; 32] = Sha256::digest(shown).into();
        let mut found = u32::MAX;
        for (at, key) in (0u32..).zip(self.0.iter()) {
            let same: Choice = key.digest.ct_eq(&digest);
            found = u32::conditional_select(&found, &at, same);
        }
        let key = self.0.get(found as usize).filter(|_| !shown.is_empty())?;
        let mut options = CallOptions::new()
            .principal(&key.name)
            .priority(key.priority);
        if let Some(tenant) = &key.tenant {
            options = options.tenant(tenant);
        }
        if let Some(tag) = &key.tag {
            options = options.tag(tag);
        }
        let name = Some(Arc::clone(&key.name));
        Some(Caller { name, options })
    }
}

/// The key that a caller shows, in any of the headers in which SDKs do, or as Gemini's users do in the query.
fn shown<'r>(headers: &'r HeaderMap, uri: &'r Uri) -> Option<&'r [u8]> {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .map(|value| value.as_bytes())
        .and_then(|value| {
            let scheme = value.get(..7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| &value[7..])
        });
    let own = || {
        ["x-api-key", "api-key", "x-goog-api-key"]
            .iter()
            .find_map(|name| headers.get(*name))
    };
    let in_query = || {
        uri.query()?
            .split('&')
            .find_map(place::key_in)
            .map(str::as_bytes)
    };
    let shown = bearer
        .or_else(|| own().map(|value| value.as_bytes()))
        .or_else(in_query)?
        .trim_ascii();
    (shown.len() <= LONGEST).then_some(shown)
}

/// The digest of the key that stands on `input`, for the configuration.
///
/// # Errors
///
/// A sentence, if there is none or it is too short to be a secret.
pub fn hash(input: impl Read) -> Result<String, String> {
    let mut key = Vec::new();
    let read = input.take(LONGEST as u64 + 2).read_to_end(&mut key);
    read.map_err(|error| format!("cannot read the key: {error}"))?;
    let key = key.trim_ascii();
    if key.len() < SHORTEST || key.len() > LONGEST {
        return Err(format!(
            "a key has {SHORTEST} to {LONGEST} characters; make one with: openssl rand -hex 32"
        ));
    }
    if !key.iter().all(u8::is_ascii_graphic) {
        return Err("a key must be of visible ASCII characters, or no header can carry it".into());
    }
    Ok(Sha256::digest(key)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Bytes of their hexadecimal digits.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    const SECRET: &str = "gw-0123456789abcdef";

    fn keys() -> Keys {
        let other = hash("another-key-of-somebody".as_bytes()).unwrap();
        let ann = hash(SECRET.as_bytes()).unwrap();
        Keys::new(vec![
            Key::new("bob", &other).unwrap(),
            Key::new("ann", &ann).unwrap(),
        ])
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(
            HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        )])
    }

    #[test]
    fn a_key_is_known_in_every_header_in_which_sdks_send_it() {
        let bearer = format!("Bearer {SECRET}");
        for (name, value) in [
            ("authorization", bearer.as_str()),
            ("x-api-key", SECRET),
            ("api-key", SECRET),
            ("x-goog-api-key", SECRET),
        ] {
            let caller = keys()
                .caller(&headers(name, value), &Uri::from_static("/v1/models"))
                .expect(name);
            assert_eq!(caller.name.as_deref(), Some("ann"));
        }
        let uri = format!("/v1beta/models?alt=sse&key={SECRET}")
            .parse()
            .unwrap();
        let caller = keys()
            .caller(&HeaderMap::new(), &uri)
            .expect("as Gemini's users do");
        assert_eq!(caller.name.as_deref(), Some("ann"));
    }

    #[test]
    fn a_stranger_is_nobody() {
        let long = "k".repeat(2_000);
        for value in ["", "Bearer ", "Bearer nonsense", "Basic Z3c=", &long] {
            assert!(
                keys()
                    .caller(
                        &headers("authorization", value),
                        &Uri::from_static("/v1/models")
                    )
                    .is_none(),
                "{value:.20}"
            );
        }
        let digest = hash(SECRET.as_bytes()).unwrap();
        let shown = format!("Bearer {digest}");
        assert!(
            keys()
                .caller(
                    &headers("authorization", &shown),
                    &Uri::from_static("/v1/models")
                )
                .is_none(),
            "the digest is no key"
        );
        assert!(
            keys()
                .caller(&HeaderMap::new(), &Uri::from_static("/v1/models"))
                .is_none()
        );
    }

    #[test]
    fn nothing_of_a_key_is_shown() {
        let said = format!("{:?}", keys());
        assert!(!said.contains("ann") && !said.contains("digest:"), "{said}");
        let error = Key::new("ann", SECRET).unwrap_err();
        assert!(
            !error.contains(SECRET),
            "somebody wrote the key where the digest belongs: {error}"
        );
    }

    #[test]
    fn the_digest_is_that_of_the_usual_tools_and_ends_of_lines_do_not_count() {
        // printf %s 0123456789abcdef | sha256sum
        let digest = "9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f";
        assert_eq!(hash("0123456789abcdef\n".as_bytes()).as_deref(), Ok(digest));
        assert!(hash("short".as_bytes()).is_err());
        assert!(hash("0123456789 abcdef".as_bytes()).is_err());
    }
}
