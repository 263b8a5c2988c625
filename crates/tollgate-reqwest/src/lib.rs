//! The tollgate layers over reqwest, and as a middleware of reqwest-middleware.
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
