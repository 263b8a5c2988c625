//! A tower layer that sends a failed LLM call to the next model of a chain.
//!
//! [`ModelFallback`] reads a request once, sends it, and looks at the answer only so far as to know
//! what it means: an error's document, a stream up to its first content. When the model cannot serve
//! (limited, down, gone, too small for the prompt), the same request goes to the next candidate with
//! another model's name in it and no other byte changed.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tollgate_core::{call::Attempts, extensions::ServedBy};
//! use tollgate_fallback::{ModelChain, ModelFallbackLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = ServiceBuilder::new()
//!     .layer(ModelFallbackLayer::new(ModelChain::new(["gpt-5", "gpt-5-mini"])?))
//!     // Any HTTP client: hyper-util, reqwest, a mock. This one serves only the small model.
//!     .service(service_fn(|request: Request<Full<Bytes>>| async {
//!         let document = request.into_body().collect().await?.to_bytes();
//!         let status = if document.starts_with(br#"{"model":"gpt-5-mini""#) { 200 } else { 503 };
//!         Ok::<_, std::convert::Infallible>(
//!             Response::builder().status(status).body(Full::<Bytes>::from(r#"{"choices":[]}"#)).unwrap())
//!     }));
//!
//! let request = Request::post("https://api.example/v1/chat/completions")
//!     .body(Full::from(r#"{"model":"gpt-5","messages":[]}"#))?;
//! let answer = client.oneshot(request).await?;
//!
//! assert_eq!(answer.status(), 200);
//! assert_eq!(ServedBy::of(&answer).unwrap().model.as_deref(), Some("gpt-5-mini"));
//! let tried = Attempts::of(&answer);
//! assert_eq!(tried[0].status.unwrap(), 503);
//! assert_eq!(tried.len(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! With another provider at the end of the chain, other settings, and a handle to watch it:
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tollgate_core::classify::Causes;
//! use tollgate_fallback::{
//!     Candidate, Credential, FallbackHealth, FallbackPolicy, ModelChain, ModelFallbackLayer,
//!     OnExhausted, Target, TargetState,
//! };
//! use tower::{BoxError, Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let chain = ModelChain::new([
//!     Candidate::model("gpt-5").context_window(400_000),
//!     Target::new("azure-eu", "https://eu.example.com")?
//!         .path("/openai/deployments/{model}/{operation}?api-version=2024-10-21")
//!         .credential(Credential::header("api-key", "azure-secret")?)
//!         .model("gpt-5-eu")
//!         .into(),
//! ])?;
//! let health = FallbackHealth::new();
//! let layer = ModelFallbackLayer::new(chain)
//!     .health(health.clone())
//!     .policy(FallbackPolicy::default().on_exhausted(OnExhausted::First))
//!     .classify(Causes);
//!
//! let client = layer.layer(service_fn(|request: Request<Full<Bytes>>| async move {
//!     if request.uri().host() == Some("api.example") {
//!         return Err(BoxError::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)));
//!     }
//!     // The other origin gets its own key and not that of the first one.
//!     assert_eq!(request.uri().path(), "/openai/deployments/gpt-5-eu/chat/completions");
//!     assert_eq!(request.headers()["api-key"], "azure-secret");
//!     assert!(!request.headers().contains_key("authorization"));
//!     Ok(Response::new(Full::<Bytes>::from("{}")))
//! }));
//! let request = Request::post("https://api.example/v1/chat/completions")
//!     .header("authorization", "Bearer openai-secret")
//!     .body(Full::from(r#"{"model":"gpt-5","messages":[]}"#))?;
//! assert_eq!(client.oneshot(request).await?.status(), 200);
//!
//! let left_alone = health.snapshot().targets;
//! assert_eq!(left_alone[0].model.as_deref(), Some("gpt-5"));
//! assert_eq!(left_alone[0].state, TargetState::CoolingDown);
//! # Ok(())
//! # }
//! ```
//!
//! # Who is next, and when
//!
//! [`ModelChain`] says where a request enters the chain. What an outcome leads to is the row
//! "next model" of the one table at
//! [`Outcome::advice`](tollgate_core::wire::outcome::Outcome::advice):
//!
//! - A model that is overloaded, broken or cannot be reached, or that is limited: the next one. The
//!   layer never waits itself. Retries belong inside it, so what it sees is what they gave up on.
//! - A key that is refused or has no money left: the next candidate with another key.
//! - A prompt that is too long: the next candidate whose window is known to be larger. If the window
//!   of the one that refused is not known, one of another model whose window is not known either, or
//!   is large enough for what the prompt is estimated to need.
//! - A refusal by a content filter, or of a request that is wrong: the caller's answer. A later
//!   candidate's complaint about the request is not: then the first one's answer is.
//! - A refusal by a budget inside: the next one; nothing was sent, so it counts as no attempt.
//!
//! [`FallbackPolicy::on`] changes a row. While another candidate is left, budget and retry are told
//! not to wait longer than [`FallbackPolicy::max_wait`], and retries inside leave each further
//! candidate one attempt. A candidate that does not answer within [`FallbackPolicy::timeouts`] is
//! dropped, and the next one is asked.
//!
//! Candidates that are left alone ([`FallbackHealth`]), too small, not capable of what is asked for
//! ([`Candidate::cannot`]), without a usable key or of another dialect are passed over, and so are
//! those at another origin if the request names stored state (`previous_response_id`, file ids). The
//! list of attempts says why. If that leaves none, the one that is due first is tried all the same.
//!
//! Once a stream's first content was delivered the layer is out of the way: a stream that breaks
//! then ends in its error, one that stalls in
//! [`BodyError::IdleTimeout`](tollgate_core::body::BodyError::IdleTimeout). For callers that read a
//! whole answer before they use it, streams are held until they are whole and asked again where they
//! break: [`FallbackPolicy::buffered`].
//!
//! # How long a call holds what
//!
//! Nothing of one attempt, neither connection nor charge, is held while another is made. Cancelling
//! a call gives back its probe, its place in a [pool](Candidate::pool) and its part of the ledger.
//!
//! # What another origin gets to see
//!
//! Of the headers: `accept`, `accept-encoding`, `content-type`, `user-agent`, `traceparent`,
//! `tracestate`, and the version headers of OpenAI and Anthropic. Of the path: the operation. Of the
//! query: `alt=sse`. Of the extensions: those of tollgate. Nothing else, so no key, cookie or
//! organisation of the first origin gets there. The same holds for a target at the same origin that
//! has a key of its own.
//!
//! # What passes unread
//!
//! Requests that cannot be sent twice, or not be rewritten: unknown paths, uploads and forms, a body
//! of unknown length, a compressed body, batches and files, and those that are signed (`AWS4-…`,
//! `signature`, `content-digest`). They are sent once, as they came.
//!
//! # Why the final answer is the last attempt's
//!
//! An answer may hold a connection and what a budget has reserved for it, so none is held while
//! another attempt is made. [`OnExhausted::First`] gives back a copy, which is kept only of error
//! documents up to 64 KiB.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod candidate;
mod chain;
mod choose;
mod cooling;
mod credential;
mod decide;
mod fit;
mod future;
mod health;
mod kept;
mod layer;
mod ledger;
mod news;
mod path;
mod policy;
mod pool;
mod rewrite;
mod run;
mod service;
mod snapshot;
mod target;

pub use tollgate_core::wire::prompt::Capability;

pub use self::{
    candidate::Candidate,
    chain::{InvalidChain, ModelChain},
    credential::{Credential, CredentialProvider},
    future::ResponseFuture,
    health::FallbackHealth,
    layer::ModelFallbackLayer,
    policy::{FallbackPolicy, OnExhausted},
    service::ModelFallback,
    snapshot::{HealthSnapshot, MemberSnapshot, TargetSnapshot, TargetState},
    target::Target,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
