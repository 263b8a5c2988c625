//! The tollgate layers inside async-openai's client, which keeps its types, its streams and its errors.
//!
//! [`AsyncOpenAiLayer`] stands outermost and [`HttpService`](tollgate_reqwest::v0_13::HttpService) innermost; the stack goes into
//! `Client::with_http_service`. That also switches async-openai's own retries off: a service of one's own takes the place of the one
//! that has them.
//!
//! ```
//! use async_openai::{Client, config::OpenAIConfig};
//! use async_openai::types::chat::{ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequestArgs};
//! use tollgate_async_openai::AsyncOpenAiLayer;
//! use tollgate_budget::{Budget, Limit, TokenBudgetLayer};
//! use tollgate_reqwest::{Reqwest, v0_13::HttpService};
//! use tollgate_retry::{RateLimitPolicy, RetryOnRateLimitLayer};
//! use tower::ServiceBuilder;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let server = tollgate_sim::server::Server::bind("127.0.0.1:0", tollgate_sim::SimProvider::builder().build()).await?;
//! # let base = format!("{}/v1", server.url());
//! let budget = Budget::in_memory([Limit::requests(500).per_minute(), Limit::tokens(200_000).per_minute()])?;
//! let service = ServiceBuilder::new()
//!     .layer(AsyncOpenAiLayer)
//!     .layer(RetryOnRateLimitLayer::new(RateLimitPolicy::default()).classify(Reqwest))
//!     .layer(TokenBudgetLayer::new(budget).classify(Reqwest))
//!     .service(HttpService::new(reqwest::Client::new()));
//! let config = OpenAIConfig::new().with_api_base(base).with_api_key("sk-none");
//! let client = Client::with_config(config).with_http_service(service);
//!
//! let message = ChatCompletionRequestUserMessageArgs::default().content("Hello").build()?;
//! let request = CreateChatCompletionRequestArgs::default().model("gpt-5").messages([message.into()]).build()?;
//! let answer = client.chat().create(request).await?;
//! assert_eq!(answer.choices.len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Options of a call, and what the layers have left on its response
//!
//! async-openai has no place for either: it makes the request itself, and its typed answers drop the response. [`scoped`] passes both
//! beside it.
//!
//! # Forms and uploads
//!
//! A multipart request is a stream to the layers: it passes whole and once. async-openai could make it again, but to send a file twice
//! is nothing that a retry may decide.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod scope;
mod service;

pub use scope::{Seen, scoped};
pub use service::{AsyncOpenAi, AsyncOpenAiLayer};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
