//! Rate limits, token budgets, fallback models and usage records for LLM APIs, as tower layers around any HTTP service.
//!
//! LLM APIs are metered: requests and tokens a minute, caps a day, money a month. Every team that calls one writes the same four things by
//! hand. Here they are layers around the client that you have, in any subset and order, and your error type stays as it is:
//!
//! ```text
//! caller ─► UsageRecorder ─► ModelFallback ─► RetryOnRateLimit ─► TokenBudget ─► your client ─► provider
//!             one record       next model        wait, again         admit, settle
//!             per call                                               every attempt pays
//! ```
//!
//! A client, here with a scripted provider in place of a real one (any `tower` service of
//! `http::Request` will do: hyper-util's client, a reqwest adapter, an axum router):
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use tollgate::prelude::*;
//! use tollgate_sim::script::{Reply, Scripted};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let provider = Scripted::new([Reply::rate_limited(2), Reply::chat("gpt-5-mini", 9, 2)]);
//!
//! // State lives in handles that you make first, and can ask at any time.
//! let budget = Budget::in_memory([
//!     Limit::requests(500).per_minute(),
//!     Limit::tokens(200_000).per_minute(),
//! ])?;
//! let usage = UsageTotals::new();
//!
//! let client = ServiceBuilder::new()
//!     .record_usage(usage.clone())
//!     .model_fallback(ModelChain::new(["gpt-5", "gpt-5-mini"])?)
//!     .retry_on_rate_limit(RateLimitPolicy::default())
//!     .token_budget(budget.clone())
//!     .service(provider);
//!
//! let request = Request::post("https://api.example/v1/chat/completions")
//!     .header("content-type", "application/json")
//!     .body(Full::<Bytes>::from(r#"{"model":"gpt-5-mini","messages":[{"role":"user","content":"Hi"}]}"#))?;
//! let response = client.clone().oneshot(request).await?;
//!
//! assert_eq!(response.status(), 200);
//! assert_eq!(Attempts::of(&response).len(), 2, "refused once, then served");
//! http_body_util::BodyExt::collect(response.into_body()).await?;
//! assert_eq!(usage.snapshot().all.input, 9);
//! # Ok(())
//! # }
//! ```
//!
//! A refusal of our own is a response like any other, with a typed value in its extensions:
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use tollgate::{extensions::Reason, prelude::*};
//! use tollgate_sim::script::{Reply, Scripted};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let budget = Budget::in_memory([Limit::tokens(100).per_minute()])?;
//! let client = ServiceBuilder::new()
//!     .token_budget(budget)
//!     .service(Scripted::new([Reply::chat("gpt-5", 9, 2)]));
//!
//! let request = Request::post("https://api.example/v1/chat/completions")
//!     .body(Full::<Bytes>::from(r#"{"model":"gpt-5","max_tokens":5000,"messages":[]}"#))?;
//! let response = client.oneshot(request).await?;
//!
//! assert_eq!(response.status(), 429);
//! let refused = Refused::of(&response).expect("ours, not the provider's");
//! assert_eq!(refused.reason, Reason::NeverFits, "5,000 tokens never fit into 100 a minute");
//! # Ok(())
//! # }
//! ```
//!
//! # Where to go on
//!
//! | question | answer |
//! |---|---|
//! | what can a limit be? | [`Limit`], [`budget`] |
//! | what is tried again, and after what time? | [`RateLimitPolicy`], [`retry`] |
//! | who serves when a model cannot? | [`ModelChain`], [`fallback`] |
//! | what was used, and what did it cost? | [`UsageTotals`], [`UsageRecord`], [`price`] |
//! | what may a caller say of one call? | [`call::CallOptions`] |
//! | what happened to it? | [`call::Attempts`], [`extensions::Refused`], [`extensions::GaveUp`], [`extensions::ServedBy`] |
//! | how do I test this? | the crate `tollgate-sim` |
//!
//! The book, in `docs/` of the repository, has a chapter for each, and one for what the order of the layers means.
//!
//! # Features
//!
//! | feature | default | what it brings |
//! |---|---|---|
//! | `budget` | yes | [`TokenBudget`] |
//! | `fallback` | yes | [`ModelFallback`] |
//! | `retry` | yes | [`RetryOnRateLimit`] |
//! | `usage` | yes | [`UsageRecorder`] |
//! | `decompression` | no | compressed answers (gzip, deflate, br, zstd) are read, from a bounded decoded copy |
//! | `drain` | no | [`usage::DrainLayer`]: answers are read to their end, within bounds, when their callers have left |
//! | `jsonl` | no | [`usage::JsonLines`]: records as lines of JSON |
//! | `metrics` | no | [`usage::MetricsRecorder`]: records as metrics, through the `metrics` facade |
//! | `ledger` | no | [`Ledger`]: usage records in SQLite; needs Rust 1.89 and a C compiler |
//! | `redis` | no | [`RedisBudget`]: limits that many processes share, on Redis or Valkey |
//! | `redis-rustls` | no | the same over TLS, `rediss://`, by rustls; the program chooses its crypto provider |
//! | `prices` | no | [`price::PriceTable::shipped`]: prices of the usual models, with their date |
//! | `tower` | no | [`retry::TowerBackoff`], [`retry::RetryBudget::tower`]: tower's own back-offs and budgets |
//! | `backoff` | no | [`retry::BackoffPolicy`]: the policies of the `backoff` crate, which is unmaintained |
//! | `bpe-openai` | no | [`budget::Charging::exact`]: exact counts of the prompt's tokens for OpenAI's models; some 35 MB of tables |
//! | `hyper-util` | no | [`classify::HyperUtil`]: what was never sent is told from what may have been |
//! | `reqwest` | no | [`reqwest::v0_13::HttpService`]: the layers over reqwest 0.13; 0.12 is a feature of `tollgate-reqwest` |
//! | `reqwest-middleware` | no | [`reqwest::v0_13::TollgateMiddleware`]: the layers as a middleware of reqwest-middleware 0.5 |
#![cfg_attr(
    not(all(
        feature = "budget",
        feature = "fallback",
        feature = "retry",
        feature = "usage",
        feature = "drain",
        feature = "jsonl",
        feature = "ledger",
        feature = "metrics",
        feature = "redis",
        feature = "prices",
        feature = "tower",
        feature = "backoff",
        feature = "bpe-openai",
        feature = "hyper-util",
        feature = "reqwest-middleware"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder_ext;

pub use builder_ext::ServiceBuilderExt;
#[cfg(feature = "budget")]
#[cfg_attr(docsrs, doc(cfg(feature = "budget")))]
pub use tollgate_budget::{self as budget, Budget, Limit, TokenBudget, TokenBudgetLayer};
pub use tollgate_core::{
    BoxError, body, call, classify, clock, extensions, gate, own_error, price, principal, resend,
    timeouts, wire,
};
#[cfg(feature = "fallback")]
#[cfg_attr(docsrs, doc(cfg(feature = "fallback")))]
pub use tollgate_fallback::{
    self as fallback, Candidate, FallbackHealth, ModelChain, ModelFallback, ModelFallbackLayer,
    Target,
};
#[cfg(feature = "ledger")]
#[cfg_attr(docsrs, doc(cfg(feature = "ledger")))]
pub use tollgate_ledger::{self as ledger, Ledger};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use tollgate_redis::{self as redis, RedisBudget};
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub use tollgate_reqwest as reqwest;
#[cfg(feature = "retry")]
#[cfg_attr(docsrs, doc(cfg(feature = "retry")))]
pub use tollgate_retry::{
    self as retry, RateLimitPolicy, RetryOnRateLimit, RetryOnRateLimitLayer, RetryStats,
};
#[cfg(feature = "usage")]
#[cfg_attr(docsrs, doc(cfg(feature = "usage")))]
pub use tollgate_usage::{
    self as usage, UsageRecord, UsageRecorder, UsageRecorderLayer, UsageTotals,
};

/// What a stack usually needs, in one line.
pub mod prelude {
    pub use crate::ServiceBuilderExt as _;
    pub use tollgate_core::{
        call::{Attempts, CallOptions},
        extensions::{Refused, ServedBy},
    };

    #[cfg(feature = "budget")]
    pub use crate::{Budget, Limit, TokenBudgetLayer};
    #[cfg(feature = "fallback")]
    pub use crate::{ModelChain, ModelFallbackLayer};
    #[cfg(feature = "retry")]
    pub use crate::{RateLimitPolicy, RetryOnRateLimitLayer};
    #[cfg(feature = "usage")]
    pub use crate::{UsageRecorderLayer, UsageTotals};
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
