//! Sums over records that lose nothing.
use std::{ops::AddAssign, time::Duration};

use rusqlite::Row;
use tollgate_core::price::Pico;

use crate::{row::COST_BIT, select::Select};

/// What the records of a selection come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sums {
    /// Records.
    pub records: u64,
    /// Requests that were sent for them. Of calls that a layer of ours refused in the end it is not known how many were sent
    /// before; [`Select::sent`] knows where a recorder stands inside the budget.
    pub requests: u64,
    /// Requests that the provider refused for a limit.
    pub rate_limited: u64,
    /// Records whose outcome is not `ok`.
    pub failed: u64,
    /// Records of answers that were not received whole.
    pub partial: u64,
    /// Input tokens, as far as known.
    pub input: u128,
    /// Input tokens read from a cache; part of `input`.
    pub cached_input: u128,
    /// Output tokens, as far as known; those that were only estimated from what was received included.
    pub output: u128,
    /// Reasoning tokens; part of `output`.
    pub reasoning: u128,
    /// What it cost, as far as known.
    pub cost: Pico,
    /// Records whose cost is not known. Not in `cost`.
    pub unpriced: u64,
    /// Records whose cost is a lower bound. In `cost`.
    pub cost_at_least: u64,
    /// From begin to end, all together.
    pub duration: Duration,
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        let add = |mine: &mut u64, theirs: u64| *mine = mine.saturating_add(theirs);
        add(&mut self.records, other.records);
        add(&mut self.requests, other.requests);
        add(&mut self.rate_limited, other.rate_limited);
        add(&mut self.failed, other.failed);
        add(&mut self.partial, other.partial);
        add(&mut self.unpriced, other.unpriced);
        add(&mut self.cost_at_least, other.cost_at_least);
        self.input = self.input.saturating_add(other.input);
        self.cached_input = self.cached_input.saturating_add(other.cached_input);
        self.output = self.output.saturating_add(other.output);
        self.reasoning = self.reasoning.saturating_add(other.reasoning);
        self.cost = self.cost + other.cost;
        self.duration = self.duration.saturating_add(other.duration);
    }
}

impl Sums {
    /// Input and output tokens.
    #[must_use]
    pub fn tokens(&self) -> u128 {
        self.input.saturating_add(self.output)
    }

    /// The columns, the same in every query.
    pub(crate) fn columns(select: &Select) -> String {
        // SQLite's sum() fails on overflow, and its total() is a float. Two halves fit for 2^31 records.
        let exact = |column: &str| {
            format!("coalesce(sum(({column}) >> 31), 0), coalesce(sum(({column}) & 2147483647), 0)")
        };
        let output = "max(coalesce(output, 0), coalesce(estimated_output, 0))";
        [
            "count(*)".to_owned(),
            format!("coalesce(sum({}), 0)", select.requests()),
            "coalesce(sum(outcome IS NOT 'ok'), 0)".to_owned(),
            "coalesce(sum(completion <> 'complete'), 0)".to_owned(),
            "coalesce(sum(cost_pico IS NULL), 0)".to_owned(),
            format!("coalesce(sum(bounds >> {COST_BIT} & 1), 0)"),
            exact("input"),
            exact("cached_input"),
            exact(output),
            exact("reasoning"),
            exact("cost_pico"),
            exact("duration_us"),
            format!("coalesce(sum({}), 0)", select.rate_limited()),
        ]
        .join(", ")
    }

    /// Reads the columns from `at` on.
    pub(crate) fn read(row: &Row<'_>, at: usize) -> rusqlite::Result<Self> {
        let count = |column: usize| row.get::<_, i64>(at + column).map(i64::unsigned_abs);
        let exact = |column: usize| -> rusqlite::Result<u128> {
            let (high, low) = (count(column)?, count(column + 1)?);
            Ok((u128::from(high) << 31) + u128::from(low))
        };
        Ok(Self {
            records: count(0)?,
            requests: count(1)?,
            rate_limited: count(18)?,
            failed: count(2)?,
            partial: count(3)?,
            unpriced: count(4)?,
            cost_at_least: count(5)?,
            input: exact(6)?,
            cached_input: exact(8)?,
            output: exact(10)?,
            reasoning: exact(12)?,
            cost: Pico::new(exact(14)?),
            duration: Duration::from_micros(u64::try_from(exact(16)?).unwrap_or(u64::MAX)),
        })
    }
}
