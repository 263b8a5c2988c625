//! What is said at the end.
use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use tollgate::{
    budget::{BudgetSnapshot, Enforcement, LimitSnapshot, Scope, Unit},
    price::Pico,
    retry::RetrySnapshot,
    usage::Totals,
};

use crate::tally::Tally;

/// The numbers of a run.
pub struct Summary<'a> {
    /// Counted on the way.
    pub tally: &'a Tally,
    /// Tokens and money.
    pub usage: Totals,
    /// Attempts.
    pub retries: RetrySnapshot,
    /// The limits.
    pub budget: BudgetSnapshot,
    /// From the first row to the last line.
    pub wall: Duration,
    /// Answers in the output whose rows are not in the input.
    pub strangers: u64,
}

impl Summary<'_> {
    /// The whole text, a number a line.
    pub fn text(&self) -> String {
        let tally = self.tally;
        let mut text = Lines::default();
        match tally.skipped.get() {
            0 => text.line("rows", tally.rows.get()),
            skipped => text.line(
                "rows",
                format_args!(
                    "{} ({skipped} answered by an earlier run)",
                    tally.rows.get()
                ),
            ),
        }
        text.line("results", tally.results.get());
        text.line("errors", tally.errors.get());
        if tally.abandoned.get() > 0 {
            text.line("left for --resume", tally.abandoned.get());
        }
        if self.strangers > 0 {
            text.line("answers without a row", self.strangers);
        }
        text.line("requests sent", tally.sent.get());
        text.line("429s", tally.limited.get());
        text.line("retries", tally.again.get());
        text.line("failed attempts", self.retries.failed);
        text.line("tokens wasted at most", self.retries.tokens_at_risk);
        text.line("fallbacks", tally.fallbacks.get());
        text.line("tokens in", self.usage.input);
        text.line("tokens out", self.usage.output);
        text.line("cost", self.cost());
        let work: Vec<_> = self
            .budget
            .limits
            .iter()
            .filter_map(|limit| self.work(limit))
            .collect();
        for work in &work {
            text.line(
                "share of the limit used",
                format_args!(
                    "{:.1} % of {} {}",
                    work.share(tally.times.span()) * 100.0,
                    work.amount,
                    work.name
                ),
            );
        }
        text.line(
            "wall time",
            format_args!("{:.1} s", self.wall.as_secs_f64()),
        );
        match work.iter().max_by_key(|work| work.least()) {
            None => text.line("least possible", "not known: no limit was told or seen"),
            Some(work) if work.least().is_zero() => {
                text.line(
                    "least possible",
                    "one answer's time: the limits hold all the work at once",
                );
            }
            Some(work) => {
                let least = work.least().as_secs_f64();
                let times = self.wall.as_secs_f64() / least;
                text.line(
                    "least possible",
                    format_args!(
                        "{least:.1} s, bound by {}; this run took {times:.2} times that",
                        work.name
                    ),
                );
            }
        }
        text.0
    }

    fn cost(&self) -> String {
        let usage = &self.usage;
        let priced = usage.cost != Pico::ZERO || usage.unpriced == 0;
        let mut text = if priced {
            format!("${}", usage.cost)
        } else {
            "unknown".to_owned()
        };
        if priced && usage.cost_at_least + usage.unknown_usage > 0 {
            text.insert_str(0, "at least ");
        }
        if usage.unpriced > 0 {
            let _ = write!(
                text,
                " ({} answers of models without a price)",
                usage.unpriced
            );
        }
        text
    }

    /// What went through a limit; `None` for one that counts what was not counted here.
    fn work(&self, limit: &LimitSnapshot) -> Option<Work> {
        let accepted = match (limit.scope, &limit.key) {
            (Scope::Global, _) => self.tally.accepted.of(None),
            (Scope::Model, Some(model)) => self.tally.accepted.of(Some(model)),
            _ => return None,
        };
        let units = match limit.unit {
            Unit::Requests => accepted.requests,
            Unit::Tokens => accepted.tokens,
            _ => return None,
        };
        let of = limit
            .key
            .as_deref()
            .map_or(String::new(), |key| format!(" of {key}"));
        Some(Work {
            name: format!("{}{of}", limit.name),
            units,
            amount: limit.limit.max(1),
            window: limit.period,
            enforcement: limit.enforcement,
        })
    }
}

/// The work that one limit has let through.
struct Work {
    name: String,
    units: u64,
    amount: u64,
    window: Duration,
    enforcement: Enforcement,
}

#[allow(clippy::cast_precision_loss)] // for people to read
impl Work {
    /// The least time from the first request to the last.
    fn least(&self) -> Duration {
        let windows = match self.enforcement {
            Enforcement::Bucket { burst } => {
                let beyond = self.units.saturating_sub(burst.unwrap_or(self.amount));
                beyond as f64 / self.amount as f64
            }
            _ => self.units.div_ceil(self.amount).saturating_sub(1) as f64,
        };
        self.window.mul_f64(windows)
    }

    /// What was used of that which the limit would have let through in this time.
    fn share(&self, span: Duration) -> f64 {
        let windows = span.as_secs_f64() / self.window.as_secs_f64();
        let open = match self.enforcement {
            Enforcement::Bucket { burst } => {
                windows + burst.unwrap_or(self.amount) as f64 / self.amount as f64
            }
            _ => windows.floor() + 1.0,
        };
        self.units as f64 / (self.amount as f64 * open)
    }
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, name: &str, value: impl fmt::Display) {
        let _ = writeln!(self.0, "{name:<26}{value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(units: u64, enforcement: Enforcement) -> Work {
        Work {
            name: "requests".into(),
            units,
            amount: 100,
            window: Duration::from_secs(6),
            enforcement,
        }
    }

    #[test]
    fn the_last_window_need_not_pass() {
        for (units, seconds) in [(0, 0), (100, 0), (101, 6), (200, 6), (201, 12)] {
            let least = work(units, Enforcement::Rolling).least();
            assert_eq!(least, Duration::from_secs(seconds), "{units}");
        }
        let bucket = work(150, Enforcement::Bucket { burst: None });
        assert_eq!(bucket.least(), Duration::from_secs(3));
        assert_eq!(bucket.share(Duration::from_secs(3)), 1.0);
        let rolling = work(200, Enforcement::Rolling);
        assert_eq!(rolling.share(Duration::from_millis(6_100)), 1.0);
    }
}
