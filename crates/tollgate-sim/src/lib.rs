//! A simulated LLM provider for tests: rate limits, real headers and error bodies, streams, scripted faults.
//!
//! From the smallest to the largest:
//!
//! * [`ReadyProbe`](probe::ReadyProbe) wraps any service and counts what a tower layer may not do to it.
//! * [`Scripted`](script::Scripted) answers with what the test wrote down, and logs every attempt.
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

mod body;
mod collect;
mod error;
pub mod probe;
pub mod script;

pub use self::{
    body::{SimBody, Step},
    error::SimError,
};
