//! What the usual models cost, in dollars per million tokens.
use tollgate::price::{InvalidPrice, Price, PriceTable};

/// Input, cached input and output, as listed in mid-2025. Prices change: see to your own.
const LISTED: [(&str, &str, &str, &str); 10] = [
    ("gpt-4.1", "2", "0.5", "8"),
    ("gpt-4.1-mini", "0.4", "0.1", "1.6"),
    ("gpt-4.1-nano", "0.1", "0.025", "0.4"),
    ("gpt-4o", "2.5", "1.25", "10"),
    ("gpt-4o-mini", "0.15", "0.075", "0.6"),
    ("gpt-5", "1.25", "0.125", "10"),
    ("gpt-5-mini", "0.25", "0.025", "2"),
    ("gpt-5-nano", "0.05", "0.005", "0.4"),
    ("text-embedding-3-large", "0.13", "0.13", "0"),
    ("text-embedding-3-small", "0.02", "0.02", "0"),
];

/// The table. A model that is not in it costs an unknown amount.
pub fn table() -> Result<PriceTable, InvalidPrice> {
    LISTED.iter().try_fold(
        PriceTable::new(),
        |table, (model, input, cached, output)| {
            Ok(table.with(*model, Price::per_million(input, output)?.cached(cached)?))
        },
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_price_is_a_number() {
        assert!(
            super::table()
                .unwrap()
                .get("gpt-4o-mini-2024-07-18")
                .is_some()
        );
    }
}
