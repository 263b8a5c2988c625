//! What a scripted upstream saw of one attempt.
use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{Extensions, HeaderMap, Method, Uri, request};

use crate::body::BodyFate;

/// One request that a [`Scripted`](super::Scripted) upstream received.
///
/// All times count from the making of the upstream, on tokio's clock. `Debug` shows neither header values nor the body.
#[derive(Clone)]
#[non_exhaustive]
pub struct Attempt {
    /// Which attempt it is, from 0.
    pub index: usize,
    /// When it was called.
    pub at: Duration,
    /// When its response future was done, with an answer or an error.
    pub answered_at: Option<Duration>,
    /// Whether its response future was dropped before that.
    pub cancelled: bool,
    /// The method.
    pub method: Method,
    /// The target.
    pub uri: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The request's extensions, as the layers outside left them.
    pub extensions: Extensions,
    /// The request's body, as far as it was read. One frame is kept as it came, not copied.
    pub body: Bytes,
    /// What became of the response's body.
    pub body_fate: BodyFate,
}

impl Attempt {
    pub(super) fn new(index: usize, at: Duration, head: request::Parts) -> Self {
        Self {
            index,
            at,
            answered_at: None,
            cancelled: false,
            method: head.method,
            uri: head.uri,
            headers: head.headers,
            extensions: head.extensions,
            body: Bytes::new(),
            body_fate: BodyFate::Open,
        }
    }

    /// The value of a header; `None` if it is absent or not text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as a JSON document; `Null` if it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The `model` of the body.
    #[must_use]
    pub fn model(&self) -> Option<String> {
        Some(self.json().get("model")?.as_str()?.to_owned())
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("index", &self.index)
            .field("at", &self.at)
            .field("answered_at", &self.answered_at)
            .field("cancelled", &self.cancelled)
            .field("method", &self.method)
            .field("path", &self.uri.path())
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("body", &self.body.len())
            .field("body_fate", &self.body_fate)
            .finish_non_exhaustive()
    }
}
