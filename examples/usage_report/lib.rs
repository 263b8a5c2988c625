//! From a ledger to a report: what was used, by whom, for how much, how fast, and how near to the limits.
//!
//! [`Report`](figures::Report) reads the ledger, [`text`] writes it for a terminal, [`page`] as an HTML page with [`plot`]s, and [`demo`] makes a ledger to
//! report on.
#![forbid(unsafe_code)]

pub mod demo;
pub mod evidence;
pub mod figures;
pub mod format;
pub mod page;
pub mod plot;
pub mod table;
pub mod text;
