//! How long a server asks us to wait.
use std::time::{Duration, SystemTime};

use http::HeaderMap;

/// A wait that the server stated, and where it stated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryAfter {
    /// The wait, counted from the receipt of the answer.
    pub wait: Duration,
    /// Where it stood.
    pub source: Source,
}

/// Where a stated wait stood, in the order in which they are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The `retry-after-ms` header.
    RetryAfterMs,
    /// The `retry-after` header.
    RetryAfter,
    /// `google.rpc.RetryInfo` in the error document.
    RetryInfo,
    /// `X-RateLimit-Reset`, in headers or repeated in the error document.
    RateLimitReset,
    /// The error's text ("try again in 1.2s").
    Text,
}

/// Reads the headers' statement of a wait.
///
/// A date is taken against the answer's own `Date`, for our clock may be off; against `now` only if there is none.
#[must_use]
pub fn from_headers(headers: &HeaderMap, now: SystemTime) -> Option<RetryAfter> {
    let _ = (headers, now);
    None
}

/// Reads the statement of a wait in an error document.
#[must_use]
pub fn from_document(document: &[u8], headers: &HeaderMap, now: SystemTime) -> Option<RetryAfter> {
    let _ = (document, headers, now);
    None
}
