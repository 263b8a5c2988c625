//! A tower layer that admits LLM requests only when the provider will: reserve, queue fairly, settle with real usage.
//!
//! Providers meter requests and tokens, refuse what is beyond, and count the refusals too. A client that sends and
//! sees is refused; one that paces itself wastes what it paid for. This layer keeps the provider's own books: it
//! reserves units before a request is sent, waits in a fair queue until they are there, and puts the books right when
//! the answer comes.
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use tollgate_budget::{Budget, Limit, TokenBudgetLayer};
//! use tollgate_sim::SimProvider;
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Any `Service` of `http` requests will do: a hyper-util client, reqwest, a test.
//! let client = SimProvider::builder().requests(500).tokens(200_000).build();
//!
//! let budget = Budget::in_memory([
//!     Limit::requests(500).per_minute(),
//!     Limit::tokens(200_000).per_minute(),
//! ])?;
//! let service = ServiceBuilder::new()
//!     .layer(TokenBudgetLayer::new(budget.clone()))
//!     .service(client);
//!
//! let body = r#"{"model":"gpt-5","max_tokens":50,"messages":[{"role":"user","content":"Hello!"}]}"#;
//! let request = Request::post("https://api.openai.com/v1/chat/completions").body(Full::<Bytes>::from(body))?;
//! let response = service.oneshot(request).await?;
//! assert_eq!(response.status(), 200);
//! assert_eq!(budget.snapshot().limit("tokens per minute").unwrap().used, 52);
//! # Ok(())
//! # }
//! ```
//!
//! What cannot be admitted is answered by an HTTP response like any other, with a typed
//! [`Refused`](tollgate_core::extensions::Refused) in its extensions that says which limit it was and when to come
//! back:
//!
//! ```
//! # use bytes::Bytes;
//! # use http::Request;
//! # use http_body_util::Full;
//! use tollgate_budget::{Budget, ChargeProfile, Limit, Scope, TokenBudgetLayer};
//! use tollgate_core::{call::CallOptions, extensions::{Reason, Refused}};
//! # use tollgate_sim::SimProvider;
//! use tower::{Layer, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let client = SimProvider::builder().build();
//! let budget = Budget::builder()
//!     .limit(Limit::tokens(2_000_000).per_day())
//!     .limit(Limit::requests(1).per_minute().scope(Scope::Principal).named("one each").refuse())
//!     .charging(ChargeProfile::sum().settles(true))
//!     .build()?;
//! let service = TokenBudgetLayer::new(budget).layer(client);
//! # let request = || {
//! #     let body = r#"{"model":"gpt-5","max_tokens":50,"messages":[]}"#;
//! #     Request::post("https://api.openai.com/v1/chat/completions").body(Full::<Bytes>::from(body)).unwrap()
//! # };
//!
//! let mut first = request();
//! first.extensions_mut().insert(CallOptions::new().principal("alice"));
//! let mut second = request();
//! second.extensions_mut().insert(CallOptions::new().principal("alice"));
//! assert_eq!(service.clone().oneshot(first).await?.status(), 200);
//!
//! let response = service.oneshot(second).await?;
//! assert_eq!(response.status(), 429);
//! let refused = Refused::of(&response).expect("ours, not the provider's");
//! assert_eq!((refused.reason, refused.limit.as_deref()), (Reason::Exhausted, Some("one each")));
//! # Ok(())
//! # }
//! ```
//!
//! # What happens to a request
//!
//! 1. **Read.** A JSON document of a known endpoint is read once, up to a cap, for its size, output cap and model.
//!    Anything else passes unread, as one request without tokens.
//! 2. **Admit.** All its limits are taken in one step or none is. If nobody waits and it fits, this allocates nothing
//!    and sets no timer. Else it waits, or is refused at once if the wait that is computed is longer than the budget's
//!    `max_wait`, the call's deadline, or the queue it was given by a fallback.
//! 3. **Send.** Only now is a clone of the inner service made ready and called: who waits holds no connection.
//! 4. **Settle.** Exactly once, on every way out. What the provider did not serve gives its tokens back and stays
//!    counted as a request, for providers count failures; what was not sent gives all back; where the provider settles
//!    with the real usage ([`ChargeProfile::settles`]), so does the budget, when the body ends.
//!
//! # What a limit can be
//!
//! Requests, tokens, images or money ([`Limit`]), with [`Weights`]; in a period of any length, or per calendar day, week or
//! month of a time zone ([`Calendar`]); for all, a family of models, a model, an API key, a user, a tenant, a tag or a key
//! of your own ([`Scope`]); which waits, refuses or asks somebody ([`Review`]) when it is used up. The provider's limits are
//! kept by the provider's rule. Those of our own (of money, a calendar period, a user, a tenant, a tag or a key of your
//! own) reserve the most that a request can use and settle to what it used. Limits may change at run time
//! ([`Budget::set_limit`]).
//!
//! # How a limit is kept
//!
//! A limit of 500 a minute may be a bucket that refills all the time, a window that rolls or one that starts anew; for
//! the first the best client sends twice the limit in the first minute, for the others that is ruin. By default a
//! limit is taken for a rolling window, which is safe under all of them, until the `reset` of a few answers proves a
//! bucket ([`Enforcement::Auto`]). At first only sixteen requests are in flight, then by and by more, and no more than half of
//! a limit is used, until an answer has come, or a twentieth of the period (3 s at most) has passed: limits that are wrong, or
//! used up by somebody else, show in it.
//!
//! A provider counts a request when it *arrives*. Our log is dated by arrivals too, as near as they can be known: from
//! the answer's own time less the time that the provider says it worked.
//!
//! Headers only ever tighten the books, within the period of the limit they belong to; time loosens them. A limit that
//! is told is a ceiling. A 429 shuts the gate for all who share the budget until its wait is over, and then they are let
//! through one by one until an answer says what is left.
//!
//! # The queue
//!
//! Fair between principals and by the weight of a call's priority, first in first out within one
//! ([`CallOptions`](tollgate_core::call::CallOptions)); what a request costs of the scarcest limit is what counts. One
//! of those who wait keeps the one timer. Bounded by number, bytes and predicted wait. For interactive traffic small
//! requests may have lines of their own ([`size_classes`](BudgetBuilder::size_classes)); limits may be tried on live
//! traffic without enforcing them ([`shadow`](BudgetBuilder::shadow)).
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod acquire;
mod body;
mod budget;
mod builder;
mod charging;
mod count;
mod engine;
#[cfg(feature = "bpe-openai")]
mod exact;
mod future;
mod layer;
mod learned;
pub mod leases;
mod limit;
mod memory;
#[cfg(all(test, any(tollgate_loom, tollgate_shuttle)))]
mod model;
mod platform;
mod review;
mod scope;
mod service;
mod snapshot;
mod spent;
mod store;
mod telemetry;
mod uncapped;
mod used;

pub use acquire::Acquire;
pub use body::ResponseBody;
pub use budget::Budget;
pub use builder::{BudgetBuilder, Oversized};
pub use charging::{ChargeProfile, Charging, Cost, DropPolicy, OutputCharge};
pub use engine::witness::Charged;
#[cfg(feature = "bpe-openai")]
#[cfg_attr(docsrs, doc(cfg(feature = "bpe-openai")))]
pub use exact::Tokenizer;
pub use future::ResponseFuture;
pub use layer::TokenBudgetLayer;
pub use limit::{
    Amount, Calendar, Enforcement, Exhausted, InvalidLimit, Limit, Scope, Unit, Unpriced, Weekday,
    Weights,
};
pub use review::{Decision, Review};
pub use scope::{Asking, Keys};
pub use service::TokenBudget;
pub use snapshot::{BudgetSnapshot, ChargingSnapshot, LimitSnapshot, ShadowSnapshot};
pub use spent::Spent;
pub use store::{
    Ask, BudgetStore, Charge, Observation, Refusal, Reservation, Settle, Settlement, Ticket,
};
pub use uncapped::Uncapped;
pub use used::Used;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
