//! What an answer means, and who acts on what.
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};

use super::{
    answer::WireError,
    error::{self, Head},
    limits::Dimension,
    retry_after::{self, RetryAfter},
};

mod advice;
mod overrides;

pub use advice::{Advice, NextModel, SameModel, Units};
pub use overrides::{OutcomeKind, Overrides};

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

impl ErrorClass {
    /// The name, lower-case with underscores: `rate_limited`, `context_length`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::LimitTooSmall => "limit_too_small",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Overloaded => "overloaded",
            Self::ServerError => "server_error",
            Self::Timeout => "timeout",
            Self::ContextLength => "context_length",
            Self::ModelNotFound => "model_not_found",
            Self::ModelNotAllowed => "model_not_allowed",
            Self::NotSupported => "not_supported",
            Self::RequestTooLarge => "request_too_large",
            Self::ContentFiltered => "content_filtered",
            Self::Permission => "permission",
            Self::Auth => "auth",
            Self::InvalidRequest => "invalid_request",
            Self::NotFound => "not_found",
            Self::GenerationFailed => "generation_failed",
        }
    }
}

/// What was waited for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimeoutKind {
    /// A connection; nothing was sent. The client's own timeout.
    Connect,
    /// The head of the answer.
    FirstByte,
    /// The first content of a stream.
    FirstToken,
    /// The next bytes of the body.
    Idle,
    /// The whole call: its deadline has passed.
    Total,
    /// An answer, by the client's own timeout.
    Client,
    /// An answer, by the provider's own word (408, 504, or an error that says so).
    Provider,
}

impl TimeoutKind {
    /// The name, lower-case with underscores: `first_byte`, `idle`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::FirstByte => "first_byte",
            Self::FirstToken => "first_token",
            Self::Idle => "idle",
            Self::Total => "total",
            Self::Client => "client",
            Self::Provider => "provider",
        }
    }
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
    Timeout {
        /// What was waited for.
        what: TimeoutKind,
    },
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

impl Outcome {
    /// The name, lower-case with underscores, fit for a label: `ok`, `rate_limited`, `never_fits`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::RateLimited {
                never_fits: true, ..
            } => "never_fits",
            Self::RateLimited { .. } => "rate_limited",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Overloaded => "overloaded",
            Self::ServerError => "server_error",
            Self::Timeout { .. } => "timeout",
            Self::TooLong => "too_long",
            Self::ModelGone => "model_gone",
            Self::ContentRefused => "content_refused",
            Self::Unauthorized => "unauthorized",
            Self::Invalid => "invalid",
            Self::Unreachable { .. } => "unreachable",
            Self::Broken => "broken",
        }
    }
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

impl Verdict {
    /// The verdict on an answer that was served.
    #[must_use]
    pub fn ok(status: StatusCode) -> Self {
        Self::of(status, Outcome::Ok)
    }

    /// The verdict on a connection that failed; `sent`: the request may have reached the provider.
    ///
    /// The status is 502, since there was none.
    #[must_use]
    pub fn unreachable(sent: bool) -> Self {
        Self::of(StatusCode::BAD_GATEWAY, Outcome::Unreachable { sent })
    }

    /// The verdict on an attempt that was given up waiting for. The status is 504, since there was none.
    #[must_use]
    pub fn timeout(what: TimeoutKind) -> Self {
        Self::of(StatusCode::GATEWAY_TIMEOUT, Outcome::Timeout { what })
    }

    /// The verdict on an answer that broke while it was read.
    #[must_use]
    pub fn broken(status: StatusCode) -> Self {
        Self::of(status, Outcome::Broken)
    }

    /// Any other verdict.
    #[must_use]
    pub fn of(status: StatusCode, outcome: Outcome) -> Self {
        Self {
            status,
            outcome,
            class: None,
            retry_after: None,
            should_retry: None,
        }
    }

    fn on_error(head: Head<'_>, error: &WireError, now: SystemTime) -> Self {
        let should_retry = head.headers.get("x-should-retry").and_then(|value| {
            value
                .to_str()
                .ok()?
                .trim()
                .to_ascii_lowercase()
                .parse()
                .ok()
        });
        let retry_after = retry_after::wait_from_headers(head.headers, now)
            .or(error.retry_after.filter(|stated| !stated.wait.is_zero()));
        let mut outcome = error.class.into();
        if let Outcome::RateLimited {
            what,
            retry_after: wait,
            ..
        } = &mut outcome
        {
            what.clone_from(&error.what);
            *wait = retry_after.map(|stated| stated.wait);
        }
        Self {
            status: head.status,
            outcome,
            class: Some(error.class),
            retry_after,
            should_retry,
        }
    }

    /// What to do about it, the server's `x-should-retry` included.
    #[must_use]
    pub fn advice(&self) -> Advice {
        let mut advice = self.outcome.advice();
        match self.should_retry {
            Some(false) if advice.same_model != SameModel::Done => {
                advice.same_model = SameModel::Never;
            }
            Some(true) if advice.same_model == SameModel::Never => {
                advice.same_model = SameModel::Once;
            }
            _ => {}
        }
        advice
    }
}

/// Judges an answer by its head and, if it is at hand, its body.
///
/// `body` is the bounded body of an error, or the JSON of a 200 that may hold an error; with `None` the head alone
/// decides. `now` is used only when the answer has no `Date` of its own.
#[must_use]
pub fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    body: Option<&[u8]>,
    now: SystemTime,
) -> Verdict {
    let failed = status.as_u16() >= 400;
    let head = Head {
        status,
        headers,
        now: Some(now),
    };
    let error = match body {
        Some(body) if failed => Some(error::read(body).unwrap_or_else(|| error::plain(body))),
        Some(body) => error::read(body).filter(|document| document.in_band),
        None => failed.then(error::Document::default),
    };
    match error {
        None => Verdict::ok(status),
        Some(document) => Verdict::on_error(head, &document.judge(head), now),
    }
}

/// Judges an error that came inside an answer of status 200, such as the first event of a stream.
#[must_use]
pub fn judge_in_band(
    status: StatusCode,
    headers: &HeaderMap,
    error: &WireError,
    now: SystemTime,
) -> Verdict {
    let head = Head {
        status,
        headers,
        now: Some(now),
    };
    Verdict::on_error(head, error, now)
}

impl From<ErrorClass> for Outcome {
    /// The outcome of a class, without a wait.
    fn from(class: ErrorClass) -> Self {
        let limited = |never_fits| Self::RateLimited {
            what: None,
            retry_after: None,
            never_fits,
        };
        match class {
            ErrorClass::RateLimited => limited(false),
            ErrorClass::LimitTooSmall => limited(true),
            ErrorClass::QuotaExhausted => Self::QuotaExhausted,
            ErrorClass::Overloaded => Self::Overloaded,
            ErrorClass::ServerError => Self::ServerError,
            ErrorClass::Timeout => Self::Timeout {
                what: TimeoutKind::Provider,
            },
            ErrorClass::ContextLength => Self::TooLong,
            ErrorClass::ModelNotFound | ErrorClass::ModelNotAllowed => Self::ModelGone,
            ErrorClass::ContentFiltered => Self::ContentRefused,
            ErrorClass::Auth | ErrorClass::Permission => Self::Unauthorized,
            // Too many bytes, or inputs: a larger context does not cure it.
            ErrorClass::RequestTooLarge
            | ErrorClass::NotSupported
            | ErrorClass::InvalidRequest
            | ErrorClass::NotFound
            | ErrorClass::GenerationFailed => Self::Invalid,
        }
    }
}

#[cfg(test)]
mod tests;
