//! What a request really uses, which is what our own limits count: whatever the provider charges, and whenever.
//!
//! A provider's limit is kept by the provider's rule ([`crate::charging`]). A limit of our own, such as a user's quota
//! or a cap on money, is a promise that only we keep: the most that a request can use is reserved, and its usage
//! settles that, also where the provider gives nothing back.
use std::sync::Arc;

use tollgate_core::{
    price::{self, Pico, Price, PriceTable},
    wire::{
        prompt::{Endpoint, RequestFacts},
        usage::{Count, Usage},
    },
};

use crate::{charging::Cost, engine::rate::narrow};

/// Tokens and money that a request uses, or the most that it can use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Used {
    /// Input tokens.
    pub input: u64,
    /// Those of them that were read from a cache; 0 before the answer.
    pub cached_input: u64,
    /// Output tokens.
    pub output: u64,
    /// In 10⁻¹² US dollars; `None`: not known, which is not zero.
    pub money: Option<u64>,
    /// The part of the money that is for the input, where the output is assumed.
    pub(crate) input_money: Option<u64>,
    /// The output is assumed, because the request states no cap: a limit that holds less is no reason to refuse it.
    pub assumed: bool,
    /// The request was not read: how many tokens it uses is not known.
    pub unread: bool,
}

impl Used {
    /// So many tokens.
    #[must_use]
    pub fn tokens(input: u64, output: u64) -> Self {
        Self {
            input,
            output,
            ..Self::default()
        }
    }

    /// So many of the input tokens were read from a cache.
    #[must_use]
    pub fn cached_input(mut self, tokens: u64) -> Self {
        self.cached_input = tokens;
        self
    }

    /// So much money.
    #[must_use]
    pub fn money(mut self, amount: Pico) -> Self {
        self.money = Some(narrow(amount.get()));
        self
    }
}

/// Prices, and what is assumed of a request that states no cap.
#[derive(Clone, Debug)]
pub(crate) struct Tariff {
    prices: Option<Arc<PriceTable>>,
    assumed_output: u64,
}

impl Default for Tariff {
    fn default() -> Self {
        Self {
            prices: None,
            assumed_output: 4096,
        }
    }
}

impl Tariff {
    pub(crate) fn set_prices(&mut self, prices: PriceTable) {
        self.prices = Some(Arc::new(prices));
    }

    pub(crate) fn has_prices(&self) -> bool {
        self.prices.is_some()
    }

    pub(crate) fn set_assumed_output(&mut self, tokens: u64) {
        self.assumed_output = tokens;
    }

    /// The most that a request can use, whose input was estimated for `cost`; and what it is billed by.
    pub(crate) fn reserve(&self, facts: &RequestFacts, cost: &Cost) -> (Used, Bill) {
        if !costs(facts.endpoint) {
            return (free(), Bill::default());
        }
        let answers = facts.generated();
        let (output, assumed) = if facts.endpoint.generates() {
            let each = facts.max_output_tokens.unwrap_or(self.assumed_output);
            let output = each.saturating_mul(answers);
            (output, facts.max_output_tokens.is_none())
        } else {
            (0, false)
        };
        let priced = self
            .prices
            .clone()
            .zip(facts.model.clone())
            // A price is by the token, and these are not sold by it.
            .filter(|_| {
                !matches!(
                    facts.endpoint,
                    Endpoint::Images | Endpoint::Speech | Endpoint::Transcriptions
                )
            });
        let bill = Bill(priced);
        let most = Used {
            assumed,
            money: bill.price().map(|price| most(price, cost.input, output)),
            input_money: bill.price().map(|price| most(price, cost.input, 0)),
            ..Used::tokens(cost.input, output)
        };
        (most, bill)
    }
}

/// Of a request that is metered in nothing but requests.
fn free() -> Used {
    Used::default().money(Pico::ZERO)
}

/// Of a request that is not read.
pub(crate) fn unread(endpoint: Endpoint) -> Used {
    if !costs(endpoint) {
        return free();
    }
    Used {
        unread: true,
        ..Used::default()
    }
}

/// What a request is billed by: looked up again in the end, for a price is too large to be carried along by every
/// answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bill(Option<(Arc<PriceTable>, Arc<str>)>);

impl Bill {
    fn price(&self) -> Option<&Price> {
        let (prices, model) = self.0.as_ref()?;
        prices.get(model)
    }

    /// What its usage says, where `most` was reserved; `None` if that says nothing.
    pub(crate) fn actual(&self, most: &Used, usage: &Usage) -> Option<Used> {
        let output = usage.billed_output();
        if (usage.input, output) == (Count::Unknown, Count::Unknown) {
            return None;
        }
        let known = |count: Count, most: u64| match count {
            Count::Exact(tokens) => tokens,
            Count::AtLeast(tokens) => tokens.max(most),
            Count::Unknown => most,
        };
        let money = self.price().map(|price| match price.cost(usage) {
            price::Cost::Exact(cost) if output != Count::Unknown || most.output == 0 => {
                narrow(cost.get())
            }
            // Never below what was reserved, where the bill may be higher than what is known of it.
            price::Cost::Exact(cost) | price::Cost::AtLeast(cost) => {
                narrow(cost.get()).max(most.money.unwrap_or_default())
            }
            price::Cost::Unknown => most.money.unwrap_or_default(),
        });
        Some(Used {
            input: known(usage.input, most.input),
            cached_input: usage.cached_input.get().unwrap_or(0),
            output: known(output, most.output),
            assumed: false,
            money,
            input_money: None,
            unread: false,
        })
    }

    /// The prompt, and what was received of an answer that was left early.
    pub(crate) fn received(&self, reserved: &Used, output_chars: u64) -> Used {
        let output = output_chars.div_ceil(4);
        Used {
            money: self
                .price()
                .map(|price| most(price, reserved.input, output)),
            ..Used::tokens(reserved.input, output)
        }
    }
}

/// Whether an answer is paid for by what it uses.
fn costs(endpoint: Endpoint) -> bool {
    !matches!(
        endpoint,
        Endpoint::Other | Endpoint::Deferred | Endpoint::CountTokens | Endpoint::Moderations
    )
}

/// The most that so many tokens can cost: input may be written to a cache, which can be dearer.
fn most(price: &Price, input: u64, output: u64) -> u64 {
    let dearest = [price.cache_write, price.cache_write_1h]
        .into_iter()
        .flatten()
        .fold(price.input, Pico::max);
    narrow((dearest.times(input) + price.output.times(output)).get())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: Count, output: Count) -> Usage {
        let mut usage = Usage::default();
        (usage.input, usage.output) = (input, output);
        usage
    }

    fn bill() -> (Used, Bill) {
        let price = Price::per_million("1", "10")
            .and_then(|price| price.cache_write("1.25"))
            .unwrap();
        let mut tariff = Tariff::default();
        tariff.set_prices(PriceTable::new().with("m", price));
        let mut facts = RequestFacts::unread(Endpoint::ChatCompletions);
        facts.model = Some("m".into());
        facts.answers = 2;
        facts.max_output_tokens = Some(50);
        tariff.reserve(&facts, &Cost::request().tokens(100, 1))
    }

    #[test]
    fn the_most_that_it_can_cost_is_reserved() {
        let (most, _) = bill();
        assert_eq!((most.input, most.output, most.assumed), (100, 100, false));
        assert_eq!(most.money, Some(100 * 1_250_000 + 100 * 10_000_000));
    }

    #[test]
    fn each_prompt_of_a_legacy_completion_may_use_the_whole_cap() {
        let mut facts = RequestFacts::unread(Endpoint::Completions);
        facts.max_output_tokens = Some(50);
        facts.inputs = Some(10);
        let cost = crate::ChargeProfile::sum().estimate(&facts);
        assert!(cost.tokens >= 500, "{cost:?}");
        let (most, _) = Tariff::default().reserve(&facts, &cost);
        assert_eq!(most.output, 500);
    }

    #[test]
    fn what_is_not_known_for_sure_never_settles_below_the_reservation() {
        let (reserved, bill) = bill();
        let most = reserved.money;
        let actual = |usage| bill.actual(&reserved, &usage).unwrap();
        let exact = actual(usage(Count::Exact(80), Count::Exact(10)));
        assert_eq!(exact.money, Some(80 * 1_000_000 + 10 * 10_000_000));
        let bound = actual(usage(Count::Exact(80), Count::AtLeast(10)));
        assert_eq!((bound.output, bound.money), (100, most));
        let half = actual(usage(Count::Exact(80), Count::Unknown));
        assert_eq!((half.input, half.output, half.money), (80, 100, most));
        assert_eq!(bill.actual(&reserved, &Usage::default()), None);
    }

    #[test]
    fn without_a_price_the_cost_is_unknown_and_what_is_not_metered_is_free() {
        let mut facts = RequestFacts::unread(Endpoint::ChatCompletions);
        facts.model = Some("m".into());
        let tariff = Tariff::default();
        let unpriced = tariff.reserve(&facts, &Cost::request()).0;
        assert_eq!(unpriced.output, 4096);
        assert_eq!((unpriced.money, unpriced.assumed), (None, true));
        assert_eq!(unread(Endpoint::Other).money, Some(0));
        assert_eq!(unread(Endpoint::ChatCompletions).money, None);
    }
}
