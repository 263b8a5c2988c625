//! The arithmetic and the decisions: no I/O, no `async`, no clock; the time comes as an argument.
pub(crate) mod account;
pub(crate) mod book;
mod bucket;
pub(crate) mod calendar;
pub(crate) mod core;
mod evidence;
mod fixed;
pub(crate) mod headers;
mod history;
mod learn;
pub(crate) mod lease;
mod queue;
pub(crate) mod rate;
mod rolling;
pub(crate) mod rule;
mod skew;
pub(crate) mod witness;
