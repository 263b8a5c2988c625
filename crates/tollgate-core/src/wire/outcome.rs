//! What an answer means, and who acts on what.
use std::time::Duration;

use http::StatusCode;

use super::{limits::Dimension, retry_after::RetryAfter};

/// The kind of an error, told from status, type, code and text together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// Too many requests or tokens just now.
    RateLimited,
    /// One request larger than the whole limit, or a limit of zero: waiting never helps.
    LimitTooSmall,
    /// No money or credits, or a spend cap.
    QuotaExhausted,
    /// The provider has no capacity.
    Overloaded,
    /// The provider broke.
    ServerError,
    /// The provider gave up waiting.
    Timeout,
    /// The prompt is longer than the model takes.
    ContextLength,
    /// Unknown or retired model.
    ModelNotFound,
    /// The model is not for this account or endpoint.
    ModelNotAllowed,
    /// The server or model lacks the feature.
    NotSupported,
    /// Too many inputs, or the body is too big.
    RequestTooLarge,
    /// Refused by a content filter.
    ContentFiltered,
    /// The credential may not do this.
    Permission,
    /// Bad or missing credential.
    Auth,
    /// The request is wrong.
    InvalidRequest,
    /// No such thing, other than a model.
    NotFound,
    /// The model's own output broke (a bad tool call).
    GenerationFailed,
}

/// What happened to an attempt, in the few words that decide what is done next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It was served.
    Ok,
    /// Too many requests or tokens.
    RateLimited {
        /// Which limit refused, if the provider says.
        what: Option<Dimension>,
        /// The stated wait.
        retry_after: Option<Duration>,
        /// The request is larger than the whole limit: no wait can help.
        never_fits: bool,
    },
    /// No money left.
    QuotaExhausted,
    /// The provider lacks capacity.
    Overloaded,
    /// The provider failed.
    ServerError,
    /// No answer in time.
    Timeout,
    /// Longer than the model's context.
    TooLong,
    /// The model does not exist (any more), or not for us.
    ModelGone,
    /// A content filter refused.
    ContentRefused,
    /// The credential is bad.
    Unauthorized,
    /// The request is wrong; no retry can help.
    Invalid,
    /// The connection failed.
    Unreachable {
        /// The request may have reached the provider.
        sent: bool,
    },
    /// The answer broke while it was read: reset, cut, or not the document that was asked for.
    Broken,
}

/// What the judge found in one response; left in its extensions.
///
/// A layer outside reuses it as long as the response's status is the one that was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// The status that was judged.
    pub status: StatusCode,
    /// What it means.
    pub outcome: Outcome,
    /// The finer class, for errors.
    pub class: Option<ErrorClass>,
    /// The wait that the server states.
    pub retry_after: Option<RetryAfter>,
    /// The `x-should-retry` header.
    pub should_retry: Option<bool>,
}
