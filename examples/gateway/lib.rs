//! A gateway in front of LLM providers: a reverse proxy with all four layers, for callers in any language.
//!
//! A request comes in ([`serve`](mod@serve)), is checked ([`keys`], [`guard`]), read ([`gather`]), put at its target
//! ([`place`], [`headers`]), goes through the layers ([`stack`]) and the client ([`client`]), and its answer goes back
//! ([`answer`]). [`proxy`] is that way from one end to the other; [`gateway`] holds what all requests share.
#![forbid(unsafe_code)]

pub(crate) mod admin;
pub mod answer;
pub(crate) mod books;
pub(crate) mod caps;
pub mod cli;
pub mod client;
pub mod config;
pub mod demo;
pub mod gateway;
pub mod gather;
pub mod guard;
pub mod headers;
pub mod keys;
pub(crate) mod measures;
pub(crate) mod own;
pub(crate) mod patience;
pub mod place;
pub mod proxy;
pub mod refusals;
pub mod serve;
pub mod shutdown;
pub mod sinks;
pub mod stack;
pub(crate) mod status;

pub use self::{config::Config, gateway::Gateway};
