//! The command line, and whether it makes sense.
use std::{path::PathBuf, time::Duration};

use clap::Parser;

use crate::target::Target;

/// Runs every row of a JSONL file against an LLM API, as fast as its limits allow and without losing a row.
///
/// A row is a request body as it would be posted, or a line of OpenAI's Batch file format. Without arguments, a
/// bundled sample runs against a simulated provider.
///
/// Exit codes: 0 every row has its line (an answer or an error), 1 the run broke off, 2 it could not begin,
/// 130 it was stopped.
#[derive(Parser)]
#[command(name = "process_file", version, max_term_width = 110)]
pub struct Args {
    /// The rows.
    #[arg(long, value_name = "FILE.jsonl")]
    input: Option<PathBuf>,

    /// One line for each row, in the order in which they finish.
    #[arg(long, value_name = "FILE.jsonl")]
    output: Option<PathBuf>,

    /// The provider, with or without /v1 [default: https://api.openai.com/v1]
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,

    /// Shown to the provider; not needed for one on this machine.
    #[arg(
        long,
        value_name = "KEY",
        env = "OPENAI_API_KEY",
        hide_env_values = true
    )]
    api_key: Option<String>,

    /// Requests per window. Without it, learned from the provider's headers.
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    rpm: Option<u64>,

    /// Tokens per window, input and output together. Without it, learned from the provider's headers.
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    tpm: Option<u64>,

    /// Length of the window in seconds.
    #[arg(
        long,
        value_name = "W",
        default_value_t = 60.0,
        allow_negative_numbers = true
    )]
    window_secs: f64,

    /// Most requests sent for one row, those to other models included.
    #[arg(
        long,
        value_name = "K", default_value = "8", value_parser = small_count,
        allow_negative_numbers = true
    )]
    max_attempts: u32,

    /// Most rows under way at one time; each may need a connection.
    #[arg(
        long,
        value_name = "N", default_value = "512", value_parser = small_count,
        allow_negative_numbers = true
    )]
    concurrency: u32,

    /// Models that serve a row whose own model cannot, in this order.
    #[arg(long, value_name = "MODEL,MODEL", value_delimiter = ',')]
    fallback: Vec<String>,

    /// The path of every row, instead of what its shape tells.
    #[arg(long, value_name = "PATH")]
    endpoint: Option<String>,

    /// Longest time for one answer, in seconds.
    #[arg(
        long,
        value_name = "S",
        default_value_t = 600.0,
        allow_negative_numbers = true
    )]
    timeout_secs: f64,

    /// Keeps a record of every row in this SQLite file, for `usage_report`.
    #[arg(long, value_name = "FILE.sqlite")]
    ledger: Option<PathBuf>,

    /// Go on where an earlier run has ended: skip the rows that it has answered, run those that failed again.
    #[arg(long)]
    resume: bool,

    /// Throw away an output file that is there.
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
}

/// A job that makes sense.
pub struct Job {
    /// The rows; `None` is the bundled sample.
    pub input: Option<PathBuf>,
    /// Where their lines go.
    pub output: PathBuf,
    /// What is to become of a file that is there.
    pub existing: Existing,
    /// The provider; `None` is the simulated one.
    pub target: Option<Target>,
    /// Requests per window.
    pub requests: Option<u64>,
    /// Tokens per window.
    pub tokens: Option<u64>,
    /// The window.
    pub window: Duration,
    /// Requests for one row.
    pub max_attempts: u32,
    /// Rows under way.
    pub concurrency: usize,
    /// Other models.
    pub fallback: Vec<String>,
    /// Path of every row.
    pub endpoint: Option<String>,
    /// For one answer.
    pub timeout: Duration,
    /// Where records of usage are kept.
    pub ledger: Option<PathBuf>,
}

/// What is to become of an output file that is there and not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// The run does not begin.
    Refuse,
    /// Its answers are kept.
    Resume,
    /// It is emptied.
    Overwrite,
}

impl Args {
    /// Reads the command line; help and version are printed and end the program.
    ///
    /// # Errors
    ///
    /// A sentence.
    pub fn read() -> Result<Self, String> {
        use clap::error::ErrorKind;
        Self::try_parse().map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => error.exit(),
            _ => {
                let text = error.to_string();
                let first = text.split("\n\n").next().unwrap_or(&text);
                let words: Vec<_> = first.split_whitespace().collect();
                words.join(" ").trim_start_matches("error: ").to_owned()
            }
        })
    }

    /// Makes it a job.
    ///
    /// # Errors
    ///
    /// A sentence about the first thing that cannot be.
    pub fn job(self) -> Result<Job, String> {
        let window = seconds("window-secs", self.window_secs)?;
        let timeout = seconds("timeout-secs", self.timeout_secs)?;
        if let Some(path) = &self.endpoint {
            if !crate::rows::is_path(path) {
                return Err(format!(
                    "--endpoint {path} is not a path such as /v1/chat/completions"
                ));
            }
        }
        if self.fallback.iter().any(|model| model.trim().is_empty()) {
            return Err("--fallback holds an empty model name".into());
        }
        let sample = self.input.is_none() && self.output.is_none() && self.base_url.is_none();
        let (output, target) = if sample {
            (sample_output(), None)
        } else {
            if self.input.is_none() {
                return Err("--input is missing: the file that holds the rows".into());
            }
            let output = self
                .output
                .ok_or("--output is missing: the file that the answers go to")?;
            let base = self
                .base_url
                .as_deref()
                .unwrap_or("https://api.openai.com/v1");
            (output, Some(Target::new(base, self.api_key.as_deref())?))
        };
        let existing = match () {
            () if self.resume => Existing::Resume,
            () if self.overwrite || (sample) => Existing::Overwrite,
            () => Existing::Refuse,
        };
        Ok(Job {
            input: self.input,
            output,
            existing,
            target,
            requests: self.rpm,
            tokens: self.tpm,
            window,
            max_attempts: self.max_attempts,
            concurrency: self.concurrency as usize,
            fallback: self.fallback,
            endpoint: self.endpoint,
            timeout,
            ledger: self.ledger,
        })
    }
}

fn count(text: &str) -> Result<u64, &'static str> {
    match text.parse() {
        Ok(0) | Err(_) => Err("it must be a whole number, 1 or more"),
        Ok(count) => Ok(count),
    }
}

fn small_count(text: &str) -> Result<u32, &'static str> {
    let count = count(text)?;
    u32::try_from(count).map_err(|_| "it is too large")
}

fn seconds(name: &str, value: f64) -> Result<Duration, String> {
    const YEAR: f64 = 366.0 * 86_400.0;
    if value > 0.0 && value <= YEAR {
        // A window below a nanosecond is none.
        Ok(Duration::from_secs_f64(value).max(Duration::from_nanos(1)))
    } else {
        Err(format!(
            "--{name} {value} must be above 0 and at most a year"
        ))
    }
}

/// The sample's output goes beside the program, where it is in nobody's way.
fn sample_output() -> PathBuf {
    let beside = std::env::current_exe().ok();
    let directory = beside.as_deref().and_then(|program| program.parent());
    directory
        .map_or_else(std::env::temp_dir, PathBuf::from)
        .join("process_file-sample-output.jsonl")
}
