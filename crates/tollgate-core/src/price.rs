//! What tokens cost, in integers.
//!
//! Prices are [`Pico`]: 10⁻¹² of a US dollar. One dollar per million tokens is a million pico a
//! token, and the cheapest published price is far above one, so every price is an exact integer
//! and sums lose nothing.
//!
//! ```
//! use tollgate_core::{price::{Cost, Price, PriceTable}, wire::usage::{Count, Usage}};
//!
//! let prices = PriceTable::new().with("gpt-4o-mini", Price::per_million("0.15", "0.60")?.cached("0.075")?);
//! let mut usage = Usage::default();
//! usage.input = Count::Exact(1_000);
//! usage.cached_input = Count::Exact(400);
//! usage.output = Count::Exact(500);
//!
//! // 600 at 0.15, 400 at 0.075, 500 at 0.60 dollars per million.
//! let cost = prices.cost("gpt-4o-mini", &usage);
//! assert_eq!(cost, Cost::Exact("0.00042".parse()?));
//! // A model that is not in the table costs an unknown amount, not nothing.
//! assert_eq!(prices.cost("unheard-of", &usage), Cost::Unknown);
//! # Ok::<(), tollgate_core::price::InvalidPrice>(())
//! ```
//!
//! Tables are data: [`PriceTable::from_json`] reads one, [`Prices`] replaces it while requests run.
mod amount;
mod file;
mod handle;
mod rate;
#[cfg(feature = "prices")]
#[cfg_attr(docsrs, doc(cfg(feature = "prices")))]
mod shipped;
mod table;

pub use self::{
    amount::{Cost, InvalidPrice, Pico},
    file::{About, InvalidTable},
    handle::Prices,
    rate::Price,
    table::PriceTable,
};
