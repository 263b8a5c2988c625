//! Prices by model, tier and length of the prompt.
use std::{
    borrow::Cow,
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{About, Cost, Price};
use crate::wire::{time, usage::Usage};

/// The name of the usual tier.
const STANDARD: &str = "standard";

/// Prices by model: data that the user replaces.
///
/// A model has one price for the standard tier. It may have others for other tiers (`batch`,
/// `flex`, `priority`), and others from some length of the prompt on.
///
/// ```
/// use tollgate_core::{price::{Cost, Price, PriceTable}, wire::usage::{Count, Usage}};
///
/// let prices = PriceTable::new()
///     .with("m-1", Price::per_million("1", "10")?)
///     .with_tier("m-1", "batch", Price::per_million("0.5", "5")?)
///     // A prompt above 200,000 tokens costs more, and so does its answer.
///     .with_above("m-1", "standard", 200_000, Price::per_million("2", "15")?);
///
/// let mut usage = Usage::default();
/// usage.input = Count::Exact(100_000);
/// assert_eq!(prices.cost("m-1", &usage), Cost::Exact("0.1".parse()?));
/// assert_eq!(prices.cost_at("m-1", Some("batch"), &usage), Cost::Exact("0.05".parse()?));
/// assert_eq!(prices.cost_at("m-1", Some("flex"), &usage), Cost::Unknown);
/// usage.input = Count::Exact(300_000);
/// assert_eq!(prices.cost("m-1", &usage), Cost::Exact("0.6".parse()?));
/// # Ok::<(), tollgate_core::price::InvalidPrice>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct PriceTable {
    models: HashMap<Box<str>, Model>,
    about: About,
}

#[derive(Clone, Debug, Default)]
struct Model {
    /// Sorted by tier, then by threshold from the highest down.
    rows: Vec<Row>,
    retires: Option<Box<str>>,
}

#[derive(Clone, Debug)]
struct Row {
    tier: Box<str>,
    /// For prompts of more tokens than this.
    above: u64,
    price: Price,
}

impl PriceTable {
    /// An empty table: every cost is unknown.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces the price of a model at the standard tier.
    #[must_use]
    pub fn with(self, model: impl Into<Box<str>>, price: Price) -> Self {
        self.with_above(model, STANDARD, 0, price)
    }

    /// Adds or replaces the price of a model at a tier, by the name that the answer's
    /// `service_tier` has (case does not matter).
    #[must_use]
    pub fn with_tier(self, model: impl Into<Box<str>>, tier: &str, price: Price) -> Self {
        self.with_above(model, tier, 0, price)
    }

    /// Adds or replaces the price of a model at a tier for prompts of more than `above` tokens:
    /// the price of the whole call, not only of what is above.
    #[must_use]
    pub fn with_above(
        mut self,
        model: impl Into<Box<str>>,
        tier: &str,
        above: u64,
        price: Price,
    ) -> Self {
        self.insert(model.into(), tier, above, price);
        self
    }

    /// Notes from which day on a model is no longer served, as `2026-03-31`.
    #[must_use]
    pub fn with_retirement(mut self, model: impl Into<Box<str>>, day: impl Into<Box<str>>) -> Self {
        self.models.entry(model.into()).or_default().retires = Some(day.into());
        self
    }

    /// False if there was one already, which is replaced.
    pub(super) fn insert(&mut self, model: Box<str>, tier: &str, above: u64, price: Price) -> bool {
        let tier = Box::from(&*canonical(tier));
        let rows = &mut self.models.entry(model).or_default().rows;
        let place = rows.binary_search_by(|row| (&row.tier, above).cmp(&(&tier, row.above)));
        let row = Row { tier, above, price };
        match place {
            Ok(at) => rows[at] = row,
            Err(at) => rows.insert(at, row),
        }
        place.is_err()
    }

    pub(super) fn describe(&mut self, about: About) {
        self.about = about;
    }

    /// Which version of which table this is; empty for one that was made in code.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// How many models have a price.
    #[must_use]
    pub fn len(&self) -> usize {
        self.models.values().filter(|m| !m.rows.is_empty()).count()
    }

    /// Whether no model has a price.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The price of a model at the standard tier, for prompts of ordinary length.
    ///
    /// It is looked for under the exact name, else under the name without its date (`-2024-07-18`,
    /// `-20250219`, `@20250219`), for providers answer with the dated name of the alias that was
    /// asked for. Of a dated name that was asked for itself, that price is only a guess.
    #[must_use]
    pub fn get(&self, model: &str) -> Option<&Price> {
        self.model(model)?.row(STANDARD, 0).map(|row| &row.price)
    }

    /// For each kind of token the dearest price that a model has at any tier and any length: what
    /// a call can cost at most.
    #[must_use]
    pub fn dearest(&self, model: &str) -> Option<Price> {
        let prices = self.model(model)?.rows.iter().map(|row| row.price);
        prices.reduce(|a, b| a.dearer(&b))
    }

    /// From which day on a model is no longer served, as `2026-03-31`, where that is known.
    #[must_use]
    pub fn retires(&self, model: &str) -> Option<&str> {
        self.model(model)?.retires.as_deref()
    }

    /// The beginning of that day, in UTC.
    #[must_use]
    pub fn retires_at(&self, model: &str) -> Option<SystemTime> {
        day(self.retires(model)?)
    }

    /// What an answer of a model with this usage costs at the standard tier; see
    /// [`cost_at`](Self::cost_at).
    #[must_use]
    pub fn cost(&self, model: &str, usage: &Usage) -> Cost {
        self.cost_at(model, None, usage)
    }

    /// What an answer of a model with this usage costs at the tier that served it; `None` is the
    /// standard one. A tier without a price costs an unknown amount.
    ///
    /// A dated name that has only the price of its alias costs at least that: nobody has said that
    /// this version costs what the alias does today (`gpt-4o-2024-05-13` costs more than `gpt-4o`).
    /// Where the alias is what was asked for, see [`cost_answered`](Self::cost_answered).
    #[must_use]
    pub fn cost_at(&self, model: &str, tier: Option<&str>, usage: &Usage) -> Cost {
        self.cost_answered("", model, tier, usage)
    }

    /// The same for an answer to a request for the model `asked`: the dated name of the alias that
    /// was asked for costs what the alias does, exactly.
    ///
    /// ```
    /// use tollgate_core::{price::{Cost, Price, PriceTable}, wire::usage::{Count, Usage}};
    ///
    /// let prices = PriceTable::new().with("m", Price::per_million("1", "10")?);
    /// let mut usage = Usage::default();
    /// usage.input = Count::Exact(1_000_000);
    /// let cost = |asked| prices.cost_answered(asked, "m-2024-08-06", None, &usage);
    /// assert_eq!(cost("m"), Cost::Exact("1".parse()?));
    /// assert_eq!(cost("m-2024-08-06"), Cost::AtLeast("1".parse()?));
    /// # Ok::<(), tollgate_core::price::InvalidPrice>(())
    /// ```
    #[must_use]
    pub fn cost_answered(
        &self,
        asked: &str,
        model: &str,
        tier: Option<&str>,
        usage: &Usage,
    ) -> Cost {
        let guessed = !self.models.contains_key(model) && undated(model) != Some(asked);
        let Some(model) = self.model(model) else {
            return Cost::Unknown;
        };
        let tier = tier.map_or(Cow::Borrowed(STANDARD), canonical);
        let input = usage.input.get().unwrap_or(0);
        let Some(row) = model.row(&tier, input) else {
            return Cost::Unknown;
        };
        let cost = row.price.cost(usage);
        let usual = model.row(STANDARD, input);
        // Long prompts are dearer at the standard tier, and this one does not say by how much.
        let longer = usual.is_some_and(|usual| usual.above > row.above);
        if guessed || longer {
            cost.at_least()
        } else {
            cost
        }
    }

    fn model(&self, name: &str) -> Option<&Model> {
        let exact = self.models.get(name);
        exact.or_else(|| self.models.get(undated(name)?))
    }
}

impl Model {
    fn row(&self, tier: &str, input: u64) -> Option<&Row> {
        let mut rows = self.rows.iter();
        rows.find(|row| *row.tier == *tier && (row.above == 0 || input > row.above))
    }
}

/// One name for each tier.
fn canonical(tier: &str) -> Cow<'_, str> {
    let usual = ["", STANDARD, "default", "auto", "on_demand"];
    if usual.iter().any(|name| tier.eq_ignore_ascii_case(name)) {
        Cow::Borrowed(STANDARD)
    } else if tier.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(tier.to_ascii_lowercase())
    } else {
        Cow::Borrowed(tier)
    }
}

/// `name-2024-07-18`, `name-20240718` or `name@20240718` without its date.
fn undated(model: &str) -> Option<&str> {
    let date = |text: &str, pattern: &[u8]| {
        text.len() == pattern.len()
            && text.bytes().zip(pattern).all(|(byte, kind)| match kind {
                b'0' => byte.is_ascii_digit(),
                dash => byte == *dash,
            })
    };
    for pattern in [&b"-0000-00-00"[..], b"-00000000", b"@00000000"] {
        let Some(at) = model.len().checked_sub(pattern.len()) else {
            continue;
        };
        if at > 0 && model.is_char_boundary(at) && date(&model[at..], pattern) {
            return Some(&model[..at]);
        }
    }
    None
}

/// The beginning of a day such as `2026-03-31`.
pub(super) fn day(text: &str) -> Option<SystemTime> {
    let at = time::rfc3339(&format!("{text}T00:00:00Z")).filter(|_| text.len() == 10)?;
    UNIX_EPOCH.checked_add(Duration::from_millis(u64::try_from(at).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::usage::Count;

    fn price(input: &str, output: &str) -> Price {
        Price::per_million(input, output).unwrap()
    }

    fn usage(input: u64, output: u64) -> Usage {
        Usage {
            input: Count::Exact(input),
            output: Count::Exact(output),
            ..Usage::default()
        }
    }

    // U15
    #[test]
    fn an_unpriced_model_costs_an_unknown_amount() {
        let mut used = Usage {
            input: Count::Exact(10),
            ..Usage::default()
        };
        assert_eq!(PriceTable::new().cost("m", &used), Cost::Unknown);
        let table = PriceTable::new().with("m", price("1", "2"));
        let none = table.cost("m", &Usage::default());
        assert_eq!(none, Cost::Unknown, "no usage, no cost");
        used.output = Count::AtLeast(5);
        let least = Cost::AtLeast("0.00002".parse().unwrap());
        assert_eq!(table.cost("m", &used), least);
    }

    // U14
    #[test]
    fn the_tier_that_served_sets_the_price_whatever_its_case() {
        let table = PriceTable::new()
            .with("m", price("2", "8"))
            .with_tier("m", "priority", price("3.5", "14"))
            .with_tier("m", "FLEX", price("1", "4"));
        let cost = |tier| table.cost_at("m", tier, &usage(1_000, 100));
        let exact = |dollars: &str| Cost::Exact(dollars.parse().unwrap());
        for standard in [None, Some("default"), Some("standard"), Some("ON_DEMAND")] {
            assert_eq!(cost(standard), exact("0.0028"));
        }
        assert_eq!(cost(Some("priority")), exact("0.0049"));
        assert_eq!(cost(Some("flex")), exact("0.0014"));
        assert_eq!(cost(Some("Flex")), exact("0.0014"));
        assert_eq!(cost(Some("scale")), Cost::Unknown, "a tier without a price");
    }

    // U14
    #[test]
    fn above_a_threshold_the_whole_call_has_the_long_price() {
        let table = PriceTable::new()
            .with("m", price("1", "10"))
            .with_tier("m", "batch", price("0.5", "5"))
            .with_above("m", "standard", 200_000, price("2", "15"))
            .with_above("m", "standard", 500_000, price("4", "30"));
        let exact = |dollars: &str| Cost::Exact(dollars.parse().unwrap());
        assert_eq!(table.cost("m", &usage(200_000, 10)), exact("0.2001"));
        assert_eq!(table.cost("m", &usage(200_001, 10)), exact("0.400152"));
        assert_eq!(table.cost("m", &usage(500_001, 10)), exact("2.000304"));
        let batch = |input| table.cost_at("m", Some("batch"), &usage(input, 0));
        assert_eq!(batch(200_000), exact("0.1"));
        let least = Cost::AtLeast("0.1000005".parse().unwrap());
        assert_eq!(batch(200_001), least, "nobody said what a long batch costs");
    }

    #[test]
    fn the_dearest_price_covers_every_row() {
        let table = PriceTable::new()
            .with("m", price("1", "10").cached("0.1").unwrap())
            .with_tier("m", "priority", price("3", "9"));
        let dearest = table.dearest("m").unwrap();
        assert_eq!(dearest, price("3", "10").cached("3").unwrap());
        assert_eq!(table.dearest("x"), None);
    }

    #[test]
    fn a_retirement_is_a_day() {
        let table = PriceTable::new().with_retirement("m", "2026-11-22");
        let days = Duration::from_secs(20_779 * 86_400);
        assert_eq!(table.retires_at("m"), Some(UNIX_EPOCH + days));
        let table = table.with_retirement("m", "soon");
        assert_eq!(table.retires_at("m"), None);
    }

    #[test]
    fn a_dated_name_is_found_under_its_alias_unless_it_has_a_row_of_its_own() {
        let table = PriceTable::new()
            .with("m", price("1", "1"))
            .with("m-2024-05-13", price("5", "5"));
        let input = |name: &str| table.get(name).map(|price| price.input);
        assert_eq!(input("m-2024-08-06"), input("m"));
        assert_eq!(input("m-20240806"), input("m"));
        assert_eq!(input("m@20240806"), input("m"));
        assert_eq!(input("m-2024-05-13"), Some(price("5", "5").input));
        assert_eq!(input("m-mini"), None);
        assert_eq!(input("-2024-08-06"), None);
    }
    #[test]
    fn the_price_of_an_alias_is_exact_only_for_who_asked_for_the_alias() {
        let table = PriceTable::new()
            .with("m", price("1", "1"))
            .with("m-2024-05-13", price("5", "5"));
        let cost = |asked: &str, served: &str| {
            table.cost_answered(asked, served, None, &usage(1_000_000, 0))
        };
        let (one, five) = ("1".parse().unwrap(), "5".parse().unwrap());
        assert_eq!(cost("m", "m-2024-08-06"), Cost::Exact(one));
        assert_eq!(cost("m", "m-20240806"), Cost::Exact(one));
        assert_eq!(cost("m-2024-08-06", "m-2024-08-06"), Cost::AtLeast(one));
        assert_eq!(cost("mine", "m-2024-08-06"), Cost::AtLeast(one));
        assert_eq!(cost("m", "m-2024-05-13"), Cost::Exact(five));
        let unasked = table.cost("m-2024-08-06", &usage(1_000_000, 0));
        assert_eq!(unasked, Cost::AtLeast(one));
        assert_eq!(cost("m", "m"), Cost::Exact(one));
    }
}
