//! The wire language: pure functions over headers and bytes.
//!
//! Nothing here is `async`, reads a clock or knows of a body type. Dialects are told apart by shape, not by host: a
//! self-hosted server or a proxy is read like the provider whose shapes it speaks.
//!
//! | module | question |
//! |---|---|
//! | [`prompt`] | what does a request ask for, and how does it become another one? |
//! | [`estimate`] | what will it cost? |
//! | [`answer`] | what does an answer say, as its bytes pass by? |
//! | [`usage`] | how many tokens is that, in one meaning for all providers? |
//! | [`outcome`] | what does an answer mean, and who acts on it? |
//! | [`retry_after`] | how long does the server ask us to wait? |
//! | [`limits`] | which limits do the headers state? |
//! | [`sse`] | where do the events of a stream begin and end? |
//!
//! All of it comes from other machines and is trusted with nothing: no input makes it panic, recurse, or keep more than
//! its caps, and what cannot be read is unknown, never zero and never an error.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use http::{HeaderMap, StatusCode};
//! use tollgate_core::wire::{outcome::{Outcome, SameModel, judge}};
//!
//! // Google states its wait in the body only.
//! let body = br#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"Please retry in 18.4s."}}"#;
//! let verdict = judge(
//!     StatusCode::TOO_MANY_REQUESTS,
//!     &HeaderMap::new(),
//!     Some(body),
//!     SystemTime::now(),
//! );
//! assert!(matches!(verdict.outcome, Outcome::RateLimited { never_fits: false, .. }));
//! assert_eq!(verdict.retry_after.unwrap().wait, Duration::from_millis(18_400));
//! assert_eq!(verdict.advice().same_model, SameModel::AfterWait);
//! ```
pub mod answer;
mod error;
pub mod estimate;
mod json;
pub mod limits;
pub mod outcome;
pub mod prompt;
mod provider;
pub mod retry_after;
pub mod sse;
pub(crate) mod time;
pub mod usage;
