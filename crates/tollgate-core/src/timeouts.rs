//! How long to wait for what.
//!
//! Five timeouts of one attempt, each for what the others cannot see: a *connection* (the client's own;
//! [`Fault::ConnectTimeout`](crate::classify::Fault::ConnectTimeout) tells it apart), the *first byte* of an
//! answer, the *first token* of a stream, the *idle* time between two frames of a body, and the *total* time of the call.
//!
//! A timeout before anything was handed on is an answer of status 504 with [`TimedOut`] in its extensions, and
//! one more failed attempt to those who retry; a body that is being read ends in a
//! [`BodyError`](crate::body::BodyError).
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};

use crate::{
    own_error,
    wire::{outcome::TimeoutKind, prompt::Endpoint},
};

/// How long to wait for what; nothing is set by default, for some answers take an hour.
///
/// ```
/// use std::time::Duration;
/// use tollgate_core::timeouts::Timeouts;
///
/// let timeouts = Timeouts::new()
///     .first_token(Duration::from_secs(20))
///     .idle(Duration::from_secs(30))
///     .total(Duration::from_secs(300));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Timeouts {
    pub(crate) first_byte: Option<Duration>,
    pub(crate) first_token: Option<Duration>,
    pub(crate) idle: Option<Duration>,
    pub(crate) total: Option<Duration>,
}

impl Timeouts {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// From sending the request to the head of its answer, for each attempt.
    ///
    /// Time spent in the queue of a budget further in does not count. Answers that are no streams
    /// come with their head when they are ready, so this bounds their making: minutes, for long ones.
    pub fn first_byte(mut self, time: Duration) -> Self {
        self.first_byte = Some(time);
        self
    }

    /// From sending the request to the first content of its stream (not a ping or a role), for each attempt.
    /// Requests that ask for no stream are not bound by it.
    pub fn first_token(mut self, time: Duration) -> Self {
        self.first_token = Some(time);
        self
    }

    /// From one frame of a body to the next, also after the body was handed on. A provider's pings count as frames.
    pub fn idle(mut self, time: Duration) -> Self {
        self.idle = Some(time);
        self
    }

    /// The whole call with all its attempts and waits, from when the first layer saw it to the last byte of its body. It
    /// becomes the call's deadline, so that no layer waits beyond it, unless the caller's own
    /// ([`CallOptions::deadline`](crate::call::CallOptions::deadline)) is nearer.
    pub fn total(mut self, time: Duration) -> Self {
        self.total = Some(time);
        self
    }

    /// The total timeout, where there is one.
    #[must_use]
    pub fn total_time(&self) -> Option<Duration> {
        self.total
    }
}

/// Left in the 504 that stands for an answer that did not come in time.
///
/// ```
/// use std::time::Duration;
/// use tollgate_core::{extensions::TimedOut, wire::{outcome::TimeoutKind, prompt::Endpoint}};
///
/// let timed_out = TimedOut::new(TimeoutKind::FirstByte, Duration::from_secs(30));
/// let response = timed_out.into_response(Endpoint::ChatCompletions, |document| document);
/// assert_eq!(response.status(), 504);
/// assert_eq!(TimedOut::of(&response).unwrap().what, TimeoutKind::FirstByte);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimedOut {
    /// What was waited for.
    pub what: TimeoutKind,
    /// How long: since the attempt was sent, since the last frame, or since the call began.
    pub after: Duration,
}

impl TimedOut {
    /// So long in vain.
    #[must_use]
    pub fn new(what: TimeoutKind, after: Duration) -> Self {
        Self { what, after }
    }

    /// What was waited for in vain; `None` for every other answer.
    #[must_use]
    pub fn of<B>(response: &Response<B>) -> Option<&Self> {
        response.extensions().get()
    }

    /// The answer that stands for the one that did not come: a 504 with a document in the shape of the
    /// endpoint's provider.
    pub fn into_response<B>(
        self,
        endpoint: Endpoint,
        body: impl FnOnce(Bytes) -> B,
    ) -> Response<B> {
        let (code, sentence) = match self.what {
            TimeoutKind::FirstToken => ("first_token_timeout", "No content came"),
            TimeoutKind::Idle => ("idle_timeout", "The answer stalled"),
            TimeoutKind::Total => ("total_timeout", "The call was not done"),
            _ => ("first_byte_timeout", "No answer came"),
        };
        let message = format!("{sentence} within {:.3}s", self.after.as_secs_f64());
        let status = StatusCode::GATEWAY_TIMEOUT;
        let mut response = own_error::respond(endpoint, status, code, &message, body);
        response.extensions_mut().insert(self);
        response
    }
}
