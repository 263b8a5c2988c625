//! What the stack tests share: a request, the four layers, and every order of them.
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tollgate::{prelude::*, retry::RetryBudget};
use tower::{Service, ServiceExt};

/// A chat request for a model, with a user message of a few words.
#[must_use]
pub fn chat(model: &str) -> Request<Full<Bytes>> {
    chat_with(model, "")
}

/// A chat request with further members, each with a leading comma.
#[must_use]
pub fn chat_with(model: &str, more: &str) -> Request<Full<Bytes>> {
    let document = format!(
        r#"{{"model":"{model}","messages":[{{"role":"user","content":"Say hello"}}]{more}}}"#
    );
    Request::post("https://api.example/v1/chat/completions")
        .header("content-type", "application/json")
        .header("content-length", document.len())
        .header("authorization", "Bearer sk-test")
        .body(document.into())
        .expect("a request")
}

/// The four layers and the handles behind them.
#[derive(Debug)]
pub struct Layers {
    /// One record of every call.
    pub usage: UsageTotals,
    /// Limits that do not bind.
    pub budget: Budget,
    /// `model-a`, then `model-b`.
    pub chain: ModelChain,
    /// Three attempts, without a retry budget.
    pub policy: RateLimitPolicy,
}

impl Layers {
    /// New handles.
    #[must_use]
    pub fn new() -> Self {
        Self {
            usage: UsageTotals::new(),
            budget: Budget::in_memory([
                Limit::requests(1_000).per_minute(),
                Limit::tokens(1_000_000).per_minute(),
            ])
            .expect("limits"),
            chain: ModelChain::new(["model-a", "model-b"]).expect("a chain"),
            policy: RateLimitPolicy::default().retry_budget(RetryBudget::new(1.0, 1_000)),
        }
    }
}

impl Default for Layers {
    fn default() -> Self {
        Self::new()
    }
}

/// Sends one request and reads the answer: its head, and its bytes or that its body broke.
///
/// # Panics
///
/// If the service itself fails.
pub async fn send<S, B, RB>(service: S, request: Request<B>) -> (Response<()>, Option<Bytes>)
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Error: std::fmt::Debug,
    RB: Body<Data = Bytes>,
{
    let response = service.oneshot(request).await.expect("the service answers");
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.ok().map(|body| body.to_bytes());
    (Response::from_parts(parts, ()), bytes)
}

/// Calls a macro with the name and the layers, outermost first, of each of the 24 orders:
/// `u`sage, `f`allback, `r`etry, `b`udget.
#[macro_export]
macro_rules! every_order {
    ($each:ident) => {
        $each!(ufrb: u f r b); $each!(ufbr: u f b r); $each!(urfb: u r f b); $each!(urbf: u r b f);
        $each!(ubfr: u b f r); $each!(ubrf: u b r f); $each!(furb: f u r b); $each!(fubr: f u b r);
        $each!(frub: f r u b); $each!(frbu: f r b u); $each!(fbur: f b u r); $each!(fbru: f b r u);
        $each!(rufb: r u f b); $each!(rubf: r u b f); $each!(rfub: r f u b); $each!(rfbu: r f b u);
        $each!(rbuf: r b u f); $each!(rbfu: r b f u); $each!(bufr: b u f r); $each!(burf: b u r f);
        $each!(bfur: b f u r); $each!(bfru: b f r u); $each!(bruf: b r u f); $each!(brfu: b r f u);
    };
}

/// One of the four layers by its letter, from a [`Layers`].
#[macro_export]
macro_rules! layer {
    (u, $layers:expr) => {
        tollgate::UsageRecorderLayer::new($layers.usage.clone())
    };
    (f, $layers:expr) => {
        tollgate::ModelFallbackLayer::new($layers.chain.clone())
    };
    (r, $layers:expr) => {
        tollgate::RetryOnRateLimitLayer::new($layers.policy.clone())
    };
    (b, $layers:expr) => {
        tollgate::TokenBudgetLayer::new($layers.budget.clone())
    };
}

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[derive(Debug)]
pub struct Readme;

/// The book's examples compile and run.
#[cfg(doctest)]
pub mod book {
    #[doc = include_str!("../../docs/getting-started.md")]
    #[derive(Debug)]
    pub struct GettingStarted;

    #[doc = include_str!("../../docs/retry.md")]
    #[derive(Debug)]
    pub struct Retry;

    #[doc = include_str!("../../docs/budget.md")]
    #[derive(Debug)]
    pub struct Limits;

    #[doc = include_str!("../../docs/failover.md")]
    #[derive(Debug)]
    pub struct Failover;

    #[doc = include_str!("../../docs/usage.md")]
    #[derive(Debug)]
    pub struct Usage;

    #[doc = include_str!("../../docs/simulator.md")]
    #[derive(Debug)]
    pub struct Simulator;

    #[doc = include_str!("../../docs/concepts.md")]
    #[derive(Debug)]
    pub struct Concepts;

    #[doc = include_str!("../../docs/providers.md")]
    #[derive(Debug)]
    pub struct Providers;

    #[doc = include_str!("../../docs/streaming.md")]
    #[derive(Debug)]
    pub struct Streaming;

    #[doc = include_str!("../../docs/cancellation.md")]
    #[derive(Debug)]
    pub struct Cancellation;

    #[doc = include_str!("../../docs/operations.md")]
    #[derive(Debug)]
    pub struct Operations;

    #[doc = include_str!("../../docs/security.md")]
    #[derive(Debug)]
    pub struct Security;

    #[doc = include_str!("../../docs/migration.md")]
    #[derive(Debug)]
    pub struct Migration;

    #[doc = include_str!("../../docs/ledger.md")]
    #[derive(Debug)]
    pub struct Ledger;

    #[doc = include_str!("../../docs/reqwest.md")]
    #[derive(Debug)]
    pub struct Reqwest;

    #[doc = include_str!("../../docs/async-openai.md")]
    #[derive(Debug)]
    pub struct AsyncOpenai;

    #[doc = include_str!("../../docs/shared-budgets.md")]
    #[derive(Debug)]
    pub struct SharedBudgets;
}
