//! What the tollgate layers share: the wire language of LLM APIs, body plumbing, the call ledger and prices.
//!
//! The layers never import one another. What one learns it leaves in the `http` extensions of
//! the request or the response, in the types of this crate:
//!
//! | value | where | who leaves it | who reads it |
//! |---|---|---|---|
//! | [`CallOptions`](call::CallOptions) | request | the caller | the first layer |
//! | [`Call`](call::Call) | request and response | the first layer | every layer, the caller |
//! | [`Facts`](wire::prompt::Facts) | request | the first layer that reads the body | every layer inside |
//! | [`Tap`](body::Tap) | response | the innermost layer that watches the body | layers outside |
//! | [`Verdict`](wire::outcome::Verdict) | response | the innermost layer that judges | layers outside |
//! | [`Refused`](extensions::Refused) | response | a layer that refuses | layers outside, the caller |
//! | [`GaveUp`](extensions::GaveUp) | response | the retry layer | layers outside, the caller |
//! | [`TimedOut`](extensions::TimedOut) | response | the layer that gave up waiting for an answer | layers outside, the caller |
//! | [`ServedBy`](extensions::ServedBy) | response | the fallback layer | the recorder, the caller |
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod body;
pub mod call;
pub mod classify;
pub mod clock;
pub mod extensions;
pub mod gate;
mod gave_up;
pub mod own_error;
pub mod price;
pub mod principal;
pub mod resend;
pub mod timeouts;
pub mod wire;

/// The usual boxed error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
