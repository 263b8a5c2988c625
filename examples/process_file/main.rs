//! Runs every row of a JSONL file against an LLM API: the job that every team writes by hand once.
//!
//! ```sh
//! # A bundled sample against a simulated provider with tight limits:
//! cargo run --release --example process_file
//!
//! # A file against a provider:
//! cargo run --release --example process_file -- \
//!     --input prompts.jsonl --output answers.jsonl --rpm 500 --tpm 200000 --fallback gpt-5-mini
//! ```
//!
//! A row is a request body as it would be posted. With `messages` it goes to chat/completions, with `input` and an
//! embeddings model to embeddings, with `input` otherwise to responses; its `metadata` is yours, is not sent, and
//! comes back. Lines of OpenAI's Batch file format are read too and are answered in its output form. The output has
//! one line for each row, in the order in which they finish:
//!
//! ```json
//! {"metadata": {"id": 7}, "request": {"model": "…"}, "response": {"choices": ["…"]}}
//! {"metadata": {"id": 8}, "request": {"model": "…"}, "error": {"type": "…", "message": "…", "status": 400, "attempts": 1}}
//! ```
//!
//! A run that was stopped or killed loses no line that it has written, and `--resume` goes on from there.
//!
//! How it is made: [`rows`] reads a row when there is room for it, [`run`] sends it through the layers of
//! [`client`], [`output`] writes its line, [`resume`] reads those lines again.
#![allow(unreachable_pub)] // a program has no API: `pub` here means "for the other files"

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use tokio::time::Instant;
use tollgate::{Ledger, RetryStats, UsageTotals};

use crate::{
    args::{Args, Job},
    progress::Progress,
    rows::Rows,
    run::Run,
    stop::{STOPPED, Stop},
    summary::Summary,
    tally::Tally,
    target::Target,
};

mod answer;
mod args;
mod client;
mod files;
mod json;
mod output;
mod progress;
mod resume;
mod rows;
mod run;
mod sim;
mod stop;
mod summary;
mod tally;
mod target;
mod wire;

/// The run broke off.
const BROKE_OFF: u8 = 1;
/// The run could not begin.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    let job = match Args::read().and_then(Args::job) {
        Ok(job) => job,
        Err(sentence) => return fail(UNUSABLE, &sentence),
    };
    // One thread serves hundreds of calls; they spend their time waiting.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(process(job)),
        Err(error) => fail(BROKE_OFF, &format!("cannot start: {error}")),
    }
}

async fn process(mut job: Job) -> ExitCode {
    // Dropped, it stops.
    let mut provider = None;
    let target = match job.target.take() {
        Some(target) => target,
        None => match sim::start().await {
            Ok(server) => {
                job.requests.get_or_insert(sim::REQUESTS);
                job.tokens.get_or_insert(sim::TOKENS);
                job.window = sim::WINDOW;
                let target = Target::new(&provider.insert(server).url(), None);
                match target {
                    Ok(target) => target,
                    Err(sentence) => return fail(BROKE_OFF, &sentence),
                }
            }
            Err(error) => return fail(BROKE_OFF, &format!("no simulated provider: {error}")),
        },
    };
    let prepared = client::budget(&job).and_then(|budget| {
        let chain = client::chain(&job)?;
        let input = files::input(job.input.as_deref())?;
        let (output, done) = files::output(&job)?;
        let ledger = job.ledger.as_ref().map(Ledger::open).transpose();
        let ledger = ledger.map_err(|error| format!("--ledger: {error}"))?;
        Ok((budget, chain, input, output, done, ledger))
    });
    let (budget, chain, input, output, done, ledger) = match prepared {
        Ok(prepared) => prepared,
        Err(sentence) => return fail(UNUSABLE, &sentence),
    };
    if provider.is_some() {
        eprintln!(
            "a sample against a simulated provider; the answers go to {}",
            job.output.display()
        );
    }
    let tally = Tally::default();
    let usage = UsageTotals::new();
    let retries = RetryStats::new();
    let stop = Stop::default();
    let progress = Progress::new(tally.clone(), input.lines);
    let stack = client::Stack {
        budget: budget.clone(),
        usage: usage.clone(),
        retries: retries.clone(),
        ledger: ledger.clone(),
        tally: tally.clone(),
        max_attempts: job.max_attempts,
        concurrency: job.concurrency,
        timeout: job.timeout,
    };
    let run = Run {
        rows: Rows::new(input.rows, job.endpoint.clone()),
        done,
        target,
        output,
        concurrency: job.concurrency,
        max_attempts: job.max_attempts,
        tally: tally.clone(),
        stop: stop.clone(),
    };
    let began = Instant::now();
    // As a task of its own, for what wakes a task on its own thread costs no system call.
    let run = match chain {
        Some(chain) => tokio::spawn(run.drive(stack.with_fallback(chain))),
        None => tokio::spawn(run.drive(stack.plain())),
    };
    let outcome = tokio::select! {
        outcome = run => outcome.unwrap_or_else(|panic| Err(io::Error::other(panic))),
        Err(error) = stop.follow_signals(&progress) => Err(error),
        never = progress.follow() => match never {},
    };
    progress.finish();
    let summary = Summary {
        tally: &tally,
        usage: usage.snapshot().all,
        retries: retries.snapshot(),
        budget: budget.snapshot(),
        wall: began.elapsed(),
        strangers: *outcome.as_ref().unwrap_or(&0),
    };
    let _ = io::stdout().write_all(summary.text().as_bytes());
    if let Some(ledger) = ledger {
        // The process waits for no other thread.
        if let Err(error) = ledger.flush(Duration::from_secs(10)).await {
            eprintln!("process_file: {error}");
        }
    }
    match outcome {
        Err(error) => fail(BROKE_OFF, &format!("the run broke off: {error}")),
        Ok(_) if stop.stopped() => ExitCode::from(STOPPED),
        Ok(_) => ExitCode::SUCCESS,
    }
}

fn fail(code: u8, sentence: &str) -> ExitCode {
    eprintln!("process_file: {sentence}");
    ExitCode::from(code)
}
