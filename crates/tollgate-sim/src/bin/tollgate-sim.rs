//! A simulated LLM provider on a socket.
#![allow(clippy::print_stdout)]
use std::{error::Error, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};
use tollgate_sim::{
    Charging, Enforcement, FaultMix, Latency, SimBuilder, SimLimit, SimProvider, Unit,
    server::Server,
};

/// A simulated LLM provider: rate limits that are enforced to the last token, real headers and error
/// documents, streams, and faults on demand.
///
/// Serves OpenAI's /v1/chat/completions, /v1/responses and /v1/embeddings and Anthropic's /v1/messages, over
/// HTTP/1.1 and HTTP/2 without TLS. Without any argument it has no limits and no faults and answers at once.
///
/// GET /sim/account tells what it saw, as JSON: requests, refusals, tokens billed, the most that was admitted in
/// any window, the least time in which the accepted work could have been admitted (times are seconds).
/// With ?requests=true it lists every request. POST /sim/reset begins anew.
///
/// Example: five hundred requests and 200,000 tokens in any minute, answers after a quarter of a second,
/// a fifth of the requests in trouble:
///
///   tollgate-sim --requests 500 --tokens 200000 --latency-ms 250 --faults 20
#[derive(Parser, Debug)]
#[command(version, verbatim_doc_comment, max_term_width = 110)]
struct Args {
    /// Where to listen; port 0 takes a free one. Printed as "listening on http://…" when it is ready.
    #[arg(long, default_value = "127.0.0.1:8080", help_heading = "Server")]
    listen: String,
    /// Threads that serve.
    #[arg(long, default_value_t = 1, help_heading = "Server")]
    threads: usize,
    /// Seed of all that is drawn: latencies, lengths, faults.
    #[arg(long, default_value_t = 0, help_heading = "Server")]
    seed: u64,
    /// Known model, with its context window in tokens if one is given; may be repeated. Default: all are known.
    #[arg(long = "model", value_name = "NAME[=TOKENS]", help_heading = "Server")]
    models: Vec<String>,
    /// Accepted API key; may be repeated. Default: all are accepted, also none.
    #[arg(long = "api-key", value_name = "KEY", help_heading = "Server")]
    keys: Vec<String>,
    /// The served model's name ends in "-" and this, as with a dated snapshot behind an alias.
    #[arg(long, value_name = "DATE", help_heading = "Server")]
    dated: Option<String>,

    /// Requests in each window.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    requests: Option<u64>,
    /// Input and output tokens in each window.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    tokens: Option<u64>,
    /// Input tokens in each window.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    input_tokens: Option<u64>,
    /// Output tokens in each window.
    #[arg(long, value_name = "N", help_heading = "Limits")]
    output_tokens: Option<u64>,
    /// The window, in seconds.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 60.0,
        help_heading = "Limits"
    )]
    window: f64,
    /// How the limits are enforced.
    #[arg(long, value_enum, default_value_t = Rule::Rolling, help_heading = "Limits")]
    enforcement: Rule,
    /// What a bucket holds, as a share of the limit.
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 1.0,
        help_heading = "Limits"
    )]
    burst: f64,
    /// The shorter window of "quantised", in seconds.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 1.0,
        help_heading = "Limits"
    )]
    quantum: f64,
    /// What a request is charged.
    #[arg(long, value_enum, default_value_t = Price::Sum, help_heading = "Limits")]
    charging: Price,
    /// What an output cap counts as that the request does not state.
    #[arg(
        long,
        value_name = "TOKENS",
        default_value_t = 16,
        help_heading = "Limits"
    )]
    unset_cap: u64,
    /// Refused requests do not count against the request limit.
    #[arg(long, help_heading = "Limits")]
    lenient: bool,
    /// Each model has the limits for itself.
    #[arg(long, help_heading = "Limits")]
    per_model: bool,
    /// Each API key has the limits for itself.
    #[arg(long, help_heading = "Limits")]
    per_key: bool,
    /// States no limits, waits or processing times.
    #[arg(long, help_heading = "Limits")]
    headers_off: bool,

    /// Time to the answer's headers, in milliseconds: the median.
    #[arg(
        long,
        value_name = "MS",
        default_value_t = 0.0,
        help_heading = "Answers"
    )]
    latency_ms: f64,
    /// Spread of that time: the deviation of its logarithm. 0: always the median.
    #[arg(long, default_value_t = 0.0, help_heading = "Answers")]
    sigma: f64,
    /// Time for each output token, in milliseconds.
    #[arg(
        long,
        value_name = "MS",
        default_value_t = 0.0,
        help_heading = "Answers"
    )]
    pace_ms: f64,
    /// Requests arrive up to this much later than they came, each by another time, in milliseconds.
    #[arg(
        long,
        value_name = "MS",
        default_value_t = 0.0,
        help_heading = "Answers"
    )]
    skew_ms: f64,
    /// Mean share of its output cap that an answer uses.
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 0.5,
        help_heading = "Answers"
    )]
    output_share: f64,
    /// Every answer has so many tokens, or its cap if that is less.
    #[arg(long, value_name = "TOKENS", help_heading = "Answers")]
    reply_tokens: Option<u64>,
    /// Characters of a prompt that really are one token; the charge on arrival always guesses 4.
    #[arg(
        long,
        value_name = "CHARS",
        default_value_t = 4.0,
        help_heading = "Answers"
    )]
    chars_per_token: f64,
    /// Share of each prompt that comes from a cache.
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 0.0,
        help_heading = "Answers"
    )]
    cached_share: f64,

    /// Per cent of all requests that meet a fault: resets, stalls, cut documents and bodies, slow and garbage
    /// headers, 500, 503, 529, stray 429s, in the proportions 2:1:1:1:2:2:3:2:2:3.
    #[arg(long, value_name = "PERCENT", help_heading = "Faults")]
    faults: Option<f64>,
    /// Per cent of requests that meet this one fault; may be repeated, and replaces its part of --faults. Names:
    /// reset, stall, cut-json, cut-body, slow-headers, garbage-headers, 500, 503, 529, 429.
    #[arg(long = "fault", value_name = "NAME=PERCENT", help_heading = "Faults")]
    single: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Rule {
    /// What arrived in the last window, exactly, at every instant.
    Rolling,
    /// A bucket that leaks evenly (OpenAI, Groq, Anthropic).
    Bucket,
    /// A counter that starts anew each window, from the start or the last reset.
    Fixed,
    /// A fixed counter over --quantum, for its part of the limit (Azure).
    Quantised,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Price {
    /// ceil(characters / 4) + cap × n; nothing comes back.
    Sum,
    /// The larger of the two; nothing comes back.
    Max,
    /// ceil(characters / 4) + 2 a message; nothing comes back.
    PromptOnly,
    /// As sum, replaced by the real usage when the answer ends (Bedrock).
    Settle,
    /// Uncached input at once, real output when the answer ends (Anthropic).
    RealUsage,
}

impl Args {
    fn provider(&self) -> Result<SimProvider, String> {
        let mut builder = self.limits(SimProvider::builder())?;
        for model in &self.models {
            builder = match model.split_once('=') {
                Some((name, tokens)) => {
                    let tokens = tokens
                        .parse()
                        .map_err(|_| format!("--model {model}: not a number of tokens"))?;
                    builder.model_with_context(name, tokens)
                }
                None => builder.model(model),
            };
        }
        for key in &self.keys {
            builder = builder.api_key(key);
        }
        if let Some(date) = &self.dated {
            builder = builder.dated(date);
        }
        let median = millis("--latency-ms", self.latency_ms)?;
        builder = match self.sigma {
            sigma if sigma > 0.0 => builder.latency(Latency::LogNormal { median, sigma }),
            _ => builder.latency(median),
        };
        if self.skew_ms > 0.0 {
            let max = millis("--skew-ms", self.skew_ms)?;
            builder = builder.arrival_skew(Latency::Uniform {
                min: Duration::ZERO,
                max,
            });
        }
        if let Some(tokens) = self.reply_tokens {
            builder = builder.reply_tokens(tokens);
        }
        if let Some(mix) = self.mix()? {
            builder = builder.mix(mix);
        }
        if self.headers_off {
            builder = builder.headers_off();
        }
        Ok(builder
            .pace(millis("--pace-ms", self.pace_ms)?)
            .output_share(self.output_share)
            .chars_per_token(self.chars_per_token)
            .cached_share(self.cached_share)
            .seed(self.seed)
            .epoch(tollgate_core::clock::wall())
            .build())
    }

    fn limits(&self, mut builder: SimBuilder) -> Result<SimBuilder, String> {
        let amounts = [
            (Unit::Requests, self.requests),
            (Unit::Tokens, self.tokens),
            (Unit::InputTokens, self.input_tokens),
            (Unit::OutputTokens, self.output_tokens),
        ];
        for (unit, amount) in amounts {
            let Some(amount) = amount else { continue };
            let enforcement = match self.enforcement {
                Rule::Rolling => Enforcement::Rolling,
                Rule::Fixed => Enforcement::Fixed,
                Rule::Quantised => Enforcement::Quantised {
                    q: seconds("--quantum", self.quantum)?,
                },
                Rule::Bucket => Enforcement::Bucket {
                    burst: Some(((amount as f64 * self.burst).round() as u64).max(1)),
                },
            };
            builder = builder.limit(SimLimit::new(unit, amount).enforced(enforcement));
        }
        if self.lenient {
            builder = builder.lenient();
        }
        if self.per_model {
            builder = builder.per_model();
        }
        if self.per_key {
            builder = builder.per_key();
        }
        Ok(builder
            .window(seconds("--window", self.window)?)
            .unset_cap(self.unset_cap)
            .charging(match self.charging {
                Price::Sum => Charging::Sum,
                Price::Max => Charging::Max,
                Price::PromptOnly => Charging::PromptOnly,
                Price::Settle => Charging::Settle,
                Price::RealUsage => Charging::RealUsage,
            }))
    }

    fn mix(&self) -> Result<Option<FaultMix>, String> {
        if self.faults.is_none() && self.single.is_empty() {
            return Ok(None);
        }
        let mut mix = match self.faults {
            Some(percent) => FaultMix::standard().scaled_to(percent),
            None => FaultMix::default(),
        };
        for fault in &self.single {
            let wrong =
                || format!("--fault {fault}: give NAME=PERCENT, with one of the names in --help");
            let (name, percent) = fault.split_once('=').ok_or_else(wrong)?;
            let place = match name {
                "reset" => &mut mix.reset,
                "stall" => &mut mix.stall,
                "cut-json" => &mut mix.cut_json,
                "cut-body" => &mut mix.cut_body,
                "slow-headers" => &mut mix.slow_headers,
                "garbage-headers" => &mut mix.garbage_headers,
                "500" => &mut mix.status_500,
                "503" => &mut mix.status_503,
                "529" => &mut mix.status_529,
                "429" => &mut mix.stray_429,
                _ => return Err(wrong()),
            };
            *place = percent.parse().map_err(|_| wrong())?;
        }
        Ok(Some(mix))
    }
}

fn seconds(name: &str, value: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|time| !time.is_zero())
        .ok_or_else(|| format!("{name} must be above zero"))
}

fn millis(name: &str, value: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(value / 1_000.0).map_err(|_| format!("{name} must be zero or more"))
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tollgate-sim: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let mut runtime = match args.threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if args.threads > 1 {
        runtime.worker_threads(args.threads);
    }
    runtime.enable_all().build()?.block_on(async {
        let provider = args.provider()?;
        let server = Server::bind(&args.listen, provider)
            .await
            .map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
        println!("listening on {}", server.url());
        tokio::signal::ctrl_c().await?;
        server.stop().await;
        Ok(())
    })
}
