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
//! let cost = prices.cost("gpt-4o-mini-2024-07-18", &usage);
//! assert_eq!(cost, Cost::Exact("0.00042".parse()?));
//! // A model that is not in the table costs an unknown amount, not nothing.
//! assert_eq!(prices.cost("unheard-of", &usage), Cost::Unknown);
//! # Ok::<(), tollgate_core::price::InvalidPrice>(())
//! ```
use std::{collections::HashMap, fmt, iter::Sum, ops::Add, str::FromStr};

use crate::wire::usage::{Count, Usage};

/// An amount of money in 10⁻¹² US dollars. Sums saturate and never wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pico(u128);

impl Pico {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// Pico in a dollar.
    pub const PER_DOLLAR: u128 = 1_000_000_000_000;

    /// An amount in pico.
    #[must_use]
    pub const fn new(pico: u128) -> Self {
        Self(pico)
    }

    /// The amount in pico.
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0
    }

    /// The amount in nano-dollars, rounded up: for what is reserved.
    #[must_use]
    pub const fn nanos_up(self) -> u128 {
        self.0.div_ceil(1000)
    }

    /// This price, so many times.
    #[must_use]
    pub const fn times(self, n: u64) -> Self {
        Self(self.0.saturating_mul(n as u128))
    }
}

impl Add for Pico {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for Pico {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

/// In dollars, exact: `0.00042`.
impl fmt::Display for Pico {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dollars, rest) = (self.0 / Self::PER_DOLLAR, self.0 % Self::PER_DOLLAR);
        if rest == 0 {
            return write!(f, "{dollars}");
        }
        let rest = format!("{rest:012}");
        write!(f, "{dollars}.{}", rest.trim_end_matches('0'))
    }
}

/// From dollars in decimal: digits, and at most twelve after the point.
impl FromStr for Pico {
    type Err = InvalidPrice;

    fn from_str(text: &str) -> Result<Self, InvalidPrice> {
        scaled(text, 12).map(Self)
    }
}

/// `text` × 10^`places`, exactly.
fn scaled(text: &str, places: usize) -> Result<u128, InvalidPrice> {
    let invalid = || InvalidPrice(text.chars().take(40).collect());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty())
        || !digits(whole)
        || !digits(fraction)
        || fraction.len() > places
    {
        return Err(invalid());
    }
    let number = format!("{whole}{fraction:0<places$}");
    number.parse().map_err(|_| invalid())
}

/// A price that cannot be read, or not exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPrice(Box<str>);

impl fmt::Display for InvalidPrice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a price must be a decimal number of dollars such as 0.075, and {:?} is not",
            self.0
        )
    }
}

impl std::error::Error for InvalidPrice {}

/// What one model charges for a token.
///
/// Unset kinds are charged as what they are part of: cached input and cache writes as input,
/// reasoning as output. Audio has no price of its own yet: a cost with audio in it is a lower bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Price {
    /// An input token.
    pub input: Pico,
    /// An input token read from a cache.
    pub cached_input: Option<Pico>,
    /// An input token written to a cache.
    pub cache_write: Option<Pico>,
    /// An input token written to a cache that keeps it for an hour.
    pub cache_write_1h: Option<Pico>,
    /// An output token.
    pub output: Pico,
}

impl Price {
    /// Dollars per million tokens, in decimal.
    ///
    /// # Errors
    ///
    /// If either is not a decimal number with at most six digits after the point.
    pub fn per_million(input: &str, output: &str) -> Result<Self, InvalidPrice> {
        let (input, output) = (million(input)?, million(output)?);
        Ok(Self {
            input,
            output,
            ..Self::default()
        })
    }

    /// Sets the price of cached input, in dollars per million tokens.
    ///
    /// # Errors
    ///
    /// As for [`per_million`](Self::per_million).
    pub fn cached(mut self, price: &str) -> Result<Self, InvalidPrice> {
        self.cached_input = Some(million(price)?);
        Ok(self)
    }

    /// Sets the price of cache writes, in dollars per million tokens.
    ///
    /// # Errors
    ///
    /// As for [`per_million`](Self::per_million).
    pub fn cache_write(mut self, price: &str) -> Result<Self, InvalidPrice> {
        self.cache_write = Some(million(price)?);
        Ok(self)
    }

    /// Sets the price of cache writes that are kept for an hour, in dollars per million tokens.
    ///
    /// # Errors
    ///
    /// As for [`per_million`](Self::per_million).
    pub fn cache_write_1h(mut self, price: &str) -> Result<Self, InvalidPrice> {
        self.cache_write_1h = Some(million(price)?);
        Ok(self)
    }

    /// What an answer with this usage costs.
    ///
    /// A part that is larger than its whole, as some providers report, is cut at the whole. An
    /// output that is missing counts as none where the input is known (embeddings).
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Cost {
        let (input, output) = match (usage.input.get(), usage.billed_output().get()) {
            (None, None) => return Cost::Unknown,
            (input, output) => (input, output.unwrap_or(0)),
        };
        let known = input.is_some();
        let input = input.unwrap_or(0);
        let cached = usage.cached_input.get().unwrap_or(0).min(input);
        let written = usage.cache_write.get().unwrap_or(0).min(input - cached);
        let hour = usage.cache_write_1h.get().unwrap_or(0).min(written);
        let plain = input - cached - written;
        let cached_price = self.cached_input.unwrap_or(self.input);
        let write_price = self.cache_write.unwrap_or(self.input);
        let hour_price = self.cache_write_1h.unwrap_or(write_price);
        let sum = self.input.times(plain)
            + cached_price.times(cached)
            + write_price.times(written - hour)
            + hour_price.times(hour)
            + self.output.times(output);
        let bound = |count: Count| matches!(count, Count::AtLeast(_));
        // Audio is dearer than text everywhere.
        let some = |count: Count| count.get().is_some_and(|n| n > 0);
        let audio = some(usage.audio_input) || some(usage.audio_output);
        if !known || audio || bound(usage.input) || bound(usage.output) {
            Cost::AtLeast(sum)
        } else {
            Cost::Exact(sum)
        }
    }
}

fn million(price: &str) -> Result<Pico, InvalidPrice> {
    // Dollars per million, times 10^12 pico, over 10^6 tokens.
    scaled(price, 6).map(Pico)
}

/// What something cost. Unknown is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cost {
    /// No price or no usage.
    #[default]
    Unknown,
    /// At least this: the usage is a lower bound, or a part of the answer has no price.
    AtLeast(Pico),
    /// This.
    Exact(Pico),
}

impl Cost {
    /// The amount, exact or bound.
    #[must_use]
    pub fn get(self) -> Option<Pico> {
        match self {
            Self::Unknown => None,
            Self::AtLeast(pico) | Self::Exact(pico) => Some(pico),
        }
    }
}

/// Prices by model: data that the user replaces.
#[derive(Clone, Debug, Default)]
pub struct PriceTable {
    prices: HashMap<Box<str>, Price>,
}

impl PriceTable {
    /// An empty table: every cost is unknown.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces the price of a model.
    #[must_use]
    pub fn with(mut self, model: impl Into<Box<str>>, price: Price) -> Self {
        self.prices.insert(model.into(), price);
        self
    }

    /// The price of a model: of its exact name, else of the name without its date (`-2024-07-18`,
    /// `-20250219`), for providers answer with the dated name of the alias that was asked for.
    #[must_use]
    pub fn get(&self, model: &str) -> Option<&Price> {
        self.prices
            .get(model)
            .or_else(|| self.prices.get(undated(model)?))
    }

    /// What an answer of a model with this usage costs.
    #[must_use]
    pub fn cost(&self, model: &str, usage: &Usage) -> Cost {
        self.get(model)
            .map_or(Cost::Unknown, |price| price.cost(usage))
    }
}

/// `name-2024-07-18` or `name-20240718` without its date.
fn undated(model: &str) -> Option<&str> {
    let date = |text: &str, pattern: &[u8]| {
        text.len() == pattern.len()
            && text.bytes().zip(pattern).all(|(byte, kind)| match kind {
                b'0' => byte.is_ascii_digit(),
                dash => byte == *dash,
            })
    };
    for pattern in [&b"-0000-00-00"[..], b"-00000000"] {
        let Some(at) = model.len().checked_sub(pattern.len()) else {
            continue;
        };
        if at > 0 && model.is_char_boundary(at) && date(&model[at..], pattern) {
            return Some(&model[..at]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_amount_reads_as_it_is_written() {
        for text in ["0.075", "3", "0.000000000001", "12.5"] {
            assert_eq!(text.parse::<Pico>().unwrap().to_string(), text);
        }
        for text in [
            "",
            ".",
            "-1",
            "1e3",
            "0.0000000000001",
            "1.2.3",
            "NaN",
            &"9".repeat(60),
        ] {
            assert!(text.parse::<Pico>().is_err(), "{text:?} is no price");
        }
    }

    // U15
    #[test]
    fn an_unpriced_model_costs_an_unknown_amount() {
        let mut usage = Usage {
            input: Count::Exact(10),
            ..Usage::default()
        };
        assert_eq!(PriceTable::new().cost("m", &usage), Cost::Unknown);
        let table = PriceTable::new().with("m", Price::per_million("1", "2").unwrap());
        assert_eq!(
            table.cost("m", &Usage::default()),
            Cost::Unknown,
            "no usage, no cost"
        );
        usage.output = Count::AtLeast(5);
        assert_eq!(
            table.cost("m", &usage),
            Cost::AtLeast(Pico::new(20_000_000))
        );
    }

    #[test]
    fn audio_at_the_price_of_text_is_a_lower_bound() {
        let price = Price::per_million("1", "10").unwrap();
        let usage = Usage {
            input: Count::Exact(100),
            audio_input: Count::Exact(40),
            output: Count::Exact(0),
            ..Usage::default()
        };
        assert_eq!(price.cost(&usage), Cost::AtLeast(Pico::new(100_000_000)));
    }

    // U13
    #[test]
    fn reasoning_is_part_of_the_output_and_costs_once() {
        let price = Price::per_million("1", "10").unwrap();
        let usage = Usage {
            input: Count::Exact(0),
            output: Count::Exact(100),
            reasoning: Count::Exact(80),
            ..Usage::default()
        };
        assert_eq!(price.cost(&usage), Cost::Exact(Pico::new(1_000_000_000)));
    }

    proptest! {
        // T40
        #[test]
        fn sums_lose_nothing(amounts in prop::collection::vec(0u64.., 0..100)) {
            let sum: Pico = amounts.iter().map(|&n| Pico::new(n.into())).sum();
            prop_assert_eq!(sum.get(), amounts.iter().map(|&n| u128::from(n)).sum::<u128>());
        }

        #[test]
        fn display_and_parse_are_inverse(pico in 0u128..u128::from(u64::MAX)) {
            prop_assert_eq!(Pico::new(pico).to_string().parse::<Pico>().unwrap(), Pico::new(pico));
        }

        #[test]
        fn no_usage_makes_a_cost_wrap(
            input in any::<u64>(), cached in any::<u64>(), written in any::<u64>(),
            hour in any::<u64>(), output in any::<u64>(),
        ) {
            let price = Price::per_million("1000", "1000").unwrap().cached("1").unwrap();
            let usage = Usage {
                input: Count::Exact(input),
                cached_input: Count::Exact(cached),
                cache_write: Count::Exact(written),
                cache_write_1h: Count::Exact(hour),
                output: Count::Exact(output),
                ..Usage::default()
            };
            let most = price.input.times(input) + price.output.times(output);
            prop_assert!(price.cost(&usage).get().unwrap() <= most);
        }
    }
}
