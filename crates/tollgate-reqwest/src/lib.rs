//! The tollgate layers over reqwest, and as a middleware of reqwest-middleware.
//!
//! | you have | you write |
//! |---|---|
//! | a `reqwest::Client` | `layers.service(HttpService::new(client))` |
//! | a `ClientWithMiddleware` to build, or a crate that takes one | `.with(TollgateMiddleware::new(layers))` |
//! | a `ClientWithMiddleware` that somebody gives you | `layers.service(HttpService::new(MiddlewareClient::new(client)))` |
//!
//! They are in [`v0_13`], and for reqwest 0.12 in [`v0_12`].
//!
//! ```
//! use http::Request;
//! use reqwest::{Body, Client};
//! use tollgate_budget::{Budget, Limit, TokenBudgetLayer};
//! use tollgate_core::call::Attempts;
//! use tollgate_reqwest::{Reqwest, v0_13::HttpService};
//! use tollgate_retry::{RateLimitPolicy, RetryOnRateLimitLayer};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let server = tollgate_sim::server::Server::bind("127.0.0.1:0", tollgate_sim::SimProvider::builder().build()).await?;
//! # let url = format!("{}/v1/chat/completions", server.url());
//! let client = ServiceBuilder::new()
//!     .layer(RetryOnRateLimitLayer::new(RateLimitPolicy::default()).classify(Reqwest))
//!     .layer(TokenBudgetLayer::new(Budget::in_memory([Limit::requests(500).per_minute()])?))
//!     .service(HttpService::new(Client::new()));
//!
//! let body = r#"{"model":"gpt-5","max_tokens":16,"messages":[{"role":"user","content":"Hi"}]}"#;
//! let response = client.oneshot(Request::post(url).body(Body::from(body))?).await?;
//! assert_eq!(response.status(), 200);
//! assert_eq!(Attempts::of(&response).len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! As a middleware, for a crate that takes a `ClientWithMiddleware`:
//!
#![cfg_attr(feature = "middleware-0-5", doc = "```")]
#![cfg_attr(not(feature = "middleware-0-5"), doc = "```ignore")]
//! use reqwest_middleware::ClientBuilder;
//! use tollgate_budget::{Budget, Limit, TokenBudgetLayer};
//! use tollgate_core::extensions::Reason;
//! use tollgate_reqwest::{ResponseExt, v0_13::TollgateMiddleware};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let budget = Budget::in_memory([Limit::tokens(100).per_minute()])?;
//! let client = ClientBuilder::new(reqwest::Client::new())
//!     .with(TollgateMiddleware::new(TokenBudgetLayer::new(budget)))
//!     .build();
//!
//! let request = client.post("https://api.example/v1/chat/completions");
//! let response = request.body(r#"{"model":"gpt-5","max_tokens":5000,"messages":[]}"#).send().await?;
//! assert_eq!(response.status(), 429);
//! let refused = response.refused().expect("ours, not the provider's; nothing was sent");
//! assert_eq!(refused.reason, Reason::NeverFits);
//! # Ok(())
//! # }
//! ```
//!
//! # What is sent again
//!
//! A body whose length is known is read once and shared by all attempts. A stream, or a multipart form, passes whole and once.
//!
//! # Errors
//!
//! The error is the client's own, untouched; no layer makes one. [`Reqwest`] tells the layers what was never sent. An error within
//! a body comes out of a middleware as reqwest's, with what it was as its cause.
//!
//! # Cancel safety
//!
//! Dropping the future of a call, or a response that has not ended, drops the client's, which closes the connection or resets the
//! stream.
#![cfg_attr(
    not(all(feature = "v0-12", feature = "v0-13")),
    allow(rustdoc::broken_intra_doc_links)
)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]
// One file for each thing, whatever the version of the client is.
#![allow(clippy::duplicate_mod)]

mod classify;
mod response_ext;
#[cfg(feature = "v0-12")]
#[cfg_attr(docsrs, doc(cfg(feature = "v0-12")))]
pub mod v0_12;
#[cfg(feature = "v0-13")]
#[cfg_attr(docsrs, doc(cfg(feature = "v0-13")))]
pub mod v0_13;

pub use classify::Reqwest;
pub use response_ext::ResponseExt;

#[cfg(all(doctest, feature = "middleware-0-5"))]
#[doc = include_str!("../README.md")]
struct Readme;
