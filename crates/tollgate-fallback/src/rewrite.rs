//! The same request for another model or another origin.
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};
use serde_json::Value;
use tollgate_core::{
    extensions::ours,
    wire::prompt::{
        Facts, ModelIn, RequestFacts, insert_value, remove_value, rename_key, replace_value,
    },
};

use crate::{Candidate, Credential, candidate::Edit, path};

/// Headers that another origin gets to see; all others may name or pay for the first one.
const HARMLESS: [&str; 11] = [
    "accept",
    "accept-encoding",
    "anthropic-beta",
    "anthropic-version",
    "content-encoding",
    "content-type",
    "openai-beta",
    "traceparent",
    "tracestate",
    "user-agent",
    "content-length",
];

/// A request for one candidate.
pub(crate) type Rewritten = (Parts, Bytes, Facts);

/// The request for a candidate; `None` if it cannot be made for it.
///
/// Only the model's name (or the path) changes, and what the candidate renames or drops. What came
/// out is read again and compared: a request that would mean something else is not sent.
pub(crate) fn rewrite(
    head: &Parts,
    body: &Bytes,
    facts: &Facts,
    candidate: &Candidate,
    other_hands: bool,
    credential: Option<&Credential>,
) -> Option<Rewritten> {
    if candidate.is_as_it_came(facts.model.as_deref()) {
        return Some((head.clone(), body.clone(), facts.clone()));
    }
    let wanted = candidate.model.as_deref();
    let (uri, in_path) = match &candidate.place {
        Some(place) => path::moved(place, wanted.or(facts.model.as_deref()), &head.uri)?,
        None if facts.model_in == Some(ModelIn::Path) => match wanted {
            Some(model) => (path::renamed(&head.uri, model)?, true),
            None => (head.uri.clone(), true),
        },
        None => (head.uri.clone(), false),
    };
    let mut bytes = body.clone();
    // The path named the model and the document does not: there it must stand from now on.
    let left_path = facts.model_in == Some(ModelIn::Path) && !in_path;
    let model = wanted.or(if left_path {
        facts.model.as_deref()
    } else {
        None
    });
    if let (Some(model), false) = (model, in_path) {
        let model = Value::from(model).to_string();
        bytes = replace_value(&bytes, "model", &model)
            .or_else(|| insert_value(&bytes, "model", &model))?;
    }
    for edit in &candidate.edits {
        let edited = match edit {
            Edit::Rename(from, to) => rename_key(&bytes, from, to),
            Edit::Drop(parameter) => remove_value(&bytes, parameter),
        };
        bytes = edited.unwrap_or(bytes);
    }

    let mut new = head.clone();
    new.uri = uri;
    if other_hands {
        new.headers = harmless(&head.headers);
        new.extensions = ours(&head.extensions);
    } else {
        // A key that was minted for other bytes: the provider would refuse these, or answer with
        // what it answered before.
        new.headers.remove("idempotency-key");
    }
    if let Some(place) = &candidate.place {
        if let Some(credential) = credential {
            credential.put(&mut new.headers);
        }
        for (name, value) in &place.headers {
            new.headers.insert(name.clone(), value.clone());
        }
    }
    if new.headers.contains_key(header::CONTENT_LENGTH) {
        new.headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    }

    let read = RequestFacts::read(&new.method, &new.uri, &new.headers, &bytes);
    let same = read.endpoint == facts.endpoint
        && read.stream == facts.stream
        && read.model.as_deref() == wanted.or(facts.model.as_deref());
    if !same {
        return None;
    }
    let read = Facts::new(read);
    new.extensions.insert(read.clone());
    Some((new, bytes, read))
}

fn harmless(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in HARMLESS {
        let name = HeaderName::from_static(name);
        for value in headers.get_all(&name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}
