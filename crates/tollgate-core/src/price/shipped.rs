//! The table that comes with this crate.
use super::PriceTable;

const TABLE: &str = include_str!("../../prices/prices.json");

impl PriceTable {
    /// The prices that come with this crate: the usual models of OpenAI, Anthropic, Google, Mistral, Groq, xAI, Cohere and some of
    /// Bedrock, as the providers listed them on the [day](super::About::date) that it names.
    ///
    /// Prices change: look at its date, and put your own in the place of what has changed. What could not be confirmed is not in it,
    /// and what depends on the hour of the day (DeepSeek) has no place in it; such models cost an unknown amount. Each row of the
    /// file, `prices/prices.json`, names the page that it was read from.
    ///
    /// ```
    /// use tollgate_core::price::{Price, PriceTable};
    ///
    /// let prices = PriceTable::shipped();
    /// assert!(prices.get("gpt-5-mini-2025-08-07").is_some());
    /// println!("prices of {}", prices.about().date);
    /// // One's own price goes before.
    /// let prices = prices.with("gpt-5-mini", Price::per_million("0.20", "1.60")?);
    /// # drop(prices);
    /// # Ok::<(), tollgate_core::price::InvalidPrice>(())
    /// ```
    #[must_use]
    pub fn shipped() -> Self {
        Self::from_json(TABLE).expect("a table that the tests have read")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::Value;

    use super::*;
    use crate::price::Pico;

    fn rows() -> Vec<Value> {
        let file: Value = serde_json::from_str(TABLE).unwrap();
        file["prices"].as_array().unwrap().clone()
    }

    fn price(row: &Value, kind: &str) -> Option<Pico> {
        Some(row[kind].as_str()?.parse().unwrap())
    }

    // U14
    #[test]
    fn every_row_makes_sense() {
        // The loader refuses unknown members, negative and inexact prices, and rows that are there twice.
        let table = PriceTable::shipped();
        assert!(table.len() > 80);
        for row in rows() {
            let model = row["model"].as_str().unwrap();
            let input = price(&row, "input").unwrap();
            assert!(input > Pico::ZERO, "{model} is free");
            assert!(
                price(&row, "cached_input").is_none_or(|cached| cached <= input),
                "{model}"
            );
            let write = price(&row, "cache_write");
            assert!(write.is_none_or(|write| write >= input), "{model}");
            assert!(
                price(&row, "cache_write_1h") >= write || row.get("cache_write_1h").is_none(),
                "{model}"
            );
            assert!(
                price(&row, "output").is_none_or(|output| output >= input),
                "{model}"
            );
            let source = row["source"].as_str().unwrap();
            assert!(
                source.starts_with("https://") && source.contains("(20"),
                "{model} names page and date"
            );
        }
    }

    // U14
    #[test]
    fn batches_are_cheaper_than_usual_and_priority_and_long_prompts_are_dearer() {
        let rows = rows();
        let standard: HashMap<_, _> = rows
            .iter()
            .filter(|row| row.get("tier").is_none() && row.get("above").is_none())
            .map(|row| (row["model"].as_str().unwrap(), row))
            .collect();
        let mut others = 0;
        for row in &rows {
            let model = row["model"].as_str().unwrap();
            let usual = standard[model];
            for kind in [
                "input",
                "cached_input",
                "cache_write",
                "cache_write_1h",
                "output",
            ] {
                let (Some(other), Some(usual)) = (price(row, kind), price(usual, kind)) else {
                    continue;
                };
                match (row["tier"].as_str(), row["above"].as_u64()) {
                    (None, None) => {}
                    (Some("batch"), None) => {
                        assert_eq!(other.get() * 2, usual.get(), "{model} {kind}");
                    }
                    (Some("priority"), None) | (None, Some(_)) => {
                        assert!(
                            other > usual && other.get() <= usual.get() * 3,
                            "{model} {kind}"
                        );
                    }
                    other => panic!("{model} has a row for {other:?}"),
                }
                others += 1;
            }
        }
        assert!(others > 200);
    }
}
