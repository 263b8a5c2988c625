//! Asking for usage in the caller's place, where the provider only states it on request.
use std::{
    collections::HashSet,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{HeaderValue, Uri, header, request::Parts};
use tollgate_core::{
    body::signed,
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
    let body = ask_for_usage(body)?;
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
    Some(body)
}

/// Whether an error's document names what we have put in.
pub(crate) fn blamed(document: &[u8]) -> bool {
    let names = |word: &[u8]| document.windows(word.len()).any(|at| at == word);
    names(b"stream_options") || names(b"include_usage")
}

/// The targets that refused to be asked: authority and model.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<HashSet<Box<str>>>);

impl Refusals {
    pub(crate) fn contains(&self, parts: &Parts, facts: &Facts) -> bool {
        let targets = self.targets();
        !targets.is_empty() && targets.contains(&*target(parts, facts))
    }

    pub(crate) fn insert(&self, parts: &Parts, facts: &Facts) {
        let target = target(parts, facts).into();
        let mut targets = self.targets();
        if targets.len() >= TARGETS {
            // To forget costs one refused request a target.
            targets.clear();
        }
        targets.insert(target);
    }

    fn targets(&self) -> MutexGuard<'_, HashSet<Box<str>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn target(parts: &Parts, facts: &Facts) -> String {
    let authority = Uri::authority(&parts.uri).map(|authority| authority.as_str());
    let host = || parts.headers.get(header::HOST)?.to_str().ok();
    let authority = authority.or_else(host).unwrap_or_default();
    format!("{authority} {}", facts.model.as_deref().unwrap_or_default())
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusals")
            .field("targets", &self.targets().len())
            .finish()
    }
}
