//! One organisation's limits, many processes, on Redis or Valkey.
//!
//! The budgets of several processes that share a key add up to too much. A [`RedisBudget`] is a
//! [`Budget`](tollgate_budget::Budget) whose limits they share:
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use tollgate_budget::Limit;
//! use tollgate_redis::RedisBudget;
//!
//! let budget = RedisBudget::connect("redis://cache.internal")
//!     .name("acme, chat models")
//!     .limits([
//!         Limit::requests(500).per_minute(),
//!         Limit::tokens(200_000).per_minute(),
//!     ])
//!     .build()
//!     .await?;
//! # let _ = budget; Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! A process *buys in advance*: a script on the server debits a chunk of the limit and says from when on it may be used.
//! Requests spend what is in hand, so they wait for no server, and a process that dies can waste units but never
//! overspend them. More is bought in the background when an eighth is left; where there is not enough for all, chunks are
//! booked ahead in turn, in fair shares. Only the server's time counts.
//!
//! What was bought is used within [`hold`](RedisBudgetBuilder::hold) or is lost, and so much is set apart of the limit
//! that the provider never sees more than it allows. When the server cannot be reached, what is in hand is spent, and
//! then each limit does as its [`Outage`] says. The state survives a flush, and a replica that is behind: each process
//! remembers what it was granted.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod budget;
mod builder;
mod driver;
mod keys;
mod place;
mod remembered;
mod server;
mod status;
mod trip;

pub use budget::RedisBudget;
pub use builder::{InvalidStore, RedisBudgetBuilder};
pub use status::StoreSnapshot;
pub use tollgate_budget::leases::Outage;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
