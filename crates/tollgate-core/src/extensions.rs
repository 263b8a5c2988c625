//! Typed values that layers leave in a response for one another and for the caller.
use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Extensions, HeaderValue, Response, StatusCode, header};

use crate::{
    call::{Call, CallOptions},
    own_error,
    wire::prompt::Endpoint,
};
pub use crate::{
    gave_up::{GaveUp, GaveUpReason},
    timeouts::TimedOut,
};

/// A refusal of our own: the provider has not seen the request.
///
/// It is an HTTP response like any other, so a client that knows nothing of tollgate understands
/// it; this value in its extensions tells ours from theirs.
///
/// ```
/// use std::time::Duration;
/// use tollgate_core::{extensions::{Reason, Refused}, wire::prompt::Endpoint};
///
/// let refused = Refused::new(Reason::QueueFull).retry_after(Duration::from_millis(1200));
/// let response = refused.into_response(Endpoint::ChatCompletions, |document| document);
/// assert_eq!(response.status(), 429);
/// assert_eq!(response.headers()["retry-after"], "2", "rounded up");
/// assert_eq!(Refused::of(&response).unwrap().reason, Reason::QueueFull);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// The limit that refused, by its name.
    pub limit: Option<Arc<str>>,
    /// When it is worth coming back; `None`: never, or nobody knows.
    pub retry_after: Option<Duration>,
}

/// Put into the extensions of an answer that was given without asking the provider: by a cache, a mock, a guard.
///
/// A budget further out gives back all that it held for the request. Without it every answer is taken for one that the
/// provider has served and counted: an answer's headers prove nothing, for a cache keeps those too.
///
/// ```
/// use http::Response;
/// use tollgate_core::extensions::NotSent;
///
/// let mut cached = Response::new("kept from yesterday");
/// cached.extensions_mut().insert(NotSent);
/// assert!(NotSent::is_said_of(&cached));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotSent;

impl NotSent {
    /// Whether an answer says that it came from nearer than the provider.
    #[must_use]
    pub fn is_said_of<B>(response: &Response<B>) -> bool {
        response.extensions().get::<Self>().is_some()
    }
}

/// Why we refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A limit is used up and its policy is to refuse.
    Exhausted,
    /// The request is larger than the whole limit: it can never pass.
    NeverFits,
    /// The queue holds as many requests or bytes as it may.
    QueueFull,
    /// The predicted wait is longer than the queue, the call or its deadline allows.
    WaitTooLong,
    /// The shared store cannot be reached and the policy is to refuse.
    StoreDown,
    /// The request's body failed while it was read; nothing was sent.
    BodyFailed,
    /// The body's length is not known and a hard cap must know it.
    LengthRequired,
    /// The model's price is not known and a limit of money must know it.
    Unpriced,
}

impl Reason {
    /// A stable code for documents, logs and labels.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Exhausted => "budget_exhausted",
            Self::NeverFits => "request_never_fits",
            Self::QueueFull => "queue_full",
            Self::WaitTooLong => "wait_too_long",
            Self::StoreDown => "budget_store_down",
            Self::BodyFailed => "request_body_failed",
            Self::LengthRequired => "length_required",
            Self::Unpriced => "model_unpriced",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::StoreDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::BodyFailed => StatusCode::BAD_REQUEST,
            Self::LengthRequired => StatusCode::LENGTH_REQUIRED,
            _ => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Exhausted => "The budget is used up for now",
            Self::NeverFits => "The request is larger than the whole limit and can never pass",
            Self::QueueFull => "The queue is full",
            Self::WaitTooLong => "The wait would be longer than the call allows",
            Self::StoreDown => "The shared budget cannot be reached",
            Self::BodyFailed => "The request's body failed while it was read",
            Self::LengthRequired => "The budget must know the length of the request's body",
            Self::Unpriced => "The budget must know the model's price",
        }
    }
}

impl Refused {
    /// A refusal for a reason.
    #[must_use]
    pub fn new(reason: Reason) -> Self {
        Self {
            reason,
            limit: None,
            retry_after: None,
        }
    }

    /// Names the limit.
    #[must_use]
    pub fn limit(mut self, name: impl Into<Arc<str>>) -> Self {
        self.limit = Some(name.into());
        self
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The refusal that a response carries; `None` for an answer of the provider's.
    #[must_use]
    pub fn of<B>(response: &Response<B>) -> Option<&Self> {
        response.extensions().get()
    }

    /// Whether coming back later cannot help.
    #[must_use]
    pub fn never_fits(&self) -> bool {
        matches!(self.reason, Reason::NeverFits | Reason::Unpriced)
    }

    /// The refusal as an answer, its document in the shape of the endpoint's provider.
    ///
    /// `retry-after` is rounded up to whole seconds; `retry-after-ms` is exact to the millisecond.
    /// `x-should-retry` is `false` where coming back cannot help.
    pub fn into_response<B>(
        self,
        endpoint: Endpoint,
        body: impl FnOnce(Bytes) -> B,
    ) -> Response<B> {
        let mut message = self.reason.sentence().to_owned();
        if let Some(limit) = &self.limit {
            message.push_str(" (limit: ");
            message.push_str(limit);
            message.push(')');
        }
        // Rounded up: to come back a little too early would be one more refusal.
        let millis = self
            .retry_after
            .map(|wait| u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX));
        if let Some(millis) = millis {
            message.push_str(&format!(
                "; try again in {}.{:03}s",
                millis / 1000,
                millis % 1000
            ));
        }
        let (status, code) = (self.reason.status(), self.reason.code());
        let mut response = own_error::respond(endpoint, status, code, &message, body);
        let headers = response.headers_mut();
        let again = self.retry_after.is_some() && !self.never_fits();
        headers.insert(
            "x-should-retry",
            HeaderValue::from_static(if again { "true" } else { "false" }),
        );
        if let (true, Some(millis)) = (again, millis) {
            headers.insert("retry-after-ms", HeaderValue::from(millis));
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(millis.div_ceil(1000)),
            );
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// A request's extensions without what is not ours.
///
/// Who sends a request to another origin keeps these alone: what a stranger has put there may hold
/// a secret of the first origin.
///
/// ```
/// use http::Extensions;
/// use tollgate_core::{call::CallOptions, extensions::ours};
///
/// let mut extensions = Extensions::new();
/// extensions.insert(CallOptions::new());
/// extensions.insert(String::from("a secret"));
/// let kept = ours(&extensions);
/// assert!(kept.get::<CallOptions>().is_some() && kept.get::<String>().is_none());
/// ```
#[must_use]
pub fn ours(extensions: &Extensions) -> Extensions {
    let mut kept = Extensions::new();
    if let Some(call) = extensions.get::<Call>() {
        kept.insert(call.clone());
    }
    if let Some(options) = extensions.get::<CallOptions>() {
        kept.insert(options.clone());
    }
    if let Some(recorded) = extensions.get::<Recorded>() {
        kept.insert(*recorded);
    }
    kept
}

/// Left in a request by the outermost recorder, so that those further in know that they are nested.
#[derive(Clone, Copy, Debug)]
pub struct Recorded;

/// Left in a request by a recorder that has asked for usage in the caller's place, so that a layer
/// further in can take the question back from a target that does not know it.
#[derive(Clone)]
pub struct AskedForUsage {
    asking: Bytes,
    original: Bytes,
}

impl AskedForUsage {
    /// The document that asks, and the one that it was made of.
    #[must_use]
    pub fn new(asking: Bytes, original: Bytes) -> Self {
        Self { asking, original }
    }

    /// The document without the question; `None` if this is not the one that asks (same memory).
    #[must_use]
    pub fn original_of(&self, body: &Bytes) -> Option<&Bytes> {
        let same = self.asking.as_ptr() == body.as_ptr() && self.asking.len() == body.len();
        same.then_some(&self.original)
    }
}

impl std::fmt::Debug for AskedForUsage {
    /// Shows no prompt.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AskedForUsage").finish_non_exhaustive()
    }
}

/// Which candidate of a chain served a response.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServedBy {
    /// The model that was asked in the end.
    pub model: Option<Arc<str>>,
    /// The name of the target, where it is not only another model.
    pub target: Option<Arc<str>>,
    /// Its place in the chain; 0 is the first.
    pub position: usize,
}

impl ServedBy {
    /// Names who served.
    #[must_use]
    pub fn new(position: usize, model: Option<Arc<str>>, target: Option<Arc<str>>) -> Self {
        Self {
            model,
            target,
            position,
        }
    }

    /// Who served a response; `None` if no fallback layer was there.
    #[must_use]
    pub fn of<B>(response: &Response<B>) -> Option<&Self> {
        response.extensions().get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // T36
    #[test]
    fn a_refusal_says_when_to_come_back_and_which_limit() {
        let refused = Refused::new(Reason::WaitTooLong)
            .limit("tokens per 60 s")
            .retry_after(Duration::from_millis(1));
        let response = refused.into_response(Endpoint::ChatCompletions, |b| b);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.headers()["retry-after-ms"], "1");
        assert_eq!(response.headers()["x-should-retry"], "true");
        let text = std::str::from_utf8(response.body()).unwrap();
        assert!(
            text.contains("tokens per 60 s") && text.contains("wait_too_long"),
            "{text}"
        );
    }

    #[test]
    fn what_never_fits_is_not_to_be_tried_again() {
        let refused = Refused::new(Reason::NeverFits).retry_after(Duration::from_secs(5));
        let response = refused.into_response(Endpoint::AnthropicMessages, |b| b);
        assert_eq!(response.headers()["x-should-retry"], "false");
        assert!(!response.headers().contains_key("retry-after"));
        let value: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(value["type"], "error");
    }
}
