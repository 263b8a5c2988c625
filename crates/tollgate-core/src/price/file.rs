//! Price tables as files.
use std::{collections::HashSet, error::Error, fmt};

use serde::{Deserialize, de::IgnoredAny};

use super::{InvalidPrice, Price, PriceTable, rate::million, table::day};

/// Where a table comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct About {
    /// Its version.
    pub version: Box<str>,
    /// The day on which its prices were looked up, as `2026-03-31`.
    pub date: Box<str>,
    /// Where they were looked up.
    pub source: Box<str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'a> {
    version: Box<str>,
    date: Box<str>,
    source: Box<str>,
    #[serde(borrow)]
    prices: Vec<Row<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row<'a> {
    model: Box<str>,
    #[serde(default, borrow)]
    also: Vec<&'a str>,
    tier: Option<&'a str>,
    above: Option<u64>,
    input: &'a str,
    cached_input: Option<&'a str>,
    cache_write: Option<&'a str>,
    cache_write_1h: Option<&'a str>,
    audio_input: Option<&'a str>,
    output: Option<&'a str>,
    reasoning: Option<&'a str>,
    audio_output: Option<&'a str>,
    #[serde(default)]
    fees: bool,
    retires: Option<&'a str>,
    /// For the reader of the file.
    #[serde(default, rename = "source")]
    _source: IgnoredAny,
}

impl Row<'_> {
    fn price(&self) -> Result<Price, InvalidPrice> {
        let part = |price: Option<&str>| price.map(million).transpose();
        Ok(Price {
            input: million(self.input)?,
            cached_input: part(self.cached_input)?,
            cache_write: part(self.cache_write)?,
            cache_write_1h: part(self.cache_write_1h)?,
            audio_input: part(self.audio_input)?,
            // Embeddings have no output.
            output: part(self.output)?.unwrap_or_default(),
            reasoning: part(self.reasoning)?,
            audio_output: part(self.audio_output)?,
            fees: self.fees,
        })
    }
}

impl PriceTable {
    /// Reads a table from JSON.
    ///
    /// Each row has a model, an `input` price and mostly an `output` price, in dollars per million
    /// tokens, as decimal strings (a JSON number would be rounded). The rest may be left out:
    ///
    /// | member | meaning |
    /// |---|---|
    /// | `also` | other names of the model with the same price |
    /// | `tier` | `batch`, `flex`, `priority` …; without it the standard tier |
    /// | `above` | the row is for prompts of more than this many tokens |
    /// | `cached_input`, `cache_write`, `cache_write_1h`, `audio_input`, `reasoning`, `audio_output` | prices of parts; see [`Price`] |
    /// | `fees` | true: calls cost something beside their tokens |
    /// | `retires` | the day from which on the model is no longer served |
    /// | `source` | where this row was looked up |
    ///
    /// ```
    /// use tollgate_core::price::PriceTable;
    ///
    /// let prices = PriceTable::from_json(r#"{
    ///     "version": "7", "date": "2026-03-31", "source": "https://example.com/pricing",
    ///     "prices": [
    ///         {"model": "m-1", "also": ["m-1-latest"], "input": "1.25", "cached_input": "0.125", "output": "10"},
    ///         {"model": "m-1", "tier": "batch", "input": "0.625", "output": "5"},
    ///         {"model": "m-1", "above": 200000, "input": "2.50", "output": "15"},
    ///         {"model": "embed-1", "input": "0.02", "retires": "2027-01-01"}
    ///     ]
    /// }"#)?;
    /// assert_eq!((&*prices.about().version, prices.len()), ("7", 3));
    /// assert_eq!(prices.retires("embed-1"), Some("2027-01-01"));
    /// # Ok::<(), tollgate_core::price::InvalidTable>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If it is not such a document; if it has an unknown member, a price that is not exact, a day
    /// that is none, the same row twice, or a model without a standard row.
    pub fn from_json(text: &str) -> Result<Self, InvalidTable> {
        let file: File<'_> =
            serde_json::from_str(text).map_err(|error| InvalidTable(error.to_string().into()))?;
        check_day(&file.date)?;
        let mut table = Self::new();
        let mut names = HashSet::new();
        for row in &file.prices {
            let fail = |what: &str| InvalidTable(format!("{}: {what}", row.model).into());
            let price = row.price().map_err(|error| fail(&error.to_string()))?;
            let tier = row.tier.unwrap_or_default();
            let also = row.also.iter().map(|name| Box::from(*name));
            for name in std::iter::once(row.model.clone()).chain(also) {
                names.insert(name.clone());
                if !table.insert(name.clone(), tier, row.above.unwrap_or(0), price) {
                    return Err(fail(&format!("{name:?} has this row twice")));
                }
                if let Some(retires) = row.retires {
                    check_day(retires)?;
                    table = table.with_retirement(name, retires);
                }
            }
        }
        if let Some(name) = names.iter().find(|name| table.get(name).is_none()) {
            let text = format!("{name:?} has no row for the standard tier and ordinary prompts");
            return Err(InvalidTable(text.into()));
        }
        table.describe(About {
            version: file.version,
            date: file.date,
            source: file.source,
        });
        Ok(table)
    }
}

/// Whether a text is a day such as `2026-03-31`.
fn check_day(text: &str) -> Result<(), InvalidTable> {
    if day(text).is_some() {
        return Ok(());
    }
    let text: String = text.chars().take(40).collect();
    let text = format!("{text:?} is not a day such as 2026-03-31");
    Err(InvalidTable(text.into()))
}

/// A price table that cannot be read, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidTable(Box<str>);

impl fmt::Display for InvalidTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the price table cannot be used: {}", self.0)
    }
}

impl Error for InvalidTable {}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &str) -> Result<PriceTable, InvalidTable> {
        let file = r#"{"version": "1", "date": "2026-03-31", "source": "s", "prices": [ROWS]}"#;
        PriceTable::from_json(&file.replace("ROWS", rows))
    }

    #[test]
    fn a_row_sets_what_it_names() {
        let table = table(
            r#"{"model": "m", "also": ["n"], "input": "1", "cached_input": "0.1", "cache_write": "1.25",
                "cache_write_1h": "2", "audio_input": "5", "output": "8", "reasoning": "9", "audio_output": "16",
                "source": "a page"}"#,
        )
        .unwrap();
        let price = Price::per_million("1", "8").unwrap().cached("0.1").unwrap();
        let price = price.cache_write("1.25").unwrap();
        let price = price.cache_write_1h("2").unwrap();
        let price = price.audio("5", "16").unwrap().reasoning("9").unwrap();
        assert_eq!(table.get("m"), Some(&price));
        assert_eq!(table.get("n"), Some(&price));
    }

    #[test]
    fn what_is_wrong_is_said_in_a_sentence() {
        let row = r#"{"model": "m", "input": "1"}"#;
        for (rows, what) in [
            (format!("{row}, {row}"), "twice"),
            (r#"{"model": "m", "input": 1.5}"#.into(), "string"),
            (r#"{"model": "m", "input": "1e3"}"#.into(), "1e3"),
            (
                r#"{"model": "m", "input": "1", "inptu": "2"}"#.into(),
                "inptu",
            ),
            (
                r#"{"model": "m", "tier": "batch", "input": "1"}"#.into(),
                "standard",
            ),
            (
                r#"{"model": "m", "input": "1", "retires": "2026-13-01"}"#.into(),
                "2026-13-01",
            ),
        ] {
            let error = table(&rows).expect_err(&rows).to_string();
            assert!(error.contains(what), "{error} should name {what}");
        }
    }
}
