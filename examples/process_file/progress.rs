//! Shows how far the run is: a bar on a terminal, a line now and then elsewhere.
use std::{cell::Cell, io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, interval};

use crate::tally::Tally;

/// How often a line is written where there is no terminal.
const EVERY: Duration = Duration::from_secs(5);

/// The display, on stderr.
pub struct Progress {
    bar: Option<ProgressBar>,
    tally: Tally,
    rows: u64,
    began: Instant,
    shown: Cell<u64>,
}

impl Progress {
    /// For a file of so many lines.
    pub fn new(tally: Tally, rows: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let target = ProgressDrawTarget::stderr_with_hz(5);
            let style = "{bar:30} {pos}/{len} rows  {elapsed_precise}  {msg}";
            ProgressBar::with_draw_target(Some(rows), target).with_style(
                ProgressStyle::with_template(style)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            )
        });
        Self {
            bar,
            tally,
            rows,
            began: Instant::now(),
            shown: Cell::new(u64::MAX),
        }
    }

    /// Follows the tally for as long as it is polled.
    pub async fn follow(&self) -> std::convert::Infallible {
        let every = match &self.bar {
            Some(_) => Duration::from_millis(200),
            None => EVERY,
        };
        let mut ticks = interval(every);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.show();
        }
    }

    /// Shows the last state.
    pub fn finish(&self) {
        self.show();
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }

    /// Says something in between.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    fn show(&self) {
        let tally = &self.tally;
        let (results, errors) = (tally.results.get(), tally.errors.get());
        let done = results + errors + tally.skipped.get();
        let sent = tally.sent.get();
        let limited = tally.limited.get();
        match &self.bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(format!("{errors} errors, {sent} sent, {limited} refused"));
            }
            None if self.shown.replace(done) != done => {
                let (rows, took) = (self.rows, self.began.elapsed().as_secs());
                eprintln!(
                    "{done} of {rows} rows after {took} s: {results} results, {errors} errors, \
                     {sent} requests sent, {limited} of them refused"
                );
            }
            None => {}
        }
    }
}
