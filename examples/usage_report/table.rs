//! A table, for the terminal and for the page.
use tollgate_ledger::Sums;

use crate::format::{cost, count, length, share};

/// Rows that a table shows; what is left is summed up in one more.
const ROWS: usize = 30;

/// Head and rows. The first column is text, the others are numbers.
#[derive(Clone, Debug)]
pub struct Table {
    /// What it is about.
    pub title: String,
    /// One for each column.
    pub head: Vec<String>,
    /// As many cells as the head has.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// The sums of each value of something, most important first.
    pub fn of_sums(
        title: &str,
        column: &str,
        nameless: &str,
        sums: Vec<(Option<String>, Sums)>,
    ) -> Self {
        let head = [
            column,
            "calls",
            "requests",
            "failed",
            "input tokens",
            "cached",
            "output tokens",
            "cost",
            "unpriced",
            "mean duration",
        ];
        let all = sums.len();
        let mut rest = Sums::default();
        let mut rows = Vec::new();
        for (at, (name, sums)) in sums.into_iter().enumerate() {
            if at < ROWS {
                rows.push(row(name.as_deref().unwrap_or(nameless), &sums));
            } else {
                rest += sums;
            }
        }
        if all > ROWS {
            rows.push(row(&format!("{} others", all - ROWS), &rest));
        }
        Self {
            title: title.to_owned(),
            head: head.map(str::to_owned).to_vec(),
            rows,
        }
    }
}

fn row(name: &str, sums: &Sums) -> Vec<String> {
    let calls = u32::try_from(sums.records).unwrap_or(u32::MAX).max(1);
    vec![
        name.to_owned(),
        count(sums.records),
        count(sums.requests),
        share(sums.failed, sums.records),
        count(sums.input),
        count(sums.cached_input),
        count(sums.output),
        cost(sums),
        count(sums.unpriced),
        length(sums.duration / calls),
    ]
}
