//! Asking for usage in the caller's place, where the provider only states it on request.
use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{HeaderValue, Uri, header, request::Parts};
use tollgate_core::{
    body::signed,
    extensions::AskedForUsage,
    wire::prompt::{Facts, ask_for_usage},
};

/// Targets that are remembered at most.
const TARGETS: usize = 1_000;

/// Whether an answer would state its usage only if it were asked to, and the request may be touched.
pub(crate) fn wanted(parts: &Parts, facts: &Facts) -> bool {
    facts.endpoint.takes_stream_options()
        && facts.stream
        && facts.include_usage != Some(true)
        && !signed(&parts.headers, parts.uri.query())
}

/// Asks for usage: changes the document and what the head says of it. `None`: it cannot be.
pub(crate) fn ask(parts: &mut Parts, body: &Bytes, facts: &Facts) -> Option<Bytes> {
    let original = body;
    let body = ask_for_usage(original)?;
    let headers = &mut parts.headers;
    if headers.contains_key(header::CONTENT_LENGTH) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    // The chunk that we ask for must be found again in the answer, so it must come uncoded.
    if headers.contains_key(header::ACCEPT_ENCODING) {
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
    }
    let facts = Facts::new(facts.asking_for_usage(&body));
    parts.extensions.insert(facts);
    let question = AskedForUsage::new(body.clone(), original.clone());
    parts.extensions.insert(question);
    Some(body)
}

/// Whether an error's document names what we have put in: a guess, for some servers repeat the whole
/// request in each of their errors. The answer to the request without it tells.
pub(crate) fn blamed(document: &[u8]) -> bool {
    let names = |word: &[u8]| document.windows(word.len()).any(|at| at == word);
    names(b"stream_options") || names(b"include_usage")
}

/// Authority and model, as a hash with a secret of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target(u64);

/// What the targets do that were asked: answer (`true`), or refuse the field (`false`).
#[derive(Default)]
pub(crate) struct Targets {
    known: Mutex<HashMap<Target, bool>>,
    hasher: RandomState,
}

impl Targets {
    pub(crate) fn target(&self, parts: &Parts, facts: &Facts) -> Target {
        let authority = Uri::authority(&parts.uri).map(|authority| authority.as_str());
        let host = || parts.headers.get(header::HOST)?.to_str().ok();
        let authority = authority.or_else(host).unwrap_or_default();
        Target(self.hasher.hash_one((authority, facts.model.as_deref())))
    }

    /// Whether a target takes the field; `None`: nobody knows.
    pub(crate) fn takes(&self, target: Target) -> Option<bool> {
        self.known().get(&target).copied()
    }

    pub(crate) fn learn(&self, target: Target, takes: bool) {
        let mut known = self.known();
        if known.len() >= TARGETS {
            // To forget costs one refused request a target.
            known.clear();
        }
        known.insert(target, takes);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Target, bool>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Targets")
            .field("known", &self.known().len())
            .finish()
    }
}
