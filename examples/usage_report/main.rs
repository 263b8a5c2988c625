//! Reports what a ledger holds: tables on the terminal, and one HTML page with plots that needs no network.
//!
//! ```sh
//! # Three days of a small team at a simulated provider:
//! cargo run --release --example usage_report
//!
//! # Your own ledger, as `tollgate_ledger::Ledger` or `process_file --ledger` has written it:
//! cargo run --release --example usage_report -- usage.sqlite --out report
//! ```
use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use clap::Parser;
use jiff::{civil, tz::TimeZone};
use tollgate_ledger::Reader;
use tollgate_usage_report::{demo, figures::Report, page, text};

/// Reports what a ledger holds: tables, and one HTML page with plots that needs no network.
///
/// Without arguments, a team of twelve runs three days of traffic against a simulated provider (on simulated time), and
/// the report is about that.
#[derive(Parser)]
#[command(name = "usage_report", version, max_term_width = 110)]
struct Args {
    /// The ledger.
    #[arg(value_name = "LEDGER.sqlite")]
    ledger: Option<PathBuf>,

    /// Where the page goes: DIR/usage_report.html [default: here; without a ledger a new temporary directory]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// First day, in UTC.
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    since: Option<SystemTime>,

    /// The day after the last, in UTC.
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    until: Option<SystemTime>,
}

/// Of the demonstration.
const HOURS: u64 = 60;

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("usage_report: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let (ledger, out) = match args.ledger {
        Some(ledger) => (ledger, args.out.unwrap_or_else(|| PathBuf::from("."))),
        None => {
            let out = match args.out {
                Some(out) => out,
                None => tempfile::Builder::new()
                    .prefix("usage_report-")
                    .tempdir()?
                    .keep(),
            };
            fs::create_dir_all(&out)?;
            let ledger = out.join("demo.sqlite");
            remove(&ledger)?;
            demo::make(&ledger, demo::ago(HOURS), HOURS)?;
            (ledger, out)
        }
    };
    let reader = Reader::open(&ledger).map_err(|error| format!("{}: {error}", ledger.display()))?;
    let report = Report::read(&reader, args.since, args.until)?;
    fs::create_dir_all(&out)?;
    let page = out.join("usage_report.html");
    fs::write(&page, page::html(&report)?)?;
    let mut text = text::tables(&report);
    text.push_str(&format!("\nThe page with the plots: {}\n", page.display()));
    match io::stdout().write_all(text.as_bytes()) {
        // `usage_report … | head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// An earlier demonstration's files.
fn remove(ledger: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut file = ledger.as_os_str().to_owned();
        file.push(suffix);
        match fs::remove_file(PathBuf::from(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn day(text: &str) -> Result<SystemTime, String> {
    let day: civil::Date = text
        .parse()
        .map_err(|_| "it must be a day such as 2026-11-30".to_owned())?;
    let midnight = day
        .to_zoned(TimeZone::UTC)
        .map_err(|error| error.to_string())?;
    Ok(midnight.timestamp().into())
}
