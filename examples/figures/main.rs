//! Measures `process_file` against the simulated provider, each in a process of its own, over loopback.
//!
//! ```sh
//! cargo run --release --example figures                                  # rolling, bucket and fixed, seeds 1 to 3
//! cargo run --release --example figures -- --rows unknown,twice --seeds 1
//! cargo run --release --example figures -- --list
//! ```
//!
//! # The job
//!
//! Unless a row says otherwise: 2,000 chat calls, prompts of lognormal length (median 120 tokens of four characters,
//! sigma 0.5), `max_tokens` one of 64, 128, 256, 512 and 1,024, against 455 requests and 220,000 tokens in each
//! window of 6 s, so that both limits bind and the work fills five windows. The provider charges characters / 4 +
//! `max_tokens` when a request arrives, gives nothing back, counts refused requests, and answers after a time of
//! lognormal length (median 250 ms, sigma 0.4). Concurrency 512. The seed draws the job and the provider's times.
//! The books begin with the run, so a fixed window does as well.
//!
//! # The columns
//!
//! * **lost**: rows of the input that have no answer in the output (an error line, or none at all).
//! * **sent**: requests that arrived at the provider; **429**: those that it answered so, stray ones included.
//! * **least**: the least time from the first arrival to the last admission in which the accepted work could have
//!   been admitted, were all of it ready at the first arrival. With work for k windows: k − 1 windows under rolling
//!   enforcement, the same less the elapsed part of the first one under fixed, and (work − burst) / limit windows for
//!   a bucket.
//! * **makespan**: from the first arrival to the end of the last answer; **ratio**: the same over the least. The last
//!   answers' own latency is in it, so that it can never be 1.
//! * **adm.**: the time from the first arrival to the last admission, over the least.
//! * **wall**: from the start of the process to its end; **CPU**: user and system time of that process;
//!   **RSS**: the most memory that it held. Both are read from `/proc` and so are known on Linux only.
//!
//! With a competitor, **sent** and **429** are the client's own; the least and the ratios are of all that was
//! admitted, so that 1 / **adm.** is the share of the limit that was used.
use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

use crate::case::Case;

mod case;
mod competitor;
mod measure;
mod workload;

/// Measures process_file against the simulated provider, each in a process of its own.
#[derive(Parser)]
struct Args {
    /// Rows of the table, by name.
    #[arg(long, value_delimiter = ',', default_value = "rolling,bucket,fixed")]
    rows: Vec<String>,
    /// Seeds, a run for each.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    seeds: Vec<u64>,
    /// Rows under way at one time.
    #[arg(long, default_value_t = 512)]
    concurrency: u32,
    /// Lists the rows that there are.
    #[arg(long)]
    list: bool,
    /// Writes what the provider saw, request by request, to DIR/ROW-SEED.json.
    #[arg(long, value_name = "DIR")]
    account: Option<PathBuf>,
    /// Takes process_file and tollgate-sim from DIR instead of having cargo build them.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Shows what process_file says.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        for case in case::all() {
            say(&format!("{:<12}{}", case.name, case.about));
        }
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("figures: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let cases: Vec<Case> = args
        .rows
        .iter()
        .map(|name| case::find(name).ok_or_else(|| format!("there is no row {name}; see --list")))
        .collect::<Result<_, _>>()?;
    let programs = match &args.programs {
        Some(directory) => measure::Programs::of(directory),
        None => measure::Programs::build()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    say(measure::Figures::HEAD);
    for case in &cases {
        for &seed in &args.seeds {
            let run = measure::Run {
                case,
                seed,
                concurrency: args.concurrency,
                verbose: args.verbose,
                account: args.account.as_deref(),
            };
            let figures = runtime.block_on(run.measure(&programs))?;
            say(&figures.line(case.name, seed));
        }
    }
    Ok(())
}

#[allow(clippy::print_stdout)] // the table is the output
fn say(line: &str) {
    println!("{line}");
}
