//! A simulated LLM provider for tests: rate limits, real headers and error bodies, streams, scripted faults.
//!
//! From the smallest to the largest:
//!
//! * [`ReadyProbe`](probe::ReadyProbe) wraps any service and counts what a tower layer may not do to it.
//! * [`Scripted`](script::Scripted) answers with what the test wrote down, and logs every attempt.
//! * [`SimProvider`] is a provider with books of its own: it enforces limits to the last unit, charges, refuses,
//!   streams, fails where it is told to, and keeps an [`Account`] of what it saw.
//!
//! All of them run on tokio's clock, so a test with paused time needs no real second.
//!
//! ```
//! use http::Request;
//! use http_body_util::Full;
//! use bytes::Bytes;
//! use tollgate_sim::script::{Reply, Scripted};
//! use tower::ServiceExt;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tollgate_sim::SimError> {
//! let upstream = Scripted::new([
//!     Reply::status(429).header("retry-after", "2"),
//!     Reply::ok_json(serde_json::json!({"ok": true})),
//! ]);
//! let request = || Request::post("/v1/chat/completions").body(Full::<Bytes>::default()).expect("a request");
//!
//! let first = upstream.clone().oneshot(request()).await?;
//! assert_eq!(first.status(), 429);
//! let second = upstream.clone().oneshot(request()).await?;
//! assert_eq!(second.status(), 200);
//! assert_eq!(upstream.attempts().len(), 2);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod account;
mod answer;
mod bend;
mod body;
mod books;
mod charge;
mod collect;
mod error;
mod fault;
mod latency;
mod limit;
mod mix;
pub mod probe;
mod provider;
pub mod script;
#[cfg(feature = "server")]
#[cfg_attr(docsrs, doc(cfg(feature = "server")))]
pub mod server;
mod wall;

pub use self::{
    account::{Account, Decision, LimitUse, Seen, Summary, Totals},
    body::{BodyFate, SimBody, Step},
    books::Enforcement,
    charge::{Billed, Charging, Cost},
    error::{SimClassify, SimError},
    fault::{Fault, Incoming},
    latency::Latency,
    limit::{SimLimit, Unit},
    mix::FaultMix,
    provider::{Endpoint, ResponseFuture, SimBuilder, SimProvider},
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
