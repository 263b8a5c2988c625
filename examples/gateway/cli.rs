//! The command line.
use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::{Config, Gateway, demo, keys, shutdown};

/// A gateway in front of LLM providers: limits, retries, fallbacks and records for callers in any language.
///
/// Without arguments it listens on 127.0.0.1:8080 with a simulated provider behind it.
#[derive(Parser)]
#[command(name = "gateway", version, max_term_width = 110)]
struct Args {
    /// The configuration.
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,

    /// Reads the configuration, says whether it is good, and ends.
    #[arg(long)]
    check: bool,

    /// Reads a key from standard input and prints the digest for the configuration.
    #[arg(long)]
    hash_key: bool,

    /// Where to listen without a configuration; port 0 takes a free one.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080",
        conflicts_with = "config"
    )]
    listen: String,

    /// Stops after so many seconds, as on SIGTERM.
    #[arg(long, value_name = "SECONDS")]
    stop_after: Option<f64>,
}

/// Does what the arguments say.
pub async fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run(args: Args) -> Result<(), String> {
    if args.hash_key {
        return say(&keys::hash(io::stdin().lock())?);
    }
    let stop_after = args.stop_after.map(Duration::try_from_secs_f64).transpose();
    let stop_after =
        stop_after.map_err(|_| "--stop-after must be a number of seconds".to_owned())?;
    let (config, simulator) = match &args.config {
        Some(path) => (Config::load(path)?, None),
        None => {
            let simulator = demo::provider()
                .await
                .map_err(|error| format!("the simulated provider: {error}"))?;
            let config = demo::config(&args.listen, &simulator.url())
                .map_err(|error| format!("--listen: {}", error.sentence()))?;
            (config, Some(simulator))
        }
    };
    if args.check {
        let (targets, chains) = (config.targets.len(), config.chains.len());
        return say(&format!(
            "the configuration is good: targets {targets}, chains {chains}"
        ));
    }
    let gateway = Gateway::start(config)
        .await
        .map_err(|error| error.to_string())?;
    say(&format!("listening on http://{}", gateway.addr()))?;
    say(&format!("status page on http://{}/", gateway.admin_addr()))?;
    if simulator.is_some() {
        say(&format!(
            "a simulated provider answers; try: curl http://{}/v1/chat/completions -H 'content-type: application/json' -d '{{\"model\":\"gpt-5-mini\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hi\"}}]}}'",
            gateway.addr()
        ))?;
    }
    shutdown::wanted(stop_after).await;
    if !gateway.stop().await {
        tracing::warn!("some answers were cut: they took longer than `drain`");
    }
    Ok(())
}

fn say(line: &str) -> Result<(), String> {
    match writeln!(io::stdout(), "{line}") {
        // `gateway | head` has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}
