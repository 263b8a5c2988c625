//! What is said at the end.
use std::{fmt::Write as _, time::Duration};

use crate::tally::Tally;

/// The numbers of a run.
pub struct Summary<'a> {
    /// Counted on the way.
    pub tally: &'a Tally,
    /// From the first row to the last line.
    pub wall: Duration,
    /// Answers in the output whose rows are not in the input.
    pub strangers: u64,
}

impl Summary<'_> {
    /// The whole text, a number a line.
    pub fn text(&self) -> String {
        let tally = self.tally;
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "{name:<22}{value}");
        };
        let rows = match tally.skipped.get() {
            0 => tally.rows.get().to_string(),
            skipped => format!(
                "{} ({skipped} answered by an earlier run)",
                tally.rows.get()
            ),
        };
        line("rows", rows);
        line("results", tally.results.get().to_string());
        line("errors", tally.errors.get().to_string());
        if tally.abandoned.get() > 0 {
            line("left for --resume", tally.abandoned.get().to_string());
        }
        if self.strangers > 0 {
            line("answers without row", self.strangers.to_string());
        }
        line("requests sent", tally.sent.get().to_string());
        line("429s", tally.limited.get().to_string());
        line("retries", tally.again.get().to_string());
        line("fallbacks", tally.fallbacks.get().to_string());
        line("wall time", format!("{:.1} s", self.wall.as_secs_f64()));
        out
    }
}
