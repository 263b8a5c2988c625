//! A tower layer that retries refused and failed LLM calls as long as waiting can help.
//!
//! Providers say how long to wait, in five places and as many spellings. [`RetryOnRateLimit`] waits
//! that long, and no longer; where nobody says anything it backs off with jitter. What waiting
//! cannot cure (a quota used up, a wrong request, a wait beyond the deadline) it hands back at once
//! and untouched, and says why.
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use tollgate_core::call::Attempts;
//! use tollgate_retry::{RateLimitPolicy, RetryOnRateLimitLayer};
//! use tollgate_sim::script::{Reply, Scripted};
//! use tower::{Layer, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tollgate_sim::SimError> {
//! // Any client will do in its place.
//! let provider = Scripted::new([Reply::rate_limited(2), Reply::chat("gpt-test", 9, 2)]);
//! let client = RetryOnRateLimitLayer::new(RateLimitPolicy::default()).layer(provider.clone());
//!
//! let request = Request::post("https://api.example/v1/chat/completions")
//!     .body(Full::<Bytes>::from(r#"{"model":"gpt-test","messages":[]}"#))
//!     .expect("a request");
//! let response = client.oneshot(request).await?;
//!
//! assert_eq!(response.status(), 200);
//! let waited = provider.times()[1] - provider.times()[0];
//! assert!(waited.as_secs_f64() >= 2.0, "as long as the provider said");
//! assert_eq!(Attempts::of(&response).len(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! The settings, and what became of a call that could not be saved:
//!
//! ```
//! use std::time::Duration;
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use tollgate_core::call::CallOptions;
//! use tollgate_retry::{
//!     GaveUp, GaveUpReason, RateLimitPolicy, Resend, RetryBudget, RetryOnRateLimitLayer, RetryStats,
//! };
//! use tollgate_sim::script::{Reply, Scripted};
//! use tower::{Layer, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tollgate_sim::SimError> {
//! let policy = RateLimitPolicy::new()
//!     .attempts(5)
//!     .wait_cap(Duration::from_secs(60))
//!     .backoff(|retry: u32| Duration::from_millis(200) * retry)
//!     .resend(Resend::OnlyUnsent)
//!     .retry_budget(RetryBudget::new(0.2, 5));
//! let stats = RetryStats::new();
//! let provider = Scripted::new([Reply::rate_limited(43)]);
//! let client = RetryOnRateLimitLayer::new(policy).stats(stats.clone()).layer(provider);
//!
//! let mut request = Request::post("https://api.example/v1/chat/completions")
//!     .body(Full::<Bytes>::from(r#"{"model":"gpt-test","messages":[]}"#))
//!     .expect("a request");
//! request.extensions_mut().insert(CallOptions::new().within(Duration::from_secs(20)));
//! let response = client.oneshot(request).await?;
//!
//! assert_eq!(response.status(), 429, "the provider's own answer");
//! let gave_up = GaveUp::of(&response).expect("it says why");
//! assert_eq!(gave_up.reason, GaveUpReason::WaitBeyondDeadline);
//! assert_eq!(gave_up.wait, Some(Duration::from_secs(43)));
//! assert_eq!(gave_up.limit, Some(Duration::from_secs(20)));
//! assert_eq!(stats.snapshot().gave_up(GaveUpReason::WaitBeyondDeadline), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # What is tried again
//!
//! The one table is that of [`Outcome::advice`](tollgate_core::wire::outcome::Outcome::advice);
//! `x-should-retry` overrules it. A `false` is obeyed always, a `true` on an error that would not
//! be retried is obeyed once a call. A refusal of a layer of ours
//! ([`Refused`](tollgate_core::extensions::Refused)) passes through: whoever made it knows better
//! than to be asked again.
//!
//! Not only the status is read: the error's document, the first events of a stream of status 200
//! (which is held until its first content), and an answer that is no stream to its end, so that one
//! that breaks half-way can be asked for again. How far is a matter of
//! [`PeekPolicy`](tollgate_core::body::PeekPolicy). What was read is given back whole.
//!
//! # How long it waits
//!
//! 1. The server's statement: `retry-after-ms`, `retry-after`, the error document's own.
//! 2. After a rate limit without one: the time until what *this* request costs has refilled in the
//!    limit that the headers show as exhausted.
//! 3. Else the [`Backoff`], by default with full jitter.
//!
//! To the first two a random tenth is added, at most one second, so that a thousand callers that
//! were told the same do not come back at once. A wait that is longer than the policy's cap or the
//! call's deadline is never shortened: the answer is handed back at once, with [`GaveUp`] in its
//! extensions.
//!
//! # One refusal holds all
//!
//! A rate limit is a fact about the key: one 429 holds up all services of the layer that ask the same origin with the
//! same credential for the same model, first attempts included, and when its wait is over they are let go one by one
//! ([`RateLimitPolicy::release`]). With a budget inside, a retry goes back into that budget's queue at once, and its gate
//! is the one.
//!
//! # Timeouts
//!
//! [`RateLimitPolicy::timeouts`] bounds the first byte, the first token, the idle time of a body, and the whole call. Before
//! anything was handed on a timeout is a failed attempt, and in the end a 504 with
//! [`TimedOut`](tollgate_core::extensions::TimedOut) in its extensions; after that the body ends in a
//! [`BodyError`](tollgate_core::body::BodyError).
//!
//! # What passes through
//!
//! A request that cannot be sent twice is sent once, unread: a body of unknown length or beyond the
//! replay cap, an upload, an upgrade, a path that is no LLM endpoint. Buffer outside of this layer
//! what you want retried.
//!
//! # Readiness
//!
//! `poll_ready` is forwarded, and the very instance that was ready makes the first attempt. Before each later
//! one it is made ready anew; while the layer waits it holds no readiness, no permit and no response.
//!
//! # Cancel safety
//!
//! Dropping the response future ends the call: no timer, no task, no further attempt stays behind.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
#[cfg(feature = "backoff")]
mod backoff_crate;
mod decide;
mod delay;
mod future;
mod gates;
mod layer;
mod pace;
mod policy;
mod retry_budget;
mod run;
mod service;
mod stats;
#[cfg(feature = "tower")]
mod tower_policies;
mod under_way;

pub use tollgate_core::{
    extensions::{GaveUp, GaveUpReason},
    resend::Resend,
};

#[cfg(feature = "backoff")]
#[cfg_attr(docsrs, doc(cfg(feature = "backoff")))]
pub use self::backoff_crate::BackoffPolicy;
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub use self::tower_policies::TowerBackoff;
pub use self::{
    backoff::{Backoff, FullJitter},
    future::ResponseFuture,
    layer::RetryOnRateLimitLayer,
    policy::{RateLimitPolicy, WhenShut},
    retry_budget::RetryBudget,
    service::RetryOnRateLimit,
    stats::{RetrySnapshot, RetryStats},
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
